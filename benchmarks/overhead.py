"""What does the SDK cost on top of the libraries it stands on?

    python -m benchmarks.overhead [--bundle edge.bundle] [--n 100000]

Every figure is a ratio measured side by side in one run; the seconds are this machine's.
"""

from __future__ import annotations

import argparse
import io
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import DIM, anchor, clustered
from benchmarks._result import ratio_side_by_side, seconds_side_by_side, write

COLUMNS = {
    "question": "what is compared with what",
    "ours": "our rate or time, in `unit`",
    "theirs": "theirs, in the same run",
    "unit": "of both",
    "ratio": "ours over theirs",
    "target": "what the project asks of the ratio or of ours",
    "met": "whether it is met",
}


def embed_rows(bundle: Path | None) -> Iterator[dict[str, Any]]:
    import onnxruntime as ort
    from PIL import Image, ImageOps

    from samespace_cloud.demo import quickstart
    from samespace_edge import Embedder

    data = quickstart()
    encoded = [data.read(item) for item in data.queries[:256]]
    with tempfile.TemporaryDirectory() as folder:
        path = bundle or _fresh_bundle(Path(folder) / "edge.bundle", encoded[:2])
        embedder = Embedder(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(
            (path / embedder.variant.file).read_bytes(),
            options,
            providers=["CPUExecutionProvider"],
        )
        size = embedder.bundle.manifest.resize.width

        def raw(batch: list[bytes]) -> Any:
            pixels = []
            for content in batch:
                image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
                resized = image.resize((size, size), Image.Resampling.BILINEAR)
                pixels.append(np.asarray(resized))
            return session.run(None, {"image": np.stack(pixels)})[0]

        assert np.abs(raw(encoded[:8]) - embedder.embed(encoded[:8])).max() < 1e-5
        for batch, target in ((1, 1.10), (32, 1.05)):
            groups = [encoded[i : i + batch] for i in range(0, len(encoded), batch)]
            ratio, ours, theirs = ratio_side_by_side(
                lambda groups=groups, batch=batch: [
                    embedder.embed(g, batch_size=batch) for g in groups
                ],
                lambda groups=groups: [raw(g) for g in groups],
                rounds=15,
            )
            yield {
                "question": f"Embedder.embed / PIL and InferenceSession.run, batch {batch}",
                "ours": ours / len(groups) * 1e3,
                "theirs": theirs / len(groups) * 1e3,
                "unit": "ms a batch",
                "ratio": ratio,
                "target": f"at most {target}",
                "met": ratio <= target,
            }


def _fresh_bundle(path: Path, golden: list[bytes]) -> Path:
    """The demo's edge network with random weights: its cost is the same."""
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.model import EmbeddingModel
    from samespace_cloud.recipes import demo_recipe
    from samespace_export import export_bundle

    checkpoint = Checkpoint(EmbeddingModel(demo_recipe().edge.model).eval(), "edge")
    export_bundle(checkpoint.model, checkpoint.export_spec("edge"), path, golden=golden)
    return path


def _gallery(folder: Path, x: np.ndarray, approximate_from: int) -> Any:
    from samespace.gallery import Gallery
    from samespace.gallery._store import Store

    model = anchor()
    meta = {"name": "bench", "dim": DIM, "space": model.space.hex}
    Store.create(folder, {**meta, "approximate_from": approximate_from}, model.to_json())
    gallery = Gallery.open(folder)
    for start in range(0, len(x), 1000):
        part = x[start : start + 1000]
        ids = [f"item-{i}" for i in range(start, start + len(part))]
        payloads = [{"shelf": i % 100} for i in range(start, start + len(part))]
        gallery.add(ids, vectors=part, model=model, payloads=payloads)
    len(gallery)  # builds the index
    return gallery


def search_rows(n: int) -> Iterator[dict[str, Any]]:
    import faiss

    from samespace.gallery._index import DEFAULT_PROBES, DEFAULT_REFINE

    faiss.omp_set_num_threads(1)
    model = anchor()
    x, queries = clustered(n, 1), clustered(1000, 2)
    batches = [queries[i : i + 100] for i in range(0, 1000, 100)]
    with tempfile.TemporaryDirectory() as folder:
        flat = _gallery(Path(folder) / "flat", x, approximate_from=10 * n)
        raw_flat = faiss.IndexFlatIP(DIM)
        raw_flat.add(x)
        yield from _against(flat, raw_flat.search, batches, "exact (Flat)", 5)

        gallery = _gallery(Path(folder) / "ivf", x, approximate_from=n)
        raw = gallery._live.index.base._index
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=DEFAULT_REFINE,
            base_index_params=faiss.SearchParametersIVF(nprobe=DEFAULT_PROBES),
        )

        def raw_search(q: np.ndarray, k: int) -> Any:
            return raw.search(q, k, params=parameters)

        yield from _against(gallery, raw_search, batches, "approximate (IVF, PQ, refined)", 15)

        singles = [queries[i : i + 1] for i in range(200)]
        times = seconds_side_by_side(
            {
                "ours": lambda: [
                    gallery.search(vectors=q, model=model, k=10, payloads=True) for q in singles
                ],
                "theirs": lambda: [raw_search(q, 10) for q in singles],
            },
            rounds=15,
        )
        ours, theirs = (times[k] / len(singles) * 1e3 for k in ("ours", "theirs"))
        yield {
            "question": "one query with payloads / raw faiss without",
            "ours": ours,
            "theirs": theirs,
            "unit": "ms a query",
            "ratio": ours / theirs,
            "target": "at most 0.3 ms on top",
            "met": ours - theirs <= 0.3,
        }
        yield from _other_engines(gallery, x, queries)


