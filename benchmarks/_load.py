"""A load generator in a process of its own: so many clients, each with one request at a time.

    python -m benchmarks._load < spec.json

The spec is a JSON object: `kind` (a name of `KINDS`), `clients`, `seconds`, what the kind needs,
and `rate`, requests a second of all clients together, or null for as many as are answered. The
answer is one JSON object on stdout: see `summary`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._data import clustered
from samespace_edge import SamespaceError

WARM = 0.5
"""Seconds at the start that do not count."""

QUERIES = 2000
Spec = dict[str, Any]
Search = Callable[[Any], Any]


class Tally:
    """What came back, and when."""

    def __init__(self, seconds: float) -> None:
        self.counted_from = time.perf_counter() + WARM
        self.until = self.counted_from + seconds
        self.seconds = seconds
        self.made = 0
        self._cpu = time.process_time()
        self.times: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.without_retry_after = 0
        self.first_error = ""

    @property
    def is_over(self) -> bool:
        """Whether no more requests should be made."""
        return time.perf_counter() >= self.until

    def note(self, started: float, status: str) -> None:
        """A request that was answered just now."""
        self.made += 1
        if started < self.counted_from:
            return
        self.statuses[status] += 1
        if status == "200":
            self.times.append(time.perf_counter() - started)

    def fail(self, started: float, error: str) -> None:
        """A request that was not answered as it should have been."""
        self.made += 1
        self.first_error = self.first_error or error
        if started >= self.counted_from:
            self.statuses["error"] += 1

    def summary(self) -> dict[str, Any]:
        """Counts by status, answered requests a second, and their latency in ms."""
        ms = np.array(self.times) * 1e3
        points = {
            f"p{p}_ms": float(np.percentile(ms, p)) if len(ms) else None for p in (50, 95, 99)
        }
        return {
            "statuses": dict(self.statuses),
            "requests": sum(self.statuses.values()),
            "made": self.made,
            "cpu": time.process_time() - self._cpu,
            "seconds": self.seconds,
            "per_second": len(ms) / self.seconds,
            "without_retry_after": self.without_retry_after,
            "first_error": self.first_error,
            **points,
        }


# over HTTP


def requests_of(spec: Spec) -> list[bytes]:
    """Whole requests, a different query in each."""
    made = []
    key = f"authorization: Bearer {spec['key']}\r\n" if spec.get("key") else ""
    for query in clustered(QUERIES, 2):
        if spec.get("json"):
            body, kind = json.dumps({"vectors": [query.tolist()]}).encode(), "application/json"
        else:
            body, kind = query.astype("<f4").tobytes(), "application/octet-stream"
        head = (
            f"POST {spec['path']} HTTP/1.1\r\nhost: 127.0.0.1:{spec['port']}\r\n{key}"
            f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


def service(spec: Spec) -> Tally:
    """Ask a service, every client on a connection of its own that is kept."""
    return asyncio.run(_clients(spec))


async def _clients(spec: Spec) -> Tally:
    requests, tally = requests_of(spec), Tally(spec["seconds"])
    await asyncio.gather(
        *(_client(spec, number, requests, tally) for number in range(spec["clients"]))
    )
    return tally


async def _client(spec: Spec, number: int, requests: list[bytes], tally: Tally) -> None:
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    pause = spec["clients"] / spec["rate"] if spec.get("rate") else 0.0
    due = time.perf_counter() + pause * number / spec["clients"]
    turn = number
    while not tally.is_over:
        if pause:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due = max(due + pause, time.perf_counter() - 10 * pause)
        turn += spec["clients"]
        started = time.perf_counter()
        try:
            if streams is None:
                streams = await asyncio.open_connection("127.0.0.1", spec["port"])
            reader, writer = streams
            writer.write(requests[turn % len(requests)])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            tally.fail(started, repr(error))
            if streams is not None:
                streams[1].close()
            streams = None
            continue
        status = head[9:12].decode()
        tally.note(started, status)
        if status == "429" and b"\r\nretry-after:" not in head:
            tally.without_retry_after += 1
        if b"\r\nconnection: close" in head:
            writer.close()
            streams = None
    if streams is not None:
        streams[1].close()


# in this process, one thread for every client


def threads(spec: Spec, search: Search) -> Tally:
    """Call a function, from as many threads as there are clients."""
    queries = clustered(QUERIES, 2)
    for query in queries[:20]:
        search(query[None])
    tally, lock = Tally(spec["seconds"]), threading.Lock()

    def client(number: int) -> None:
        turn = number
        while not tally.is_over:
            turn += spec["clients"]
            started = time.perf_counter()
            try:
                search(queries[turn % QUERIES][None])
            except Exception as error:
                with lock:
                    tally.fail(started, repr(error))
                continue
            with lock:
                tally.note(started, "200")

    running = [threading.Thread(target=client, args=(n,)) for n in range(spec["clients"])]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return tally


def faiss(spec: Spec) -> Tally:
    """The gallery's own index, without the gallery."""
    import faiss as library

    from samespace.gallery import Gallery
    from samespace.gallery._index import DEFAULT_PROBES, DEFAULT_REFINE

    library.omp_set_num_threads(1)
    with Gallery.open(spec["gallery"]) as gallery:
        len(gallery)
        raw = gallery._live.index.base._index  # type: ignore[attr-defined]
        how = library.IndexRefineSearchParameters(
            k_factor=DEFAULT_REFINE,
            base_index_params=library.SearchParametersIVF(nprobe=DEFAULT_PROBES),
        )
        return threads(spec, lambda q: raw.search(q, 10, params=how))


