"""A pool on the machines of a Ray cluster, through Ray Data.

Batches are handed to Ray Data in windows; each window is a dataset of its own, with a row for every
batch. An actor keeps a process of its own for the pictures, so that one that kills a process kills
no actor: Ray would start that one again, and hand it the same picture, for ever.
"""

from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from samespace.pool._child import Child
from samespace.pool._embed import Made
from samespace_edge import ConfigError, Embedder, ImageSource

_T = TypeVar("_T")

WINDOW = 4096
"""Batches of one dataset. Between two of them actors start anew, which takes seconds."""

_CPUS = 0.5
"""Of an actor: with whole ones Ray Data's own tasks would wait for the actors, and these for them.
"""


class RayPool:
    """Actors that embed, on every machine of a Ray cluster.

    Held here are the batches of one window, paths and vectors, whatever the number of actors.
    Pictures have to be where every machine can read them: at URLs, or on a disk that all share.

    Args:
        model: what the actors open; its bundle is sent to them.
        workers: how many actors; by default one for every CPU of the cluster.
        address: of a cluster, `auto` for the one of this machine; by default Ray is started here,
            and ended with the pool.

    Raises `ConfigError` where Ray is not installed or the cluster does not answer.
    """

    def __init__(
        self, model: Embedder, workers: int | None = None, address: str | None = None
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers has to be 1 or more with Ray, not {workers}")
        try:
            import ray.data
        except ImportError:
            raise ConfigError('Ray Data is not installed: pip install "samespace[ray]"') from None
        self._ray: Any = ray
        self._started = not ray.is_initialized()
        if self._started:
            _start(ray, address)
        cpus = int(ray.cluster_resources().get("CPU", 1))
        self.workers = workers or max(1, cpus)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        self._what = (ray.put(_packed(model.bundle.path)), model.variant.name, model.runtime)

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._started:
            self._ray.shutdown()

    def run(
        self, batches: Iterable[tuple[_T, Sequence[ImageSource]]]
    ) -> Iterator[tuple[_T, list[Made]]]:
        """See `Pool.run`."""
        left = iter(batches)
        while window := list(islice(left, WINDOW)):
            rows = [
                {"place": place, "sources": pickle.dumps(list(sources))}
                for place, (_, sources) in enumerate(window)
                if len(sources)
            ]
            yield from ((tag, []) for tag, sources in window if not len(sources))
            if not rows:
                continue
            done = self._ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _Actor,
                fn_constructor_args=self._what,
                compute=self._ray.data.ActorPoolStrategy(size=min(self.workers, len(rows))),
                num_cpus=_CPUS,
            )
            for row in done.iter_rows():
                made: list[Made] = pickle.loads(row["made"])
                yield window[row["place"]][0], made


class _Actor:
    """Embeds the batches that an actor is given."""

    def __init__(self, bundle: Any, variant: str, runtime: str) -> None:
        import ray

        self._folder = tempfile.TemporaryDirectory(prefix="samespace-")
        content = ray.get(bundle) if isinstance(bundle, ray.ObjectRef) else bundle
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            packed.extractall(self._folder.name)
        self._child = Child(Embedder(self._folder.name, variant=variant, runtime=runtime))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        made = self._child.embed(pickle.loads(row["sources"]))
        return {"place": row["place"], "made": pickle.dumps(made)}


def _start(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"Ray did not start, or there is no cluster at {address or 'this machine'}: {error}"
        ) from None


def _packed(folder: Path) -> bytes:
    """A bundle's folder in one piece."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            packed.write(file, file.relative_to(folder).as_posix())
    return out.getvalue()
