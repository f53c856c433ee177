"""Binomial figures without approximation, stable for large counts."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from samespace.metrics import Interval

_STEPS = 60


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) of a binomial X of n trials of probability p, 0 < p < 1, 0 <= k <= n.

    Summed from the largest term outwards, of which only the ratio to it is told, so that neither
    coefficients overflow nor rounding adds up: to 1e-8 of its value for n of a million.
    """
    if k >= n:
        return 1.0
    top = min(k, int((n + 1) * p))
    i = np.arange(1, k + 1, dtype=np.float64)
    steps = np.log(n + 1 - i) - np.log(i) + (math.log(p) - math.log1p(-p))
    below, above = np.cumsum(-steps[:top][::-1]), np.cumsum(steps[top:])
    ratios = 1 + float(np.exp(below).sum()) + float(np.exp(above).sum())
    largest = math.lgamma(n + 1) - math.lgamma(top + 1) - math.lgamma(n - top + 1)
    largest += top * math.log(p) + (n - top) * math.log1p(-p)
    return min(1.0, math.exp(largest + math.log(ratios)))


def mcnemar(negative: int, positive: int) -> float:
    """Two-sided p value of so many negative and positive flips (McNemar 1947, here exact).

    Were both models equally good, each flip would go either way like a coin: it is the probability
    of a split at least as uneven. 1 where nothing flipped.
    """
    n = negative + positive
    if not n:
        return 1.0
    return min(1.0, 2 * binomial_cdf(min(negative, positive), n, 0.5))


@lru_cache(maxsize=4096)  # many groups are of as many pictures
def exact_interval(k: int, n: int) -> Interval:
    """The 95 % interval of a share of which k of n were seen (Clopper & Pearson 1934).

    It never covers less than 95 %, and has a width where k is 0, which resampling does not: of 0
    in 100 the upper end is 0.036.
    """
    return Interval(1 - _upper(n - k, n), _upper(k, n), "exact")


def _upper(k: int, n: int) -> float:
    """The share at which k or fewer of n have a probability of 0.025, by bisection."""
    if k == n:
        return 1.0
    low, high = k / n, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if binomial_cdf(k, n, middle) > 0.025 else (low, middle)
    return high