def gallery(spec: Spec) -> Tally:
    """`Gallery.search`, with payloads."""
    from benchmarks._data import anchor
    from samespace.gallery import Gallery

    with Gallery.open(spec["gallery"]) as opened:
        len(opened)
        return threads(spec, lambda q: opened.search(vectors=q, model=anchor(), k=10))


def client(spec: Spec) -> Tally:
    """`samespace.Client`."""
    from benchmarks._data import anchor
    from samespace import Client

    with Client(f"http://127.0.0.1:{spec['port']}") as asked:
        return threads(spec, lambda q: asked.search(vectors=q, model=anchor(), k=10))


def writer(spec: Spec) -> Tally:
    """Add, replace and delete the same 64 items through a service, 20 calls a second."""
    from benchmarks._data import anchor
    from samespace import Client

    x, tally = clustered(64, 3), Tally(spec["seconds"])
    ids = [f"new-{i}" for i in range(64)]
    with Client(f"http://127.0.0.1:{spec['port']}") as asked:
        asked.add(ids, vectors=x, model=anchor(), replace=True)
        while not tally.is_over:
            started = time.perf_counter()
            some = 8 * (sum(tally.statuses.values()) % 8)
            part = ids[some : some + 8]
            try:
                asked.delete(part)
                asked.add(part, vectors=x[some : some + 8], model=anchor())
                asked.add(part, vectors=x[some : some + 8], model=anchor(), replace=True)
                tally.note(started, "200")
            except SamespaceError as error:
                tally.fail(started, repr(error))
            time.sleep(max(0.0, 0.15 - (time.perf_counter() - started)))
        asked.delete(ids)
    return tally


def pymilvus(spec: Spec) -> Tally:
    """Milvus's own client, on the collection of a gallery, with payloads."""
    from pymilvus import MilvusClient

    asked = MilvusClient(uri=spec["uri"])
    how = {"params": {"ef": spec["ef"]}}
    return threads(
        spec,
        lambda q: asked.search(
            spec["collection"],
            data=list(q),
            limit=10,
            output_fields=["payload"],
            search_params=how,
            consistency_level="Bounded",
        ),
    )


KINDS: dict[str, Callable[[Spec], Tally]] = {
    "service": service,
    "faiss": faiss,
    "gallery": gallery,
    "client": client,
    "writer": writer,
    "pymilvus": pymilvus,
}


def main() -> None:
    spec = json.load(sys.stdin)
    print(json.dumps(KINDS[spec["kind"]](spec).summary()))


if __name__ == "__main__":
    main()
