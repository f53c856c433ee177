"""95 % intervals of means over queries, where pictures of one label are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samespace.metrics._retrieval import Labels

Values = Sequence[float] | NDArray[np.generic]

LEAST_LABELS = 8
"""Fewer labels than this say too little for a verdict, whatever the number of queries."""

_LEVEL = 0.95
_TAIL = (1 - _LEVEL) / 2
_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Interval:
    """A 95 % interval.

    Attributes:
        low, high: its ends.
        over: what counts as independent: `labels` here, `pictures` or `exact` in
            `samespace.regressions`; `queries` in reports of earlier versions.
    """

    low: float
    high: float
    over: str

    def __str__(self) -> str:
        return f"[{self.low:.3f}, {self.high:.3f}]"


class ClusterRobust:
    """Cluster-robust 95 % intervals of means over the same queries, with labels as clusters.

    The variance of a mean is that of its leave-one-label-out means (the delete-one-cluster
    jackknife, known as CV3; MacKinnon, Nielsen & Webb 2023, section 2), and its quantile is that of
    Student's t with one degree of freedom less than there are labels. Percentiles of a bootstrap
    over labels, as earlier versions had them, cover too little with few labels
    (docs/benchmarks.md has both).

    Args:
        labels: label of every query (Q,), Q at least 1.
    """

    def __init__(self, labels: Labels) -> None:
        from scipy.special import stdtrit  # type: ignore[import-untyped]

        _, self._codes = np.unique(labels, return_inverse=True)
        self._sizes = np.bincount(self._codes).astype(np.float64)
        self.labels = len(self._sizes)
        self._quantile = float(stdtrit(max(1, self.labels - 1), 1 - _TAIL))

    def share(self, values: Values) -> Interval:
        """Return the interval of the mean of values from 0 to 1 (Q,), such as R@1 or mAP.

        The interval is made on the scale of log odds, so that it is skewed as shares near 0 and 1
        are, and stays inside. Where all labels have the same mean, the interval is as wide to
        either side as that of a share that was never seen among so many labels; of all right and of
        all wrong that is the exact binomial one (Clopper & Pearson 1934).
        """
        mean, error = self._moments(values)
        if error < _NO_SPREAD or not 0 < mean < 1:
            return self._without_spread(mean, 0.0)
        from scipy.special import expit, logit

        odds, margin = logit(mean), self._quantile * error / (mean * (1 - mean))
        low, high = expit(odds - margin), expit(odds + margin)
        return Interval(float(low), float(high), "labels")

    def difference(self, values: Values) -> Interval:
        """Return the interval of the mean of paired differences from -1 to 1 (Q,).

        Where all labels have the same mean, such as no difference anywhere, the interval is as wide
        as the exact one of a share that was never seen among so many labels.
        """
        mean, error = self._moments(values)
        if error < _NO_SPREAD:
            return self._without_spread(mean, -1.0)
        margin = self._quantile * error
        return Interval(max(-1.0, mean - margin), min(1.0, mean + margin), "labels")

    def _moments(self, values: Values) -> tuple[float, float]:
        """The mean, and its standard error; 0 for a single label."""
        array = np.asarray(values, np.float64)
        mean = float(array.mean())
        if self.labels < 2:
            return mean, 0.0
        sums = np.bincount(self._codes, array, self.labels)
        left_out = (sums.sum() - sums) / (self._sizes.sum() - self._sizes)
        variance = (self.labels - 1) / self.labels * ((left_out - mean) ** 2).sum()
        return mean, float(np.sqrt(variance))

    def _without_spread(self, mean: float, lowest: float) -> Interval:
        unseen = 1 - float(_TAIL ** (1 / self.labels))
        return Interval(max(lowest, mean - unseen), min(1.0, mean + unseen), "labels")
