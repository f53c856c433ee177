"""Where new vectors of old items come from: their pictures, or vectors that are already there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from samespace._dataset import Dataset
from samespace.gallery._inputs import checked_ids, unit_vectors
from samespace_edge import (
    ConfigError,
    DataError,
    Embedder,
    ImageError,
    ModelIdentity,
    SamespaceError,
)
from samespace_edge._image import ImageSource

_T = TypeVar("_T")
Vectors = NDArray[np.float32]
Made = Vectors | str
"""The new vector (D,) of an item, or why there is none."""

Find = Callable[[str, Any], ImageSource | None]
"""From an item's id and payload to its picture; None where it is gone."""

_GONE = "its picture is gone"
_LOOK_EVERY = 1.0  # seconds


class Originals(Protocol):
    """What items are embedded again from."""

    @property
    def identity(self) -> ModelIdentity:
        """Who makes the new vectors."""

    def working(self) -> AbstractContextManager[None]:
        """Held while `make` is called again and again."""

    def make(self, items: Sequence[tuple[str, Any]]) -> list[Made]:
        """New vectors of items (id, payload), or why one cannot be made."""


@runtime_checkable
class StreamedOriginals(Originals, Protocol):
    """Originals that embed many batches side by side."""

    def each(
        self, batches: Iterable[tuple[_T, Sequence[tuple[str, Any]]]]
    ) -> Iterator[tuple[_T, list[Made]]]:
        """As `make` for every batch, in the order in which they are done.

        Args:
            batches: pairs of anything, by which a batch is known again, and its items. They may be
                iterated over in another thread.
        """


class Pictures:
    """Pictures, embedded by the new model.

    Args:
        model: the new model.
        find: from an item's id and payload to its picture; or a folder that ids are paths in; or a
            dataset whose pictures' paths are the ids, as 'samespace gallery add --data' has it.
        workers: processes that decode and embed; 1 does it in this one.
    """

    def __init__(
        self, model: Embedder, find: Find | str | Path | Dataset, *, workers: int = 1
    ) -> None:
        if workers < 1:
            raise ConfigError(f"workers has to be 1 or more, not {workers}")
        self._model = model
        self._find = _finder(find)
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    @property
    def identity(self) -> ModelIdentity:
        """See `Originals.identity`."""
        return self._model.identity

    @contextmanager
    def working(self) -> Iterator[None]:
        """See `Originals.working`; starts the processes."""
        if self.workers == 1:
            yield
            return
        what = (str(self._model.bundle.path), self._model.variant.name, self._model.runtime)
        with ProcessPoolExecutor(
            self.workers, get_context("spawn"), _open_model, (*what, os.getpid())
        ) as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def make(self, items: Sequence[tuple[str, Any]]) -> list[Made]:
        """See `Originals.make`."""
        sources, reasons = self._found(items)
        return _merged(sources, reasons, self._embedded([s for s in sources if s is not None]))

    def _found(
        self, items: Sequence[tuple[str, Any]]
    ) -> tuple[list[ImageSource | None], dict[int, str]]:
        """The picture of every item, and by place why there is none."""
        sources: list[ImageSource | None] = []
        reasons: dict[int, str] = {}
        for place, (id_, payload) in enumerate(items):
            source: ImageSource | None = None
            try:
                source = self._find(id_, payload)
            except (OSError, KeyError, DataError, ImageError) as error:
                reasons[place] = f"{_GONE}: {error}"
            if source is None:
                reasons.setdefault(place, _GONE)
            sources.append(source)
        return sources, reasons

    def _embedded(self, sources: list[ImageSource]) -> Iterator[Made]:
        if self._pool is None:
            return iter(_embed(self._model, sources))
        size = -(-len(sources) // self.workers) or 1
        parts = [sources[i : i + size] for i in range(0, len(sources), size)]
        try:
            return iter([v for part in self._pool.map(_work, parts) for v in part])
        except BrokenProcessPool:
            raise SamespaceError(
                "a process that embeds pictures died, perhaps for want of memory; what is done is "
                "kept: run the upgrade again, with fewer workers"
            ) from None


def _merged(
    sources: Sequence[ImageSource | None], reasons: Mapping[int, str], made: Iterable[Made]
) -> list[Made]:
    """What was made of the pictures that there are, and the reasons of the others."""
    left = iter(made)
    return [reasons[i] if s is None else next(left) for i, s in enumerate(sources)]


class GivenVectors:
    """Vectors that the new model has made already.

    Args:
        model: who made them.
        ids: of the items.
        vectors: (N, D), in that order.
    """

    def __init__(self, model: ModelIdentity, ids: Sequence[str], vectors: Vectors) -> None:
        self._identity = model
        self._place = {id_: place for place, id_ in enumerate(checked_ids(ids))}
        self._vectors = unit_vectors(vectors, model.dim, model.name, ids)

    @property
    def identity(self) -> ModelIdentity:
        """See `Originals.identity`."""
        return self._identity

    def working(self) -> AbstractContextManager[None]:
        """See `Originals.working`."""
        return nullcontext()

    def make(self, items: Sequence[tuple[str, Any]]) -> list[Made]:
        """See `Originals.make`."""
        places = [self._place.get(id_) for id_, _ in items]
        return ["no vector was given for it" if p is None else self._vectors[p] for p in places]


def _finder(find: Find | str | Path | Dataset) -> Find:
    if isinstance(find, Dataset):
        data, known = find, {item.path: item for item in find.items}
        return lambda id_, payload: data.read(known[id_]) if id_ in known else None
    if isinstance(find, str | Path):
        folder = Path(find)
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder} to find pictures in")

        def inside(id_: str, payload: Any) -> Path | None:
            path = folder / id_
            return path if path.is_file() else None

        return inside
    return find


def _embed(model: Embedder, sources: Sequence[ImageSource]) -> list[Made]:
    made: list[Made] = []
    pixels = []
    places = []
    for place, source in enumerate(sources):
        try:
            pixels.append(model.preprocess(source))
            places.append(place)
            made.append("")
        except (ImageError, OSError) as error:
            made.append(str(error))
    if pixels:
        for place, vector in zip(places, model.embed_pixels(np.stack(pixels)), strict=True):
            made[place] = vector
    return made


# In the processes of a pool.

_model: Embedder | None = None


def _open_model(bundle: str, variant: str, runtime: str, parent: int) -> None:
    global _model
    _model = Embedder(bundle, variant=variant, runtime=runtime)

    def leave_with(parent: int) -> None:
        # Killed, the parent cannot tell its processes to stop.
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()


def _work(sources: Sequence[ImageSource]) -> list[Made]:
    assert _model is not None
    return _embed(_model, sources)
