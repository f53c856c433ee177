"""Intervals as results hold them: two numbers."""

from __future__ import annotations

from samespace.metrics import ClusterRobust
from samespace.metrics._intervals import Values


def share_ends(intervals: ClusterRobust, values: Values) -> list[float]:
    """Return both ends of `ClusterRobust.share`."""
    found = intervals.share(values)
    return [found.low, found.high]


def difference_ends(intervals: ClusterRobust, values: Values) -> list[float]:
    """Return both ends of `ClusterRobust.difference`."""
    found = intervals.difference(values)
    return [found.low, found.high]
