"""The resize of edge_runtime/README.md as plain arithmetic, for other implementations to meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BITS = 22


def triangle(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) to uint8 RGB (height, width, 3): rows first, then columns."""
    by_rows = along_rows(pixels, width)
    return along_rows(by_rows.transpose(1, 0, 2), height).transpose(1, 0, 2)


def along_rows(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    length = pixels.shape[1]
    if length == size:
        return pixels
    out = np.empty((len(pixels), size, 3), np.uint8)
    scale = length / size
    support = max(1.0, scale)
    for i in range(size):
        centre = (i + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(length, int(centre + support + 0.5))
        weights = [
            max(0.0, 1 - abs((j - centre + 0.5) * (1 / support))) for j in range(first, last)
        ]
        total = 0.0
        for weight in weights:  # not sum(), which corrects its rounding from Python 3.12 on
            total += weight
        fixed = [int(w / total * (1 << BITS) + 0.5) for w in weights]
        sums = pixels[:, first:last].astype(np.int64).transpose(0, 2, 1) @ fixed
        out[:, i] = np.clip((sums + (1 << (BITS - 1))) >> BITS, 0, 255)
    return out
