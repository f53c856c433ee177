"""In which order items are embedded anew: a table, one function each.

Every function takes the vectors that the items have now, unit vectors (N, D); their labels (N,),
or None; numbers of the user's own (N,), or None; and a seed. It returns a permutation, int64 (N,):
positions, those to be embedded first in front. Ties keep the items' own order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge import ConfigError, DimensionError

Vectors = NDArray[np.float32]
Labels = NDArray[Any]
Values = NDArray[Any]
Positions = NDArray[np.int64]

Order = Callable[[Vectors, Labels | None, Values | None, int], Positions]

_PAIRS_AT_ONCE = 2_000_000
_ROUNDS, _PER_CENTRE = 20, 64


def by_chance(
    vectors: Vectors, labels: Labels | None = None, values: Values | None = None, seed: int = 0
) -> Positions:
    """A shuffle: what every other order has to beat."""
    return np.random.default_rng(seed).permutation(len(vectors)).astype(np.int64)


def uncertain_first(
    vectors: Vectors, labels: Labels | None = None, values: Values | None = None, seed: int = 0
) -> Positions:
    """Items first whose cosines with the nearest two class means differ least.

    Such items lie between classes, where a wrong hit is likely (the uncertainty-ordered backfill
    of RACT, Zhang et al. 2022, with class means for its classifier). With less than two classes
    there is no margin, and the items keep their order. Without labels, `pseudo_classes`.
    """
    codes, means = _classes(vectors, labels, seed)
    if len(means) < 2:
        return np.arange(len(codes), dtype=np.int64)
    margin = np.empty(len(vectors), np.float64)
    at_once = max(1, _PAIRS_AT_ONCE // len(means))
    for start in range(0, len(vectors), at_once):
        rows = slice(start, start + at_once)
        best = np.partition(vectors[rows] @ means.T, len(means) - 2, axis=1)[:, -2:]
        margin[rows] = best[:, 1] - best[:, 0]
    return np.argsort(margin, kind="stable").astype(np.int64)


def farthest_first(
    vectors: Vectors, labels: Labels | None = None, values: Values | None = None, seed: int = 0
) -> Positions:
    """Items first whose cosine with the mean of their own class is smallest.

    As lambda-Orthogonality (Ricci et al. 2025) orders its backfill. Without labels,
    `pseudo_classes`.
    """
    codes, means = _classes(vectors, labels, seed)
    nearness = np.einsum("nd,nd->n", vectors, means[codes], dtype=np.float64)
    return np.argsort(nearness, kind="stable").astype(np.int64)


def by_column(
    vectors: Vectors, labels: Labels | None = None, values: Values | None = None, seed: int = 0
) -> Positions:
    """Items first whose number is largest, such as views last month; raises `ConfigError`."""
    if values is None:
        raise ConfigError("the order 'column' goes by numbers, one for every item; give them")
    numbers = np.asarray(values, np.float64)
    _one_each("numbers", numbers, vectors)
    if not np.isfinite(numbers).all():
        raise ConfigError("the order 'column' goes by numbers; some are NaN or infinite")
    return np.argsort(-numbers, kind="stable").astype(np.int64)


ORDERS: Mapping[str, Order] = {
    "random": by_chance,
    "uncertain": uncertain_first,
    "farthest": farthest_first,
    "column": by_column,
}
"""Every order by the name that it is called by."""


def pseudo_classes(vectors: Vectors, seed: int = 0) -> Positions:
    """Stand-ins for labels (N,): the nearest of about √N spherical k-means centres.

    Raises `ConfigError` where faiss is not installed.
    """
    count = round(len(vectors) ** 0.5)
    if count < 2:
        return np.zeros(len(vectors), np.int64)
    try:
        import faiss
    except ImportError:
        raise ConfigError(
            'an order of items without labels needs faiss: pip install "samespace[sdk]"'
        ) from None
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=_ROUNDS,
        seed=seed,
        spherical=True,
        # Few items are no reason to warn; of many a sample is enough.
        min_points_per_centroid=1,
        max_points_per_centroid=_PER_CENTRE,
    )
    data = np.ascontiguousarray(vectors, np.float32)
    kmeans.train(data)
    _, nearest = kmeans.index.search(data, 1)
    return np.asarray(nearest[:, 0], np.int64)


def _classes(vectors: Vectors, labels: Labels | None, seed: int) -> tuple[Positions, Vectors]:
    """Class of every item (N,), and the unit means of the classes (C, D)."""
    if not len(vectors):
        return np.empty(0, np.int64), vectors
    found = pseudo_classes(vectors, seed) if labels is None else np.asarray(labels)
    _one_each("labels", found, vectors)
    _, codes = np.unique(found, return_inverse=True)
    together = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[together], np.arange(codes.max() + 1))
    sums = np.add.reduceat(vectors[together], starts, axis=0, dtype=np.float64)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    return codes.astype(np.int64), means.astype(np.float32)


def _one_each(what: str, given: NDArray[Any], vectors: Vectors) -> None:
    if given.shape != (len(vectors),):
        raise DimensionError(f"{what} have to be ({len(vectors)},), one an item, not {given.shape}")
