"""The figures of one pair of models: plain, with hub correction, and with shorter vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace.verification._matrix import Cell, Estimate, Prefix

Vectors = NDArray[np.float32]


def corrected_ranking(
    queries: Vectors,
    gallery: Vectors,
    bank: Vectors,
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
) -> metrics.Ranking:
    """What queries (Q, D) find in a gallery (G, D) by cosine plus hub bias.

    Args:
        bank: (B, D), made by the model of the queries.

    The bias is a dimension more, as in a gallery; `top_scores` are cosines plus biases.
    """
    bias = metrics.hub_bias(gallery, bank)
    ones = np.ones((len(queries), 1), np.float32)
    return metrics.rank(
        np.concatenate([queries, ones], 1),
        np.concatenate([gallery, bias[:, None]], 1),
        query_labels,
        gallery_labels,
    )


def share(values: NDArray[Any], intervals: metrics.ClusterRobust) -> Estimate:
    """Return the mean of an accuracy of every query (Q,), 0 to 1, with its interval."""
    return _estimate(values, intervals.share(values))


def difference(values: NDArray[Any], intervals: metrics.ClusterRobust) -> Estimate:
    """Return the mean of a paired difference of every query (Q,), with its interval."""
    return _estimate(values, intervals.difference(values))


def _estimate(values: NDArray[Any], interval: metrics.Interval) -> Estimate:
    mean = float(np.mean(values, dtype=np.float64))
    return Estimate(mean, interval.low, interval.high, interval.over)


def cell(
    pair: tuple[str, str],
    ranking: metrics.Ranking,
    corrected: metrics.Ranking | None,
    shorter: Mapping[int, metrics.Ranking],
    intervals: metrics.ClusterRobust,
) -> Cell:
    """M(query, gallery) of a pair of labels.

    Args:
        ranking: with whole vectors.
        corrected: with hub correction.
        shorter: with vectors of these widths.
    """

    def change(other: metrics.Ranking) -> Estimate:
        return difference(other.hits(1).astype(np.float64) - ranking.hits(1), intervals)

    prefixes = tuple(
        Prefix(width, _estimates(found, intervals), change(found))
        for width, found in sorted(shorter.items())
    )
    return Cell(
        *pair,
        _estimates(ranking, intervals),
        None if corrected is None else _estimates(corrected, intervals),
        None if corrected is None else change(corrected),
        prefixes or None,
    )


def _estimates(ranking: metrics.Ranking, intervals: metrics.ClusterRobust) -> dict[str, Estimate]:
    values: dict[str, NDArray[Any]] = {f"recall_at_{k}": ranking.hits(k) for k in (1, 5, 10)}
    values["map"] = ranking.average_precision
    return {name: share(v, intervals) for name, v in values.items()}
