"""Vectors and an anchor for benchmarks of search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samespace_edge import Fingerprint, ModelIdentity

DIM = 128


def clustered(n: int, seed: int, dim: int = DIM) -> NDArray[np.float32]:
    """Unit vectors (n, dim) in 1,000 clusters of low local dimension, as embeddings lie."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(12345)
    centres = fixed.standard_normal((1000, dim)).astype(np.float32)
    axes = fixed.standard_normal((12, dim)).astype(np.float32)
    out = np.empty((n, dim), np.float32)
    for start in range(0, n, 100_000):
        stop = min(n, start + 100_000)
        x = centres[rng.integers(0, 1000, stop - start)]
        x = x + 0.8 * rng.standard_normal((stop - start, 12)).astype(np.float32) @ axes
        x += 0.15 * rng.standard_normal((stop - start, dim)).astype(np.float32)
        out[start:stop] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return out


def anchor(dim: int = DIM) -> ModelIdentity:
    """A cloud model's identity, where only vectors are needed."""
    space = Fingerprint("ab" * 32)
    return ModelIdentity("bench", space, "onnx-fp32", "cd" * 32, space, dim)
