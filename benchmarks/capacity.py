"""What does a gallery take, beside what `samespace plan capacity` says, and how fast is it filled?

    OMP_NUM_THREADS=1 python -m benchmarks.capacity [--n 200000] [--stores folder milvus]
    OMP_NUM_THREADS=1 python -m benchmarks.capacity --n 600000 --stores milvus --no-upgrade

The same vectors in a folder and in a standalone Milvus ('make milvus' installs it), added through
the SDK and then all upgraded, from vectors that are given. Rows of other stores and sizes stay.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks import open as opening
from benchmarks._data import DIM, anchor, clustered
from benchmarks._result import OTHER_WORK, earlier, write
from benchmarks.upgrade_scale import admitted, newer
from samespace import Gallery
from samespace.gallery import GivenVectors

COLUMNS = {
    "store": "embedded: a folder; milvus: a standalone server on this machine",
    "items": "vectors in the gallery",
    "memory_mib": "embedded: what a process grows by when it opens the gallery and searches; "
    "milvus: what the server grew by, filled, indexed and at rest, MiB",
    "peak_memory_mib": "milvus: the same, largest while it was filled and indexed; else null",
    "disk_mib": "size of the folder, or what the server's grows by, once filled and indexed, MiB",
    "upgrade_disk_mib": "the same while all items are upgraded, old vectors kept, largest, MiB; "
    "null where none was upgraded",
    "write_rate": "items a second, added in batches of 1,000",
    "backfill_rate": "items a second that get another vector, in batches of 1,000, old one kept",
}

ID_BYTES, PAYLOAD_BYTES = 11, 13
"""Of the items here, for the plan."""

_BATCH = 1000
_LOOK_EVERY = 0.1  # seconds
_SETTLED = 20.0  # seconds of rest
_IDLE = 25.0  # per cent of a core


class Highest:
    """The largest value of a measurement while the block runs, in MiB."""

    def __init__(self, measure: Callable[[], float]) -> None:
        self._measure = measure
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.value = 0.0

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            self.value = max(self.value, self._measure())

    def __enter__(self) -> Highest:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self.value = max(self.value, self._measure())


def folder_size(folder: Path) -> float:
    """MiB of the files that are there; they may go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total / 2**20


def upgraded(gallery: Gallery, n: int) -> float:
    """Items a second of a whole upgrade from given vectors."""
    admitted(gallery)
    given = GivenVectors(newer(), [f"item-{i}" for i in range(n)], clustered(n, 5))
    start = time.perf_counter()
    assert gallery.upgrade.run(given, batch=_BATCH).done == n
    return n / (time.perf_counter() - start)


def in_a_folder(n: int, folder: Path, upgrade: bool) -> dict[str, Any]:
    found = opening.measure(n, folder)
    path = folder / str(n)
    row = {
        "memory_mib": found["peak_mib"] - found["start_mib"],
        "disk_mib": found["disk_mib"],
        "write_rate": n / found["add_seconds"],
    }
    if upgrade:
        with Gallery.open(path) as gallery, Highest(lambda: folder_size(path)) as highest:
            row["backfill_rate"] = upgraded(gallery, n)
        row["upgrade_disk_mib"] = highest.value
    return row


def in_milvus(n: int, folder: Path, upgrade: bool) -> dict[str, Any]:
    from samespace.gallery._milvus._address import Address
    from samespace.gallery._milvus._server import Server
    from samespace.gallery._milvus._store import MilvusStore
    from tests.milvus_server import MilvusProcess

    server = MilvusProcess(folder / "milvus")
    server.start()
    try:
        process = psutil.Process(server.pid)

        def memory() -> float:
            return sum(p.memory_info().rss for p in (process, *process.children(True))) / 2**20

        def disk() -> float:
            return folder_size(folder / "milvus")

        url = f"milvus://{server.address}/bench"
        _rest(process)
        empty_memory, empty_disk = memory(), disk()
        MilvusStore.create(Server(Address.parse(url, 60.0)), anchor(), "bench")
        x = clustered(n, 1)
        with Gallery.open(url) as gallery:
            with Highest(memory) as most:
                start = time.perf_counter()
                for at in range(0, n, _BATCH):
                    ids = [f"item-{i}" for i in range(at, min(n, at + _BATCH))]
                    payloads = [{"shelf": i % 100} for i in range(at, at + len(ids))]
                    part = x[at : at + _BATCH]
                    gallery.add(ids, vectors=part, model=anchor(), payloads=payloads)
                seconds = time.perf_counter() - start
                gallery.search(vectors=x[:10], model=anchor(), k=10)
                _rest(process)
            row = {
                "memory_mib": memory() - empty_memory,
                "peak_memory_mib": most.value - empty_memory,
                "disk_mib": disk() - empty_disk,
                "write_rate": n / seconds,
            }
            if upgrade:
                with Highest(disk) as highest:
                    row["backfill_rate"] = upgraded(gallery, n)
                    _rest(process)
                row["upgrade_disk_mib"] = highest.value - empty_disk
        return row
    finally:
        server.kill()


def _rest(process: psutil.Process, longest: float = 400.0) -> None:
    """Wait until a server does next to nothing for a while: it works in the background."""
    end = time.monotonic() + longest
    since = time.monotonic()
    while time.monotonic() < end and time.monotonic() - since < _SETTLED:
        if process.cpu_percent(interval=2.0) > _IDLE:
            since = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200_000)
    stores = {"folder": in_a_folder, "milvus": in_milvus}
    parser.add_argument("--stores", nargs="+", default=list(stores), choices=list(stores))
    parser.add_argument("--no-upgrade", action="store_true")
    arguments = parser.parse_args()
    names = {"folder": "embedded", "milvus": "milvus"}
    notes = [
        f"{DIM}-d unit vectors, ids of {ID_BYTES} bytes, payloads of {PAYLOAD_BYTES}. "
        f"{OTHER_WORK} Of a Milvus that was upgraded, old and new segments are both there "
        "until it removes what it merged."
    ]
    for store in arguments.stores:
        with tempfile.TemporaryDirectory() as folder:
            found = stores[store](arguments.n, Path(folder), not arguments.no_upgrade)
        row = {"store": names[store], "items": arguments.n, **found}
        rows = [
            {name: r.get(name) for name in COLUMNS}
            for r in [*earlier("capacity"), row]
            if r is row or (r["store"], r["items"]) != (row["store"], row["items"])
        ]
        rows.sort(key=lambda r: (r["store"], r["items"]))
        write("capacity", COLUMNS, rows, notes=notes)


if __name__ == "__main__":
    main()