def _against(
    gallery: Any, raw: Any, batches: list[np.ndarray], name: str, rounds: int
) -> Iterator[dict[str, Any]]:
    model = anchor()
    ratio, ours, theirs = ratio_side_by_side(
        lambda: [raw(q, 10) for q in batches],
        lambda: [gallery.search(vectors=q, model=model, k=10, payloads=False) for q in batches],
        rounds=rounds,
    )
    count = sum(len(b) for b in batches)
    yield {
        "question": f"Gallery.search / raw faiss, {name}, batches of 100",
        "ours": count / theirs,
        "theirs": count / ours,
        "unit": "queries a second",
        "ratio": ratio,
        "target": "at least 0.90",
        "met": ratio >= 0.90,
    }


def _other_engines(gallery: Any, x: np.ndarray, queries: np.ndarray) -> Iterator[dict[str, Any]]:
    """hnswlib and usearch, each at the setting that first reaches our recall."""
    import hnswlib
    from usearch.index import Index

    model = anchor()
    truth = gallery.search(vectors=queries, model=model, k=10, payloads=False, exact=True).ids
    expected = [{int(i[5:]) for i in row} for row in truth]

    def recall(found: np.ndarray) -> float:
        hits = [len(set(map(int, f)) & e) / 10 for f, e in zip(found, expected, strict=True)]
        return float(np.mean(hits))

    def ours() -> np.ndarray:
        ids = gallery.search(vectors=queries, model=model, k=10, payloads=False).ids
        return np.array([[int(i[5:]) for i in row] for row in ids])

    wanted = recall(ours())
    hnsw = hnswlib.Index("ip", DIM)
    hnsw.init_index(len(x), M=32, ef_construction=200)
    hnsw.set_num_threads(1)
    hnsw.add_items(x)
    use = Index(ndim=DIM, metric="ip", dtype="f16", connectivity=32, expansion_add=200)
    use.add(np.arange(len(x)), x, threads=1)
    for ef in (16, 32, 64, 128, 256, 512):
        hnsw.set_ef(max(10, ef))
        if recall(hnsw.knn_query(queries, 10)[0]) >= wanted:
            break
    for expansion in (16, 32, 64, 128, 256, 512):
        use.expansion_search = expansion
        if recall(use.search(queries, 10, threads=1).keys) >= wanted:
            break
    times = seconds_side_by_side(
        {
            "ours": lambda: gallery.search(vectors=queries, model=model, k=10, payloads=False),
            "hnswlib": lambda: hnsw.knn_query(queries, 10),
            "usearch": lambda: use.search(queries, 10, threads=1),
        },
        rounds=5,
    )
    reached = {
        "hnswlib": recall(hnsw.knn_query(queries, 10)[0]),
        "usearch": recall(use.search(queries, 10, threads=1).keys),
    }
    for name, got in reached.items():
        rate, theirs = len(queries) / times["ours"], len(queries) / times[name]
        yield {
            "question": f"Gallery.search at recall {wanted:.3f} / {name} at {got:.3f}",
            "ours": rate,
            "theirs": theirs,
            "unit": "queries a second",
            "ratio": rate / theirs,
            "target": "none",
            "met": True,
        }


def add_rows(n: int) -> Iterator[dict[str, Any]]:
    model = anchor()
    x = clustered(n, 3)
    batches = [x[i : i + 1000] for i in range(0, n, 1000)]
    names = [[f"id-{i}" for i in range(s, s + 1000)] for s in range(0, n, 1000)]
    with tempfile.TemporaryDirectory() as folder:
        made = 0

        def ours() -> None:
            nonlocal made
            made += 1
            gallery = _gallery(Path(folder) / f"g{made}", x[:0], 10 * n)
            for ids, batch in zip(names, batches, strict=True):
                gallery.add(ids, vectors=batch, model=model)
            gallery._store._db.close()

        def raw() -> None:
            nonlocal made
            made += 1
            db = sqlite3.connect(Path(folder) / f"r{made}.db")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("CREATE TABLE items (id TEXT PRIMARY KEY, vector BLOB)")
            for ids, batch in zip(names, batches, strict=True):
                rows = [(i, v.tobytes()) for i, v in zip(ids, batch, strict=True)]
                with db:
                    db.executemany("INSERT INTO items VALUES (?, ?)", rows)
            db.close()

        ratio, theirs, own = ratio_side_by_side(raw, ours, rounds=5, warm=1)
        yield {
            "question": "Gallery.add, durable, batches of 1,000 / raw SQLite",
            "ours": n / own,
            "theirs": n / theirs,
            "unit": "vectors a second",
            "ratio": ratio,
            "target": "ours at least 50,000",
            "met": n / own >= 50_000,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="the edge bundle to measure")
    parser.add_argument("--n", type=int, default=100_000, help="items in the gallery")
    arguments = parser.parse_args()
    rows = [
        *embed_rows(arguments.bundle),
        *search_rows(arguments.n),
        *add_rows(min(arguments.n, 50_000)),
    ]
    write("overhead", COLUMNS, rows, notes=[f"{arguments.n:,} x {DIM} unit vectors, one thread"])


if __name__ == "__main__":
    main()
