"""The approximate index against exact search: recall, filters, changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samespace import Embedder, Gallery

DIM = 24
N = 12_000


def clustered(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((200, DIM))
    x = centres[rng.integers(0, 200, n)] + 0.6 * rng.standard_normal((n, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, cloud: Embedder) -> Gallery:
    path = tmp_path_factory.mktemp("index") / "g"
    made = Gallery.create(path, cloud, approximate_from=8000)
    x = clustered(N, 1)
    payloads = [{"n": i} for i in range(N)]
    made.add([str(i) for i in range(N)], vectors=x, model=cloud, payloads=payloads)
    # Changes after the index was built: some gone, some moved, some new.
    assert made.stats().approximate
    made.delete([str(i) for i in range(0, 600, 3)])
    made.update("1", vector=-x[1], model=cloud)
    made.add([f"new{i}" for i in range(500)], vectors=clustered(500, 2), model=cloud)
    yield made
    made.close()


def truth(queries: np.ndarray, k: int, keep: np.ndarray | None = None) -> list[set[str]]:
    x = clustered(N, 1)
    x[1] *= -1
    alive = np.ones(N, bool)
    alive[0:600:3] = False
    new = clustered(500, 2)
    if keep is not None:
        alive &= keep
        new = new[:0]
    ids = [str(i) for i in np.flatnonzero(alive)] + [f"new{i}" for i in range(len(new))]
    everything = np.concatenate([x[alive], new])
    top = np.argsort(-(queries @ everything.T), axis=1)[:, :k]
    return [{ids[i] for i in row} for row in top]


def recall(found: list[list[str]], expected: list[set[str]]) -> float:
    hits = [len(set(f) & e) / len(e) for f, e in zip(found, expected, strict=True)]
    return float(np.mean(hits))


def test_exact_search_is_exact(gallery: Gallery, cloud: Embedder) -> None:
    queries = clustered(100, 3)
    found = gallery.search(vectors=queries, model=cloud, k=10, exact=True)
    assert recall(found.ids, truth(queries, 10)) == 1
    assert (np.diff(found.scores, axis=1) <= 1e-6).all()


def test_approximate_search_is_nearly_exact(gallery: Gallery, cloud: Embedder) -> None:
    queries = clustered(200, 3)
    found = gallery.search(vectors=queries, model=cloud, k=10)
    assert recall(found.ids, truth(queries, 10)) > 0.97
    assert all(len(set(row)) == 10 for row in found.ids)
    everything = {i for row in found.ids for i in row}
    assert not everything & {str(i) for i in range(0, 600, 3)}


@pytest.mark.parametrize("share", [0.7, 0.05, 0.005])
def test_filters_keep_their_recall(gallery: Gallery, cloud: Embedder, share: float) -> None:
    limit = int(N * share)
    keep = np.arange(N) < limit
    queries = clustered(100, 4)
    found = gallery.search(vectors=queries, model=cloud, k=10, where={"n": {"lt": limit}})
    assert recall(found.ids, truth(queries, 10, keep)) > 0.97
    assert all(int(i) < limit for row in found.ids for i in row)


def test_k_beyond_what_is_probed(gallery: Gallery, cloud: Embedder) -> None:
    found = gallery.search(vectors=clustered(2, 5), model=cloud, k=N + 5000, probes=1)
    assert all(len(row) == len(set(row)) == len(gallery) for row in found.ids)
