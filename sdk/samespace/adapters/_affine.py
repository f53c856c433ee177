"""Ridge regression from one model's vectors to the other's, of full or low rank."""

from __future__ import annotations

from typing import Any

import numpy as np

from samespace.adapters._moments import Floats, Moments, moments
from samespace.adapters._pairs import Pairs
from samespace.adapters._quality import mean_cosine
from samespace_edge import AdapterLayers, ConfigError

# Ridge weights that are tried, in units of the mean eigenvalue of xᵀx.
_RIDGES = tuple(10.0**e for e in range(-8, 2))


def fit_affine(
    fit: Pairs, choose: Pairs, *, rank: int | None = None
) -> tuple[AdapterLayers, dict[str, Any]]:
    """The matrix with the smallest |(x - mean x) A - (y - mean y)|² + ridge |A|².

    The ridge is the one whose results have the largest mean cosine on `choose`; with it, the
    matrix is fitted again to all of these pairs.

    Args:
        rank: of the matrix, which then is two factors; None for full rank.

    Directions that no pair shows are mapped to nothing.
    """
    _, ridge = best_ridge(fit, choose, rank)
    return _Ridge(moments(fit, choose)).layers(ridge, rank), {"ridge": ridge}


def best_ridge(fit: Pairs, choose: Pairs, rank: int | None) -> tuple[AdapterLayers, float]:
    """The map fitted to `fit` whose ridge does best on `choose`, and that ridge."""
    narrower = min(fit.x.shape[1], fit.y.shape[1])
    if rank is not None and not 1 <= rank < narrower:
        raise ConfigError(
            f"rank {rank}: a matrix of {fit.x.shape[1]} x {fit.y.shape[1]} has a low rank from 1 "
            f"to {narrower - 1}; leave it out for full rank"
        )
    ridges = _Ridge(moments(fit))
    tried = {r: ridges.layers(r, rank) for r in _RIDGES}
    scores = {r: mean_cosine(layers(choose.x), choose.y) for r, layers in tried.items()}
    best = max(_RIDGES, key=lambda r: scores[r])
    return tried[best], best


class _Ridge:
    """The solutions for every ridge, from one decomposition."""

    def __init__(self, found: Moments) -> None:
        self.found = found
        values, self.vectors = np.linalg.eigh(found.xx)
        self.values = np.maximum(values, 0)  # rounding may leave a zero below it
        self.turned = self.vectors.T @ found.xy

    def layers(self, ridge: float, rank: int | None) -> AdapterLayers:
        weighted = self.values + ridge * (self.values.mean() or 1.0)
        matrix = self.vectors @ (self.turned / weighted[:, None])
        return AdapterLayers(
            self.found.mean_x.astype(np.float32),
            tuple(m.astype(np.float32) for m in self._factors(matrix, rank)),
            self.found.mean_y.astype(np.float32),
        )

    def _factors(self, matrix: Floats, rank: int | None) -> tuple[Floats, ...]:
        """The matrix itself, or the best of a rank: what it makes, in the directions that vary
        most (reduced-rank ridge regression, Mukherjee & Zhu 2011, section 2)."""
        if rank is None:
            return (matrix,)
        # |made by A|² + ridge |A|² = Aᵀ (xᵀx + ridge) A = Aᵀ xᵀy, for the A of this ridge
        _, directions = np.linalg.eigh(matrix.T @ self.found.xy)
        kept = directions[:, ::-1][:, :rank]
        return matrix @ kept, kept.T
