"""The figures of one pair of models, without hub correction and with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace.verification._report import Cell, Estimate

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
    bootstrap: metrics.Bootstrap,
) -> Cell:
    """M(query, gallery) of a pair of labels, from its rankings without and with correction."""
    estimates = _estimates(ranking, bootstrap)
    if corrected is None:
        return Cell(*pair, estimates)
    change = corrected.hits(1).astype(np.float64) - ranking.hits(1)
    return Cell(*pair, estimates, _estimates(corrected, bootstrap), estimate(change, bootstrap))


def _estimates(ranking: metrics.Ranking, bootstrap: metrics.Bootstrap) -> dict[str, Estimate]:
    values: dict[str, NDArray[Any]] = {f"recall_at_{k}": ranking.hits(k) for k in (1, 5, 10)}
    values["map"] = ranking.average_precision
    return {name: estimate(v, bootstrap) for name, v in values.items()}
