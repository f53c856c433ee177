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


def estimate(values: NDArray[Any], bootstrap: metrics.Bootstrap) -> Estimate:
    """The mean of what every query (Q,) got, with its interval."""
    interval = bootstrap.interval(values)
    return Estimate(
        float(np.mean(values, dtype=np.float64)), interval.low, interval.high, interval.over
    )


def cell(
    pair: tuple[str, str],
    ranking: metrics.Ranking,
    corrected: metrics.Ranking | None,
    shorter: Mapping[int, metrics.Ranking],
    bootstrap: metrics.Bootstrap,
) -> Cell:
    """M(query, gallery) of a pair of labels.

    Args:
        ranking: with whole vectors.
        corrected: with hub correction.
        shorter: with vectors of these widths.
    """

    def change(other: metrics.Ranking) -> Estimate:
        return estimate(other.hits(1).astype(np.float64) - ranking.hits(1), bootstrap)

    prefixes = tuple(
        Prefix(width, _estimates(found, bootstrap), change(found))
        for width, found in sorted(shorter.items())
    )
    return Cell(
        *pair,
        _estimates(ranking, bootstrap),
        None if corrected is None else _estimates(corrected, bootstrap),
        None if corrected is None else change(corrected),
        prefixes or None,
    )


def _estimates(ranking: metrics.Ranking, bootstrap: metrics.Bootstrap) -> dict[str, Estimate]:
    values: dict[str, NDArray[Any]] = {f"recall_at_{k}": ranking.hits(k) for k in (1, 5, 10)}
    values["map"] = ranking.average_precision
    return {name: estimate(v, bootstrap) for name, v in values.items()}
