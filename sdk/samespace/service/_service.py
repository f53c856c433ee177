"""What the routes share: the gallery, the models that run here, threads for work, and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from samespace.gallery import Gallery
from samespace.service._config import ServiceConfig
from samespace.service._keys import KeyRing
from samespace.service._limits import RateLimit
from samespace.service._metrics import Metrics
from samespace.service._problems import Refusal
from samespace_edge import (
    ConfigError,
    Embedder,
    Fingerprint,
    ImageError,
    ModelIdentity,
    decode,
)

T = TypeVar("T")
_UNKNOWN = "0" * 64


class Service:
    """A running service. Routes work on threads; everything else is the event loop's.

    Attributes:
        config: its settings.
        keys: who may ask.
        rate: how often.
        metrics: what Prometheus is told.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.keys = KeyRing(config.keys_path)
        shared = Path(config.run_folder) / "rates" if config.run_folder else None
        self.rate = RateLimit(config.rate, config.burst, shared)
        self.metrics = Metrics()
        self._gallery: Gallery | None = None
        self._embedders: tuple[Embedder, ...] = ()
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="samespace")
        self._held = 0
        self._abandoned = 0

    def open(self) -> None:
        """Open the gallery, read its index and load the models; raises what is wrong with them."""
        self._embedders = tuple(Embedder(path) for path in self.config.bundles)
        gallery = Gallery.open(self.config.gallery, busy_timeout=self.config.busy_timeout)
        len(gallery)  # the index is there before the first search
        self._gallery = gallery

    def close(self) -> None:
        """Finish the work that was begun, and close the gallery."""
        self._pool.shutdown()
        if self._gallery is not None:
            self._gallery.close()
            self._gallery = None
        self.rate.close()

    @property
    def gallery(self) -> Gallery:
        """The gallery; raises `Refusal` while it is not open."""
        if self._gallery is None:
            raise Refusal("not-ready", "the gallery is not open yet", headers={"retry-after": "1"})
        return self._gallery

    # work

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Count a request that is held; raises `Refusal` where there are too many."""
        if self._held + self._abandoned >= self.config.concurrency:
            raise Refusal(
                "too-much-at-once",
                f"a worker holds {self.config.concurrency} requests at a time, and has them.",
                headers={"retry-after": "1"},
            )
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def work(self, act: Callable[[], T]) -> T:
        """Do something on a thread. Cancelled, what has begun goes on, and still counts."""
        job = self._pool.submit(act)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if not job.done():
                self._abandoned += 1
                loop = asyncio.get_running_loop()
                job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._settle))
            raise

    def _settle(self) -> None:
        self._abandoned -= 1

    # models

    @property
    def embedders(self) -> tuple[Embedder, ...]:
        """The models that run here."""
        return self._embedders

    def embedder(self, model: str | None) -> Embedder:
        """The model that embeds pictures: by name or fingerprint, or the default one.

        Raises `ConfigError` where it does not run here.
        """
        if model is None:
            anchors = (e for e in self._embedders if e.identity.is_anchor)
            first = next(anchors, next(iter(self._embedders), None))
            if first is None:
                raise ConfigError(
                    "no model runs here, so pictures cannot be embedded. Start the service with "
                    "--bundle, or send vectors."
                )
            return first
        for embedder in self._embedders:
            if model in (embedder.identity.name, embedder.identity.fingerprint.hex):
                return embedder
        run = ", ".join(str(e.identity) for e in self._embedders) or "none"
        raise ConfigError(f"the model {model!r} does not run here; these do: {run}")

    def pixels(self, model: Embedder, pictures: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        """Pictures as the model takes them, decoded one by one and with the service's own limit.

        Raises `DecodeError`, `ImageTooLargeError`, naming the picture.
        """
        made = []
        for position, picture in enumerate(pictures):
            try:
                made.append(model.preprocess(decode(picture, self.config.max_pixels)))
            except ImageError as error:
                raise type(error)(f"picture {position}: {error}") from None
        return made

    def maker(self, fingerprint: str, variant: str | None) -> ModelIdentity:
        """Who made the vectors that a request brings, as the gallery knows it.

        Args:
            fingerprint: of the model, 64 hexadecimal digits.
            variant: sha256 of the graph file. Without one, the model's only accepted file is meant.

        An identity that is not accepted is returned too: the gallery refuses it, and says why.
        """
        gallery = self.gallery
        known: Iterable[ModelIdentity] = gallery.admitted
        for _ in range(2):
            found = [
                m
                for m in known
                if m.fingerprint.hex == fingerprint and variant in (None, m.variant_sha256)
            ]
            if len(found) == 1:
                return found[0]
            if found:
                held = ", ".join(f"{m.variant} {m.variant_sha256}" for m in found)
                raise ConfigError(f"several files of this model are accepted; name one: {held}")
            known = gallery.certificates()  # another process may have admitted it
        return ModelIdentity(
            "with the fingerprint",
            Fingerprint(fingerprint),
            "unknown file" if variant is None else f"file {variant[:12]}",
            variant or _UNKNOWN,
            gallery.space,
            gallery.dim,
        )
