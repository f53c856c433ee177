"""Rankings, their accuracies, flips, thresholds, and what is done to vectors before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge import ConfigError, DimensionError

Floats = NDArray[np.float32] | NDArray[np.float64]
Labels = NDArray[np.int64]

_PAIRS_AT_ONCE = 2_000_000

NO_MATCH = np.iinfo(np.int64).max
"""Rank of an item that is not in the gallery."""

HUB_NEIGHBOURS, HUB_WEIGHT = 50, 0.5
"""`k` and `weight` of `hub_bias`, unless told otherwise."""

_NO_LENGTH = 1e-6


@dataclass(frozen=True)
class Ranking:
    """What every query found.

    Attributes:
        top: int64 (Q, K): gallery positions, best first.
        top_scores: float32 (Q, K): their cosines.
        first_match: int64 (Q,): rank, from 0, of the best item with the query's label; `NO_MATCH`
            where there is none.
        average_precision: float64 (Q,): average precision over the whole gallery.
        r_precision: float64 (Q,): share of right items among the first R, R being the number of
            right items in the gallery; 0 where there is none.
        average_precision_at_r: float64 (Q,): what `map_at_r` is the mean of.
        top_matches: bool (Q, K): which items of `top` are right.
        matches: int64 (Q,): R.
    """

    top: NDArray[np.int64]
    top_scores: NDArray[np.float32]
    first_match: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    r_precision: NDArray[np.float64]
    average_precision_at_r: NDArray[np.float64]
    top_matches: NDArray[np.bool_]
    matches: NDArray[np.int64]

    def hits(self, k: int) -> NDArray[np.bool_]:
        """(Q,): whether one of the first k items has the query's label."""
        return self.first_match < k

    def recall_at(self, k: int) -> float:
        """R@k: share of the queries with an item of their label among the first k."""
        return float(self.hits(k).mean())

    @property
    def mean_average_precision(self) -> float:
        """mAP: average precision over the whole gallery, mean over the queries.

        Other figures are called mAP too: `map_at_r`, `map_at`, and the trapezoids of the Oxford
        protocol, which all give other numbers.
        """
        return float(self.average_precision.mean())

    @property
    def map_at_r(self) -> float:
        """MAP@R: 1/R times the sum of the precisions at the right ones of the first R items, mean
        over the queries (Musgrave et al. 2020, section 4.2)."""
        return float(self.average_precision_at_r.mean())

    def map_at(self, k: int) -> float:
        """mAP@k: the sum of the precisions at the right ones of the first k items over the smaller
        of k and R, mean over the queries.

        Raises `ConfigError` for a k above the number of items that `rank` kept.
        """
        if not 1 <= k <= self.top.shape[1]:
            raise ConfigError(
                f"mAP@{k} needs the first {k} items of every ranking; rank kept "
                f"{self.top.shape[1]} (keep=)"
            )
        found = self.top_matches[:, :k]
        precision = np.cumsum(found, 1) / np.arange(1, k + 1)
        most = np.minimum(k, np.maximum(self.matches, 1))
        return float(((precision * found).sum(1) / most).mean())


