"""Is searching the other model's gallery better than what one would do without it?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace.verification._cells import difference as difference_of
from samespace.verification._matrix import UPGRADE, Criterion, Estimate, PrefixCriterion

LEAST_QUERIES = 30

Rankings = Mapping[tuple[str, str], metrics.Ranking]
"""What the queries of one label found in the gallery of another."""


def criterion(
    query: str,
    gallery: str,
    reference: str,
    rankings: Rankings,
    shorter: Mapping[int, Rankings],
    intervals: metrics.ClusterRobust,
    *,
    cost_ratio: float,
    decides: bool,
    upgrade: bool = False,
) -> Criterion:
    """The criterion of a query and a gallery model against a reference, all given by label.

    Args:
        rankings: with whole vectors, which alone `holds` goes by.
        shorter: the same with vectors of these widths.
        upgrade: whether the query model is a newer cloud model, which would embed the gallery
            too in the end: it is the paragon then, not the gallery's.
    """
    cross = _right(rankings, query, gallery)
    alone = _right(rankings, reference, reference)
    best = query if upgrade else gallery
    paragon = _right(rankings, best, best)
    difference, holds = _above(cross, alone, intervals)
    gain = metrics.update_gain(float(cross.mean()), float(alone.mean()), float(paragon.mean()))
    prefixes = []
    for width, found in sorted(shorter.items()):
        ours, theirs = _right(found, query, gallery), _right(found, reference, reference)
        prefixes.append(
            PrefixCriterion(
                width,
                float(ours.mean()),
                float(theirs.mean()),
                *_above(ours, theirs, intervals),
            )
        )
    return Criterion(
        query=query,
        gallery=gallery,
        reference=reference,
        value=float(cross.mean()),
        reference_value=float(alone.mean()),
        difference=difference,
        gap=difference_of(cross - paragon, intervals),
        gain=None if np.isnan(gain) else gain,
        cost_ratio=cost_ratio,
        decides=decides,
        holds=holds,
        prefixes=tuple(prefixes) or None,
        rule=UPGRADE if upgrade else None,
    )


def _right(rankings: Rankings, query: str, gallery: str) -> NDArray[np.float64]:
    return rankings[query, gallery].hits(1).astype(np.float64)


def _above(
    cross: NDArray[np.float64], alone: NDArray[np.float64], intervals: metrics.ClusterRobust
) -> tuple[Estimate, bool]:
    """The difference, and whether it is one beyond its interval."""
    difference = difference_of(cross - alone, intervals)
    # A handful of queries that agree by luck has an interval without width.
    enough = len(cross) >= LEAST_QUERIES and intervals.labels >= metrics.LEAST_LABELS
    return difference, difference.low > 0 and enough
