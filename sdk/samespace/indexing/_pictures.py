"""Pictures of an upgrade, embedded by a pool that outlives the death of its processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from samespace._dataset import Dataset
from samespace.gallery import Pictures
from samespace.gallery._originals import Find
from samespace.pool import Made, ProcessPool
from samespace_edge import Embedder, ImageSource


class PooledPictures(Pictures):
    """As `samespace.gallery.Pictures`, embedded by a `samespace.pool.ProcessPool`: a picture that
    kills the process that embeds it is one that cannot be embedded, and stops nothing.

    Args:
        model: the new model.
        find: see `Pictures`; it may also give URLs.
        workers: processes that read, decode and embed.
    """

    def __init__(
        self, model: Embedder, find: Find | str | Path | Dataset, *, workers: int = 1
    ) -> None:
        super().__init__(model, find, workers=workers)
        self._processes: ProcessPool | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """See `samespace.gallery.Pictures.working`; starts the processes."""
        with ProcessPool(self._model, self.workers) as pool:
            self._processes = pool
            try:
                yield
            finally:
                self._processes = None

    def _embedded(self, sources: list[ImageSource]) -> Iterator[Made]:
        if self._processes is None:
            return super()._embedded(sources)
        size = -(-len(sources) // self.workers) or 1
        parts: list[tuple[int, Sequence[ImageSource]]]
        parts = [(i, sources[i : i + size]) for i in range(0, len(sources), size)]
        made = sorted(self._processes.run(parts), key=lambda part: part[0])
        return iter([vector for _, part in made for vector in part])
