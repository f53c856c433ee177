"""Intervals of figures that hang on how two models' errors fall together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samespace.metrics import Interval

_RESAMPLES = 2000


@dataclass(frozen=True)
class Outcomes:
    """How often both were right, the new one turned wrong, it turned right, both were wrong.

    Each is a number, or one for every resample (R,).
    """

    both: NDArray[np.float64]
    negative: NDArray[np.float64]
    positive: NDArray[np.float64]
    neither: NDArray[np.float64]

    @property
    def error_difference(self) -> NDArray[np.float64]:
        """ER_new - ER_old, which is NFR - PFR."""
        total = self.both + self.negative + self.positive + self.neither
        return np.asarray((self.negative - self.positive) / total)

    @property
    def relative_negative_rate(self) -> NDArray[np.float64]:
        """NFR / ((1 - ER_old) ER_new); NaN where that is 0 / 0."""
        total = self.both + self.negative + self.positive + self.neither
        expected = (self.both + self.negative) * (self.negative + self.neither)
        rates = np.full(expected.shape, np.nan)
        np.divide(self.negative * total, expected, out=rates, where=expected > 0)
        return rates


def resample(before: NDArray[np.bool_], after: NDArray[np.bool_], seed: int) -> Outcomes:
    """The paired bootstrap over pictures, 2,000 times.

    Args:
        before, after: (N,): whether the old, and the new, model is right.

    A picture has one of four outcomes, and every figure here depends on their counts alone: to
    draw N pictures with replacement is to draw the counts from a multinomial, whatever N.
    """
    counts = np.array(
        [
            np.sum(before & after),
            np.sum(before & ~after),
            np.sum(~before & after),
            np.sum(~before & ~after),
        ]
    )
    drawn = np.random.default_rng(seed).multinomial(
        len(before), counts / len(before), size=_RESAMPLES
    )
    return Outcomes(*drawn.T.astype(np.float64))


def percentiles(values: NDArray[np.float64]) -> Interval:
    """The 95 % interval of resampled figures (R,), those that are NaN left out."""
    low, high = np.percentile(values[~np.isnan(values)], [2.5, 97.5])
    return Interval(float(low), float(high), "pictures")
