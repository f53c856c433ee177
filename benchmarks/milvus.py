"""What does the SDK cost on top of pymilvus, against one Milvus?

    make milvus                                     (in another terminal)
    python -m benchmarks.milvus [--items 1000000] [--server 127.0.0.1:19530] [--batch 5000]

Two collections with the same index are filled batch by batch in turns, one by `Gallery.add`, one by
`MilvusClient.insert` with id, vector and payload; a smaller one by `MilvusClient.upsert`. Then both
are searched in turns. Vectors are synthetic.
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._data import DIM, anchor, clustered
from benchmarks._result import write
from samespace.gallery import Gallery

COLUMNS = {
    "what": "what is done",
    "items": "vectors of 128 numbers in each collection",
    "sdk": "of the SDK, in `unit`",
    "raw": "of pymilvus, in the same run",
    "unit": "of both; medians of batches and of calls",
    "ratio": "how fast the SDK is beside pymilvus: 1 is as fast, .5 takes twice as long",
    "recall_sdk": "share of the true 10 nearest among the SDK's 10, over 200 queries",
    "recall_raw": "the same of pymilvus",
}
SHARES = {"70 %": 0.7, "5 %": 0.05, "0.5 %": 0.005}
K = 10
EF = 128  # as the SDK asks for by default
QUERIES = 200

Vectors = NDArray[np.float32]


def make_raw(client: Any, name: str) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=512)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("payload", DataType.JSON)
    index = client.prepare_index_params()
    options = {"M": 16, "efConstruction": 200}
    index.add_index("vector", index_type="HNSW", metric_type="IP", params=options)
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Bounded")


def insert_rows(
    client: Any,
    gallery: Gallery,
    names: Sequence[str],
    x: Vectors,
    ranks: Sequence[int],
    batch: int,
) -> list[dict[str, Any]]:
    """Fill the collections; the rates of each, items per second."""
    raw, upserted = names
    model, times = anchor(), {"sdk": [], "sdk replace": [], "insert": [], "upsert": []}
    parts = range(0, len(x), batch)
    for number, start in enumerate(parts):
        stop = min(start + batch, len(x))
        ids = [f"item-{i:09}" for i in range(start, stop)]
        payloads = [{"rank": ranks[i], "label": f"label{i % 1000}"} for i in range(start, stop)]
        part = x[start:stop]

        def rows(ids: Any = ids, part: Any = part, payloads: Any = payloads) -> list[Any]:
            return [
                {"id": i, "vector": v, "payload": p}
                for i, v, p in zip(ids, part, payloads, strict=True)
            ]

        acts: list[tuple[str, Callable[[], Any]]] = [
            ("insert", lambda rows=rows: client.insert(raw, rows())),
            (
                "sdk",
                lambda ids=ids, part=part, p=payloads: gallery.add(
                    ids, vectors=part, model=model, payloads=p
                ),
            ),
        ]
        if number < max(2, len(parts) // 10):
            acts += [
                ("upsert", lambda rows=rows: client.upsert(upserted, rows())),
                (
                    "sdk replace",
                    lambda ids=ids, part=part, p=payloads: gallery.add(
                        ids, vectors=part, model=model, payloads=p, replace=True
                    ),
                ),
            ]
        turn = number % len(acts)
        for name, act in acts[:2][:: 1 if number % 2 else -1] + acts[2:][:: 1 if turn else -1]:
            began = time.perf_counter()
            act()
            times[name].append((time.perf_counter() - began) / (stop - start))
        if number % 20 == 0:
            print(f"{stop:,} items", flush=True)
    out = []
    for what, ours, theirs in (
        ("add / insert", "sdk", "insert"),
        ("add with replace / upsert", "sdk replace", "upsert"),
    ):
        sdk, other = 1 / np.median(times[ours]), 1 / np.median(times[theirs])
        out.append(row(what, len(x), sdk, other, "items/s", sdk / other))
    return out


def row(
    what: str, items: int, sdk: float, raw: float, unit: str, ratio: float, *recalls: float
) -> dict[str, Any]:
    recall = dict(zip(("recall_sdk", "recall_raw"), recalls or (None, None), strict=True))
    return {
        "what": what, "items": items, "sdk": float(sdk), "raw": float(raw), "unit": unit,
        "ratio": float(ratio), **recall,
    }  # fmt: skip


def wait_until_indexed(client: Any, names: Sequence[str], timeout: float = 3600) -> None:
    for name in names:
        client.flush(name, timeout=600)
    until = time.monotonic() + timeout
    for name in names:
        # Segments that compaction has merged are indexed again; those before it serve meanwhile.
        while (about := client.describe_index(name, "vector"))["pending_index_rows"]:
            if time.monotonic() > until:
                raise TimeoutError(f"{name} is not indexed: {about}")
            time.sleep(2)
    time.sleep(60)  # until what is indexed has taken the place of what was not


def recall(found: Sequence[Sequence[str]], truth: Sequence[set[str]]) -> float:
    return float(np.mean([len(t & set(f)) / K for t, f in zip(truth, found, strict=True)]))


def search_rows(
    client: Any, gallery: Gallery, raw: str, x: Vectors, rank: NDArray[np.int64], rounds: int
) -> list[dict[str, Any]]:
    """Searches in turns, one query and a hundred at once, without filter and with."""
    model, out = anchor(), []
    queries = clustered(QUERIES, seed=2)
    for name, share in {"": 1.0, **SHARES}.items():
        kept = int(share * len(x))
        passing = np.flatnonzero(rank < kept)
        truth = []
        for query in queries:
            best = np.argpartition(-(x @ query)[passing], K)[:K]
            truth.append({f"item-{i:09}" for i in passing[best]})
        where = {"rank": {"lt": kept}} if name else None
        condition = f'payload["rank"] < {kept}' if name else ""

        def theirs(part: Vectors, condition: str = condition) -> list[list[str]]:
            found = client.search(
                raw, data=list(part), filter=condition, limit=K, output_fields=["payload"],
                search_params={"params": {"ef": EF}}, consistency_level="Bounded",
            )  # fmt: skip
            return [[hit["id"] for hit in hits] for hits in found]

        def ours(part: Vectors, where: Any = where) -> list[list[str]]:
            return gallery.search(vectors=part, model=model, k=K, where=where).ids

        for size in (1, 100) if not name else (1,):
            times: dict[str, list[float]] = {"sdk": [], "raw": []}
            for round_ in range(rounds if size == 1 else rounds // 10):
                first = round_ * size % QUERIES
                part = queries[first : first + size]
                acts = [("sdk", ours), ("raw", theirs)]
                for who, act in acts if round_ % 2 else acts[::-1]:
                    began = time.perf_counter()
                    act(part)
                    times[who].append(1e3 * (time.perf_counter() - began))
            sdk, other = np.median(times["sdk"]), np.median(times["raw"])
            what = f"search, {size} quer{'y' if size == 1 else 'ies'}"
            what += f", {name} of the items pass" if name else ""
            found = [recall(act(queries), truth) for act in (ours, theirs)]
            out.append(row(what, len(x), sdk, other, "ms", other / sdk, *found))
            print(out[-1], flush=True)
    return out


def main() -> None:
    from pymilvus import MilvusClient

    from samespace.gallery._milvus import MilvusGallery, remove

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--server", default="127.0.0.1:19530")
    options = parser.parse_args()
    names = [f"bench_{uuid.uuid4().hex[:8]}" for _ in range(2)]
    url = f"milvus://{options.server}/{names[0]}_sdk"
    client = MilvusClient(uri=f"http://{options.server}", timeout=600)
    x = clustered(options.items, seed=1)
    rank = np.random.default_rng(3).permutation(options.items)
    gallery = MilvusGallery.made(url, anchor(), None)
    try:
        for name in names:
            make_raw(client, name)
        rows = insert_rows(client, gallery, names, x, rank.tolist(), options.batch)
        client.drop_collection(names[1])
        began = time.perf_counter()
        wait_until_indexed(client, [names[0], gallery._store.base])
        waited = time.perf_counter() - began
        rows += search_rows(client, gallery, names[0], x, rank, options.rounds)
        notes = [
            f"Milvus {client.get_server_version()}, standalone, on the same machine, which had "
            "other work besides: go by the ratios.",
            "Synthetic vectors in 1,000 clusters.",
            f"Both collections were indexed {waited:.0f} s after the last batch.",
        ]
        write("milvus", COLUMNS, rows, seeds=[1, 2, 3], notes=notes)
    finally:
        gallery.close()
        remove(url, timeout=120)
        for name in names:
            client.drop_collection(name)


if __name__ == "__main__":
    main()
