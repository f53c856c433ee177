"""The nearest items by looking at every one: exact, and as slow as fetching all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._inputs import loads
from samespace.gallery._milvus._items import plain_payload
from samespace.gallery._milvus._store import MilvusStore
from samespace.gallery._values import SearchResult

Vectors = NDArray[np.float32]


def nearest(
    store: MilvusStore, queries: Vectors, k: int, condition: str, payloads: bool, few: bool
) -> SearchResult:
    """The k best of the items that meet an expression, for unit vectors (N, D).

    Args:
        few: whether they are so few that their payloads may come along.
    """
    ids = np.empty((len(queries), 0), object)
    scores = np.empty((len(queries), 0), np.float32)
    fields = ["id", "vector", *(["payload"] if payloads and few else [])]
    held: dict[str, Any] = {}
    pages = store.server.pages(store.base, fields, dim=store.dim, where=condition, latest=False)
    for page in pages:
        vectors = np.array([row["vector"] for row in page], np.float32)
        names = np.array([row["id"] for row in page], object)
        if "payload" in fields:
            held |= {row["id"]: plain_payload(row["payload"]) for row in page}
        scores = np.concatenate([scores, queries @ vectors.T], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(names, (len(queries), len(names)))], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, best, axis=1)
        ids = np.take_along_axis(ids, best, axis=1)
    if payloads and not few:
        rows = store.by_id(sorted({id_ for row in ids for id_ in row}), latest=False)
        held = {id_: loads(row[4]) for id_, row in rows.items()}
    told = [[held.get(id_) for id_ in row] for row in ids] if payloads else None
    return SearchResult(ids.tolist(), scores, told)
