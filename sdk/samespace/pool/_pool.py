"""What every pool does, and which one it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from samespace.pool._embed import Made, embed_each
from samespace.pool._processes import ProcessPool
from samespace_edge import ConfigError, Embedder, ImageSource

_T = TypeVar("_T")


class Pool(Protocol):
    """What embeds batches of pictures."""

    @property
    def workers(self) -> int:
        """How many processes."""

    def run(
        self, batches: Iterable[tuple[_T, Sequence[ImageSource]]]
    ) -> Iterator[tuple[_T, list[Made]]]:
        """Embed batches.

        Args:
            batches: pairs of anything, by which a batch is known again, and its pictures: paths,
                URLs, or any other picture that an `Embedder` takes.

        Gives back for every batch the first of the two, and for each picture its float32 unit
        vector (D,) or the reason why there is none; in the order in which batches are done.
        """


class HerePool:
    """Embeds in this process: nothing runs side by side, and a picture that kills it kills all.

    Args:
        model: what embeds.
    """

    workers = 1

    def __init__(self, model: Embedder) -> None:
        self._model = model

    def __enter__(self) -> HerePool:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def run(
        self, batches: Iterable[tuple[_T, Sequence[ImageSource]]]
    ) -> Iterator[tuple[_T, list[Made]]]:
        """See `Pool.run`."""
        for tag, sources in batches:
            yield tag, embed_each(self._model, sources)


def open_pool(
    model: Embedder,
    *,
    workers: int | None = None,
    ray: bool = False,
    ray_address: str | None = None,
) -> AbstractContextManager[Pool]:
    """The pool that was asked for; use it as a context manager.

    Args:
        model: what embeds.
        workers: processes; 0 embeds in this one. By default 1, or with Ray one for every CPU.
        ray: go through Ray Data (extra: `ray`).
        ray_address: of a Ray cluster, `auto` for the one that this machine belongs to; by default
            Ray is started on this machine alone.

    Raises `ConfigError`.
    """
    if ray:
        from samespace.pool._ray import RayPool

        return RayPool(model, workers, ray_address)
    if ray_address is not None:
        raise ConfigError(f"the address {ray_address!r} is of a Ray cluster: say ray=True (--ray)")
    return HerePool(model) if workers == 0 else ProcessPool(model, workers or 1)