def rank(
    queries: Floats,
    gallery: Floats,
    query_labels: Labels,
    gallery_labels: Labels,
    keep: int = 10,
    junk: NDArray[np.bool_] | None = None,
) -> Ranking:
    """Search every query in the gallery, exactly, by cosine.

    Ties are broken against the query: an item of another label comes before one of the query's
    own label with the same score. So a model that gives every picture the same vector scores 0.
    Equal vectors get equal cosines, which a product of matrices alone does not promise.

    Args:
        queries: unit vectors (Q, D).
        gallery: unit vectors (G, D), G at least 1.
        query_labels: (Q,).
        gallery_labels: (G,).
        keep: how many items of every ranking to keep.
        junk: (Q, G): items that are neither right nor wrong for a query, such as the query's own
            picture or other pictures by its camera. They come last, and count nowhere.
    """
    keep = min(keep, len(gallery))
    distinct, places = _distinct(gallery)
    parts: list[tuple[NDArray[Any], ...]] = []
    ranks = np.arange(1, len(gallery) + 1, dtype=np.float64)
    at_once = max(1, _PAIRS_AT_ONCE // len(gallery))
    for start in range(0, len(queries), at_once):
        rows = slice(start, start + at_once)
        similarity = np.asarray(queries[rows] @ distinct.T, np.float32)[:, places]
        relevant = query_labels[rows, None] == gallery_labels[None, :]
        if junk is not None:
            relevant &= ~junk[rows]
            similarity = np.where(junk[rows], -np.inf, similarity).astype(np.float32)
        # Stable sort on (-score, relevant): sort by relevance first, then stably by score.
        by_relevance = np.argsort(relevant, axis=1, kind="stable")
        sorted_scores = np.take_along_axis(similarity, by_relevance, 1)
        by_score = np.argsort(-sorted_scores, axis=1, kind="stable")
        order = np.take_along_axis(by_relevance, by_score, 1)
        found = np.take_along_axis(relevant, order, 1)
        count = found.sum(1)
        divisor = np.maximum(count, 1)
        precision = np.cumsum(found, 1) / ranks
        within = found & (ranks <= count[:, None])
        parts.append(
            (
                order[:, :keep].astype(np.int64),
                np.take_along_axis(similarity, order[:, :keep], 1),
                np.where(count > 0, found.argmax(1), NO_MATCH).astype(np.int64),
                (precision * found).sum(1) / divisor,
                within.sum(1) / divisor,
                (precision * within).sum(1) / divisor,
                found[:, :keep],
                count.astype(np.int64),
            )
        )
    return Ranking(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _distinct(vectors: Floats) -> tuple[Floats, NDArray[np.int64] | slice]:
    """The different rows of (N, D), and the place of every row among them.

    A product of matrices sums in an order that depends on the place in the matrix, so it may give
    equal rows products that differ in the last bit.
    """
    rows = np.ascontiguousarray(vectors + 0.0)  # -0.0 becomes 0.0
    as_bytes = rows.view(np.dtype((np.void, rows.strides[0]))).ravel()
    _, first, places = np.unique(as_bytes, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return vectors, slice(None)
    return rows[first], places.astype(np.int64)


def shorten(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """The first `width` numbers of vectors (N, D), made unit again: float32 (N, width).

    What a model that was trained for it can be searched by alone (Matryoshka representation
    learning, Kusupati et al. 2022, section 3). Where nothing is left, shorter than 1e-6 of a unit
    vector, the result is zero: its cosine with everything is 0.
    """
    return _unit(np.ascontiguousarray(vectors[:, :width], np.float32))


def joint(
    old: NDArray[np.float32], new: NDArray[np.float32], weight: float = 0.5
) -> NDArray[np.float32]:
    """Queries asked with two models of one space: (1 - weight) old + weight new, made unit.

    The mean of two cosines is the cosine with their mean, up to a factor of the query: both models
    are asked with one vector and one search. Whoever can afford the old model beside the new one
    for the time of an upgrade has fewer negative flips by it (the idea of SLERP between an old and
    an aligned new query, here without the alignment).

    Args:
        old, new: unit vectors (N, D) of the same pictures by each model, both in one space. Of a
            wider new model, its prefix (`shorten`).
        weight: of the new model, 0 to 1.

    Returns float32 (N, D). Raises `DimensionError` where the shapes differ, `ConfigError` for a
    weight out of range.
    """
    if old.shape != new.shape:
        raise DimensionError(
            f"vectors {old.shape} of the old model and {new.shape} of the new one: row i of both "
            "has to be of the same picture, and as wide; cut the wider ones with metrics.shorten"
        )
    if not 0 <= weight <= 1:
        raise ConfigError(f"weight {weight} of the new model is not between 0 and 1")
    return _unit(np.asarray((1 - weight) * old + weight * new, np.float32))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    unit = np.zeros_like(vectors)
    np.divide(vectors, norms, out=unit, where=norms > _NO_LENGTH)
    return unit


def hub_bias(
    gallery: NDArray[np.float32],
    bank: NDArray[np.float32],
    k: int = HUB_NEIGHBOURS,
    weight: float = HUB_WEIGHT,
) -> NDArray[np.float32]:
    """What to add to the cosines of gallery items so that hubs, near to every query, sink.

    Local scaling on the items' side: the mean of an item's largest cosines with queries that are
    not looked for it tells how near it is to anything (CSLS, Conneau et al. 2018, section 2.3,
    its term r_S with weight 1; before it the contextual dissimilarity of Jégou et al. 2010).

    Args:
        gallery: unit vectors (M, D) of the items.
        bank: unit vectors (B, D) of pictures without labels, embedded by the query model.
        k: how many of the largest cosines are averaged; all of them where the bank has fewer.
        weight: factor of that mean, 0 or more.

    Returns float32 (M,): `-weight` times the mean. Exact, and blockwise: memory is that of the
    inputs and a few megabytes. Raises `ConfigError` for an empty bank, k below 1 or a weight that
    is negative or not finite, `DimensionError` where the widths differ.
    """
    if k < 1:
        raise ConfigError(f"k has to be 1 or more, not {k}")
    if not (np.isfinite(weight) and weight >= 0):
        raise ConfigError(f"the weight of a hub correction is a number from 0 up, not {weight}")
    if gallery.ndim != 2 or bank.ndim != 2 or gallery.shape[1] != bank.shape[1]:
        raise DimensionError(
            f"items {gallery.shape} and bank {bank.shape} have to be (M, D) and (B, D)"
        )
    if not len(bank):
        raise ConfigError("the bank of a hub correction holds no vectors")
    k = min(k, len(bank))
    bias = np.empty(len(gallery), np.float32)
    at_once = max(1, _PAIRS_AT_ONCE // len(bank))
    for start in range(0, len(gallery), at_once):
        rows = slice(start, start + at_once)
        similarity = np.asarray(gallery[rows] @ bank.T, np.float32)
        largest = np.partition(similarity, len(bank) - k, axis=1)[:, len(bank) - k :]
        bias[rows] = -weight * largest.mean(1, dtype=np.float64)
    return bias


def update_gain(cross: float, old: float, paragon: float) -> float:
    """Share of a full backfill's gain that is had without it (BCT, Shen et al. 2020, eq. 9).

    Args:
        cross: M(new, old), or M(edge, cloud).
        old: M(old, old), or M(edge, edge).
        paragon: M(new, new), or M(cloud, cloud).

    Returns NaN where the paragon gains nothing.
    """
    return (cross - old) / (paragon - old) if paragon > old else float("nan")


@dataclass(frozen=True)
class Flips:
    """Queries whose first hit changed between right and wrong.

    Attributes:
        negative: positions of the queries that were right before and are wrong now.
        positive: positions of those that were wrong and are right.
        queries: how many queries there were.
    """

    negative: NDArray[np.int64]
    positive: NDArray[np.int64]
    queries: int

    @property
    def negative_rate(self) -> float:
        """NFR: share of all queries (PCT, Yan et al. 2021, section 3)."""
        return len(self.negative) / self.queries

    @property
    def positive_rate(self) -> float:
        """Share of all queries that turned right."""
        return len(self.positive) / self.queries


def flips(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Flips:
    """Flips between two systems' first-hit correctness, both (Q,)."""
    return Flips(
        np.flatnonzero(before & ~after), np.flatnonzero(~before & after), queries=len(before)
    )


@dataclass(frozen=True)
class OperatingPoint:
    """What a fixed score threshold does to a model's queries.

    Attributes:
        threshold: cosine from which a pair counts as the same label.
        far: false accept rate: share of the pairs of different labels that pass.
        tar: true accept rate: share of the pairs of one label that pass.
    """

    threshold: float
    far: float
    tar: float


def threshold_at_far(
    queries: Floats, gallery: Floats, query_labels: Labels, gallery_labels: Labels, far: float
) -> float:
    """The smallest cosine at which at most a share `far` of the different pairs passes.

    NaN where there are no pairs of different labels; -1 where all of them may pass.
    """
    similarity = np.asarray(queries @ gallery.T, np.float32)
    different = similarity[query_labels[:, None] != gallery_labels[None, :]]
    if not len(different):
        return float("nan")
    allowed = int(far * len(different))
    if allowed >= len(different):
        return -1.0
    at = len(different) - allowed - 1
    return float(np.nextafter(np.partition(different, at)[at], np.float32(2), dtype=np.float32))


def operating_point(
    queries: Floats,
    gallery: Floats,
    query_labels: Labels,
    gallery_labels: Labels,
    threshold: float,
) -> OperatingPoint:
    """FAR and TAR of these queries at a threshold that was set elsewhere."""
    similarity = np.asarray(queries @ gallery.T, np.float32)
    same = query_labels[:, None] == gallery_labels[None, :]
    passed = similarity >= np.float32(threshold)
    accepted, rejected = same.sum(), (~same).sum()
    return OperatingPoint(
        threshold=threshold,
        far=float((passed & ~same).sum() / rejected) if rejected else float("nan"),
        tar=float((passed & same).sum() / accepted) if accepted else float("nan"),
    )
