"""Pictures of an upgrade, embedded by a pool that outlives the death of its processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from samespace._dataset import Dataset
from samespace.gallery import Pictures
from samespace.gallery._originals import Find, _merged
from samespace.indexing._manifest import SOURCE
from samespace.pool import Made, Pool, embed_each, located, open_pool
from samespace_edge import Embedder, ImageSource

_T = TypeVar("_T")


class PooledPictures(Pictures):
    """As `samespace.gallery.Pictures`, embedded by a pool, which is ahead of the gallery by some
    batches: a picture that kills the process that embeds it is one that cannot be embedded, and
    stops nothing.

    Args:
        model: the new model.
        find: see `Pictures`; it may also give URLs, as `noted_sources` does. It is called in a
            thread of its own.
        workers, ray, ray_address: see `samespace.pool.open_pool`.
    """

    def __init__(
        self,
        model: Embedder,
        find: Find | str | Path | Dataset,
        *,
        workers: int | None = None,
        ray: bool = False,
        ray_address: str | None = None,
    ) -> None:
        super().__init__(model, find, workers=1 if workers is None else workers)
        self._open: dict[str, Any] = {"workers": workers, "ray": ray, "ray_address": ray_address}
        self._processes: Pool | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """See `samespace.gallery.Pictures.working`; starts the processes."""
        with open_pool(self._model, **self._open) as pool:
            self._processes = pool
            try:
                yield
            finally:
                self._processes = None

    def each(
        self, batches: Iterable[tuple[_T, Sequence[tuple[str, Any]]]]
    ) -> Iterator[tuple[_T, list[Made]]]:
        """See `samespace.gallery.StreamedOriginals.each`."""
        pool = self._processes
        if pool is None:
            for tag, items in batches:
                yield tag, self.make(items)
            return

        def found() -> Iterator[tuple[Any, list[ImageSource]]]:
            for tag, items in batches:
                sources, reasons = self._found(items)
                yield (tag, sources, reasons), [s for s in sources if s is not None]

        for (tag, sources, reasons), made in pool.run(found()):
            yield tag, _merged(sources, reasons, made)

    def _embedded(self, sources: list[ImageSource]) -> Iterator[Made]:
        if self._processes is None:
            return iter(embed_each(self._model, sources))
        return iter([v for _, part in self._processes.run([(None, sources)]) for v in part])


def noted_sources(folder: str) -> Find:
    """Finds the pictures of items that `index_pictures` added, by what it noted of them.

    Args:
        folder: that the manifest was in, or its URL.
    """

    def find(id_: str, payload: Any) -> str | None:
        noted = payload.get(SOURCE) if isinstance(payload, dict) else None
        return located(noted["path"], folder) if isinstance(noted, dict) else None

    return find
