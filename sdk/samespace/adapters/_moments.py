"""Means and products of centred pairs: all that the linear kinds need to know of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samespace.adapters._pairs import Pairs

Floats = NDArray[np.float64]

_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Moments:
    """Of pairs x (N, I), y (N, O), in float64.

    Attributes:
        mean_x, mean_y: (I,) and (O,).
        xx: (I, I), the sum of products of centred x with itself.
        xy: (I, O), of centred x with centred y.
    """

    mean_x: Floats
    mean_y: Floats
    xx: Floats
    xy: Floats


def moments(*parts: Pairs) -> Moments:
    """The moments of all these pairs together; a block of them at a time is in float64."""
    count = sum(len(part) for part in parts)
    mean_x = np.sum([part.x.sum(0, dtype=np.float64) for part in parts], 0) / count
    mean_y = np.sum([part.y.sum(0, dtype=np.float64) for part in parts], 0) / count
    xx = np.zeros((mean_x.size, mean_x.size))
    xy = np.zeros((mean_x.size, mean_y.size))
    for x, y in _blocks(parts):
        x = x - mean_x
        xx += x.T @ x
        xy += x.T @ (y - mean_y)
    return Moments(mean_x, mean_y, xx, xy)


def _blocks(parts: tuple[Pairs, ...]) -> Iterator[tuple[Floats, Floats]]:
    for part in parts:
        for start in range(0, len(part), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            yield part.x[rows].astype(np.float64), part.y[rows].astype(np.float64)
