"""Retrieval metrics, on numpy arrays: what is searched for is what is checked.

Everything works per query first, so that intervals, flips and paired differences can be had from
the same numbers. Accuracies are fractions.
"""

from __future__ import annotations

from samespace.metrics._intervals import LEAST_LABELS, ClusterRobust, Interval
from samespace.metrics._retrieval import (
    HUB_NEIGHBOURS,
    HUB_WEIGHT,
    NO_MATCH,
    Flips,
    Floats,
    Labels,
    OperatingPoint,
    Ranking,
    flips,
    hub_bias,
    joint,
    operating_point,
    rank,
    shorten,
    threshold_at_far,
    update_gain,
)

__all__ = [
    "HUB_NEIGHBOURS",
    "HUB_WEIGHT",
    "LEAST_LABELS",
    "NO_MATCH",
    "ClusterRobust",
    "Flips",
    "Floats",
    "Interval",
    "Labels",
    "OperatingPoint",
    "Ranking",
    "flips",
    "hub_bias",
    "joint",
    "operating_point",
    "rank",
    "shorten",
    "threshold_at_far",
    "update_gain",
]
