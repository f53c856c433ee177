"""What does the service cost on top of the search, up to which load, and is its memory flat?

    python -m benchmarks.service [--n 100000] [--seconds 10] [--soak-minutes 10]
        [--milvus 127.0.0.1:19530] [--parts latency limits soak milvus]

Clients are in a process of their own (`_load.py`), each with one request at a time. In process
means a thread for every client in one process, with nothing between them and the index. Everything
is asked at 127.0.0.1. With `--milvus`, the same vectors are searched in a Milvus, through its own
client and through the service. Of parts that are not run, the rows of an earlier run stay.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks._data import DIM, anchor, clustered
from benchmarks._load import QUERIES
from benchmarks._result import earlier, write
from benchmarks.overhead import _gallery
from samespace_edge import GalleryError

CLIENTS = (1, 8, 32)
PARTS = ("latency", "milvus", "limits", "soak")
COLUMNS = {
    "part": "latency, milvus: as fast as answers come; limits: at and past them; soak: for minutes",
    "what": "what is asked, or what is done",
    "clients": "clients, each with one request at a time",
    "requests": "requests that were counted, the first half second left out",
    "asked_per_second": "requests a second",
    "per_second": "requests a second that were answered with 200",
    "p50_ms": "of those: median latency, ms",
    "p95_ms": "95 % were at most that, ms",
    "p99_ms": "99 % were at most that, ms",
    "cpu_ms": "CPU time of whoever answers, a request, ms: of the service, or of the process",
    "refused": "requests answered with 429, every one of them with a retry-after",
    "errors": "requests with any other answer, or none",
    "recall": "recall@10 against an exact search, 200 queries",
    "minute": "soak: which minute",
    "rss_mib": "soak: resident memory of the service at its end, MiB",
}
SERVE = [sys.executable, "-c", "from samespace.cli import main; main()", "serve"]


class Served:
    """A service in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    @property
    def rss(self) -> float:
        """Resident memory of it and its workers, MiB."""
        return sum(p.memory_info().rss for p in self._processes()) / 2**20

    def _processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def _cpu(self) -> float:
        return sum(t.user + t.system for t in (p.cpu_times() for p in self._processes()))

    def asked(self, kind: str, clients: int, seconds: float, **more: Any) -> dict[str, Any]:
        """What the load generator says, with the CPU time that the service took."""
        before = self._cpu()
        found = load(kind, clients, seconds, port=self.port, path=address(), **more)
        return {**found, "cpu": self._cpu() - before}


