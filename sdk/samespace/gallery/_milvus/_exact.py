"""The nearest items by looking at every one: exact, and as slow as fetching all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._inputs import loads
from samespace.gallery._milvus._store import MilvusStore
from samespace.gallery._values import SearchResult

Vectors = NDArray[np.float32]


def nearest(
    store: MilvusStore, queries: Vectors, k: int, condition: str, payloads: bool
) -> SearchResult:
    """The k best of the items that meet an expression, for unit vectors (N, D)."""
    ids = np.empty((len(queries), 0), object)
    scores = np.empty((len(queries), 0), np.float32)
    pages = store.server.pages(store.base, ["id", "vector"], dim=store.dim, where=condition)
    for page in pages:
        vectors = np.array([row["vector"] for row in page], np.float32)
        names = np.array([row["id"] for row in page], object)
        scores = np.concatenate([scores, queries @ vectors.T], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(names, (len(queries), len(names)))], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, best, axis=1)
        ids = np.take_along_axis(ids, best, axis=1)
    told = None
    if payloads:
        rows = store.by_id(sorted({id_ for row in ids for id_ in row}), latest=False)
        told = [[loads(rows[i][4]) if i in rows else None for i in row] for row in ids]
    return SearchResult(ids.tolist(), scores, told)
