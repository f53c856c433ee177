"""Scales of int8 weights that every processor computes alike.

x86 processors without VNNI (most before 2021) multiply uint8 activations by int8 weights with the
instruction `vpmaddubsw`. It adds the products of two neighbours along K in 16 bits, and SATURATES:
255 * (w1 + w2) has to stay below 32,768, so w1 + w2 has to stay within 128. Weights of 127 on both
sides pass that by far, and the vectors are wrong without any error.

So a channel's scale is set by its largest sum of two neighbours with the same sign, and not by its
largest weight: s = max(w1 + w2) / 127. Rounding adds at most half a level to each of the two, which
makes 128. Neighbours of opposite signs cancel and are free. That costs about a third of a bit
(scales of EfficientNet-Lite0 are 1.24 times larger on average), and reducing all weights to 7 bits
would cost a whole one.

Only onnxruntime adds in 16 bits. LiteRT's XNNPACK widens before it adds.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

LEVELS = 127
"""Largest level of a weight. Scales are symmetric, so -128 is not used."""

PAIR = 128
"""Largest sum of two neighbouring levels that no processor saturates: 255 * 128 < 32,768."""

_SMALLEST = 1e-12
# How far from a whole number a level may lie: float32 rounding leaves about 1e-5.
_ON_GRID = 2e-3
# Columns that decide whether a channel is worth looking at in full.
_PROBE = 16


def weight_scales(weights: NDArray[np.float32], paired: bool) -> Array:
    """Return the scale of every output channel.

    A channel that lies on a grid already, as fine-tuning for int8 leaves it, keeps that grid.

    Args:
        weights: (O, K), K in the order in which a kernel adds.
        paired: whether the kernel adds neighbours along K in 16 bits.

    Returns:
        Scales (O,): float64 values of float32 precision, above 0.
    """
    rows = np.asarray(weights, np.float64)
    largest = same_sign_sums(rows) if paired else np.abs(rows).max(1, initial=0)
    scales = largest / LEVELS
    grid = grid_scales(rows)
    levels = np.rint(rows / np.where(grid > 0, grid, 1)[:, None])
    keeps = (grid > 0) & (not paired or same_sign_sums(levels) <= PAIR)
    scales = np.where(keeps, grid, scales)
    return np.maximum(scales, _SMALLEST).astype(np.float32).astype(np.float64)


def same_sign_sums(rows: Array) -> Array:
    """Return the largest |a + b| of two neighbours with the same sign in every row.

    Args:
        rows: (O, K). Neighbours are columns 0 and 1, 2 and 3, and so on; a column left over at the
            end has none.

    Returns:
        (O,), at least the row's largest magnitude.
    """
    padded = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    a, b = padded[:, 0::2], padded[:, 1::2]
    positive = np.maximum(a, 0) + np.maximum(b, 0)
    negative = np.maximum(-a, 0) + np.maximum(-b, 0)
    largest: Array = np.maximum(positive, negative).max(1, initial=0)
    return largest


def grid_scales(rows: Array) -> Array:
    """Return the step of the coarsest grid of at most 127 levels that holds a row; 0 for none.

    Args:
        rows: (O, K).

    Returns:
        (O,): every weight of a row is a multiple of its step, to float32 precision.
    """
    largest = np.abs(rows).max(1, initial=0)
    found = np.zeros(len(rows))
    left = np.flatnonzero(largest > _SMALLEST)
    for levels in range(1, LEVELS + 1):
        fits = left
        for columns in (slice(0, _PROBE), slice(None)):
            scaled = rows[fits, columns] * (levels / largest[fits])[:, None]
            fits = fits[(np.abs(scaled - np.rint(scaled)) < _ON_GRID).all(1)]
        found[fits] = largest[fits] / levels
        left = np.setdiff1d(left, fits, assume_unique=True)
    return found