@contextlib.contextmanager
def serving(gallery: Path | str, folder: Path, *options: object) -> Iterator[Served]:
    """Start a service, and stop it at the end."""
    log = folder / "service.log"
    words = [*SERVE, str(gallery), "--port", "0", *map(str, options)]
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file)
    try:
        yield Served(process, _port(process, log))
    finally:
        process.terminate()
        process.wait(60)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until it is ready; the port that it chose."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        lines = [json.loads(x) for x in log.read_text().splitlines() if x.startswith("{")]
        events = {line["event"]: line for line in lines}
        if "ready" in events:
            return int(events["listening"]["port"])
        time.sleep(0.1)
    raise RuntimeError(f"the service did not start: {log.read_text()}")


def load(kind: str, clients: int, seconds: float, **more: Any) -> dict[str, Any]:
    """Run the load generator once."""
    spec = {"kind": kind, "clients": clients, "seconds": seconds, **more}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._load"],
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def address(k: int = 10) -> str:
    model = anchor()
    which = f"fingerprint={model.fingerprint.hex}&variant={model.variant_sha256}"
    return f"/v1/search/vectors?{which}&k={k}"


def row(part: str, what: str, clients: int, found: dict[str, Any], **more: Any) -> dict[str, Any]:
    refused = found["statuses"].get("429", 0)
    answered = found["statuses"].get("200", 0)
    if found["without_retry_after"]:
        raise RuntimeError(f"{what}: {found['without_retry_after']} refusals without retry-after")
    if found["first_error"]:
        print(f"{what}: {found['first_error']}", file=sys.stderr)
    made = dict.fromkeys(COLUMNS) | {
        "part": part,
        "what": what,
        "clients": clients,
        "requests": found["requests"],
        "asked_per_second": found["requests"] / found["seconds"],
        "per_second": found["per_second"],
        **{f"p{p}_ms": found[f"p{p}_ms"] for p in (50, 95, 99)},
        "cpu_ms": found["cpu"] / max(1, found["made"]) * 1e3,
        "refused": refused,
        "errors": found["requests"] - answered - refused,
        **more,
    }
    print("  " + ", ".join(f"{k} {v}" for k, v in made.items() if v is not None), flush=True)
    return made


def latency_rows(
    x: np.ndarray, gallery: Path, folder: Path, seconds: float
) -> Iterator[dict[str, Any]]:
    from samespace.gallery import Gallery

    with Gallery.open(gallery) as opened:
        recall = recall_of(opened, x)
    ways = {"faiss in process": "faiss", "Gallery.search in process": "gallery"}
    for what, kind in ways.items():
        for clients in CLIENTS:
            found = load(kind, clients, seconds, gallery=str(gallery))
            yield row("latency", what, clients, found, recall=recall)
    for workers in (1, 2):
        with serving(gallery, folder, "--rate", 0, "--workers", workers) as service:
            for clients in CLIENTS:
                found = service.asked("service", clients, seconds)
                what = f"service, {workers} worker{'s' * (workers > 1)}"
                yield row("latency", what, clients, found, recall=recall)
            if workers > 1:
                continue
            found = service.asked("service", 1, seconds, json=True)
            yield row("latency", "service, 1 worker, vectors as JSON", 1, found, recall=recall)
            for clients in (1, 8):
                found = service.asked("client", clients, seconds)
                what = "samespace.Client, 1 worker"
                yield row("latency", what, clients, found, recall=recall)


def limit_rows(gallery: Path, folder: Path, seconds: float) -> Iterator[dict[str, Any]]:
    """The default limits: below them nothing is refused, past them only with a 429."""
    with serving(gallery, folder) as service:
        for rate, clients in ((90, 8), (200, 8), (400, 32)):
            time.sleep(3)  # the bucket is full again
            found = service.asked("service", clients, seconds, rate=rate)
            what = f"{rate} requests a second, limit 100 (burst 200)"
            yield row("limits", what, clients, found)
    with serving(gallery, folder, "--rate", 0) as service:
        for clients in (64, 96):
            found = service.asked("service", clients, seconds)
            yield row("limits", f"{clients} clients at once, limit 64", clients, found)


def soak_rows(gallery: Path, folder: Path, minutes: float) -> Iterator[dict[str, Any]]:
    """Searches, and a writer that adds, replaces and deletes the same 64 items."""
    with serving(gallery, folder, "--rate", 0, "--canary-every", 30) as service:
        for minute in range(1, max(1, round(minutes)) + 1):
            seconds = min(60.0, minutes * 60)
            writer = subprocess.Popen(
                [sys.executable, "-m", "benchmarks._load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert writer.stdin is not None
            spec = {"kind": "writer", "clients": 1, "seconds": seconds, "port": service.port}
            writer.stdin.write(json.dumps(spec))
            writer.stdin.close()
            found = service.asked("service", 4, seconds, rate=100)
            rss = service.rss
            assert writer.stdout is not None
            wrote = json.loads(writer.stdout.read())
            if writer.wait() or wrote["first_error"]:
                raise RuntimeError(f"the writer failed: {wrote['first_error']}")
            what = "100 searches and 20 writes a second"
            yield row("soak", what, 4, found, minute=minute, rss_mib=rss)


def milvus_rows(
    x: np.ndarray, where: str, folder: Path, seconds: float
) -> Iterator[dict[str, Any]]:
    """The same vectors in a Milvus: its own client, and the service over it."""
    from samespace.gallery._milvus import MilvusGallery, remove

    url = f"milvus://{where}/service_benchmark"
    with contextlib.suppress(GalleryError):
        remove(url)
    with MilvusGallery.made(url, anchor(), "bench") as gallery:
        for start in range(0, len(x), 1000):
            part = x[start : start + 1000]
            names = [f"item-{i}" for i in range(start, start + len(part))]
            shelves = [{"shelf": i % 100} for i in range(start, start + len(part))]
            gallery.add(names, vectors=part, model=anchor(), payloads=shelves)
        gallery._store.server.client.flush(gallery._store.base)
        time.sleep(90)  # for Milvus to index what came
        recall = recall_of(gallery, x)
        more = {"uri": f"http://{where}", "collection": gallery._store.base, "ef": 128}
        for clients in CLIENTS:
            found = load("pymilvus", clients, seconds, **more)
            yield row("milvus", "pymilvus", clients, found, recall=recall)
        with serving(url, folder, "--rate", 0) as service:
            for clients in CLIENTS:
                found = service.asked("service", clients, seconds)
                what = "service, 1 worker, over Milvus"
                yield row("milvus", what, clients, found, recall=recall)
    remove(url)


def recall_of(gallery: Any, x: np.ndarray) -> float:
    queries = clustered(QUERIES, 2)[:200]
    truth = np.argpartition(-(queries @ x.T), 10)[:, :10]
    ids = gallery.search(vectors=queries, model=anchor(), k=10, payloads=False).ids
    right = [len({f"item-{i}" for i in a} & set(b)) for a, b in zip(truth, ids, strict=True)]
    return float(np.mean(right)) / 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="items")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--soak-minutes", type=float, default=10.0)
    parser.add_argument("--milvus", metavar="HOST:PORT", help="of a Milvus that is running")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    parts = set(options.parts) - (set() if options.milvus else {"milvus"})
    rows = {part: [r for r in earlier("service") if r["part"] == part] for part in PARTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = clustered(options.n, 1)
        _gallery(folder / "shop", x, approximate_from=50_000).close()
        runs: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
            "latency": lambda: latency_rows(x, folder / "shop", folder, options.seconds),
            "milvus": lambda: milvus_rows(x, options.milvus, folder, options.seconds),
            "limits": lambda: limit_rows(folder / "shop", folder, options.seconds),
            "soak": lambda: soak_rows(folder / "shop", folder, options.soak_minutes),
        }
        for part in PARTS:
            if part in parts:
                rows[part] = list(runs[part]())
    write(
        "service",
        COLUMNS,
        [row for part in PARTS for row in rows[part]],
        notes=[
            f"{options.n:,} {DIM}-d unit vectors with payloads, k = 10; vectors are sent as "
            "float32 unless it says JSON. Service and clients share the machine's cores, and "
            "other work was running on them too: latencies are upper bounds, CPU times less so.",
            *(
                ["The other parts are of an earlier run."]
                if set(options.parts) < set(PARTS)
                else []
            ),
        ],
    )


if __name__ == "__main__":
    main()
