"""Paired vectors, and how they are divided into what is fitted, chosen and measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge import ConfigError
from samespace_edge._adapter import adapter_input

LEAST_PAIRS = 20
"""Fewer pairs than that are refused."""

# More would only cost time: a share of 2,000 is known to within 2 points.
_MOST_HELD = 2000
_LEAST_HELD = 5
_CHOOSE = 0.1


@dataclass(frozen=True)
class Pairs:
    """What two models made of the same pictures.

    Attributes:
        x: float32 (N, I): unit vectors of the source model, side information beside them.
        y: float32 (N, O): unit vectors of the target model.
        side_dim: how many of the last columns of `x` are side information.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    side_dim: int = 0

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[np.int64]) -> Pairs:
        """These rows."""
        return Pairs(self.x[rows], self.y[rows], self.side_dim)


def paired(source: Any, target: Any, side: Any) -> Pairs:
    """Pairs from what a caller gave; raises `ConfigError`, `DimensionError`, `InvalidVectorError`.

    Args:
        source: floats (N, D).
        target: floats (N, O).
        side: floats (N, S), or None.
    """
    x = adapter_input(source, side, "source vectors")
    y = adapter_input(target, None, "target vectors")
    if len(x) != len(y):
        raise ConfigError(
            f"{len(x)} source vectors and {len(y)} target vectors: row i of both has to be of the "
            "same picture. Embed the same pictures, in the same order, with both models."
        )
    if len(x) < LEAST_PAIRS:
        raise ConfigError(
            f"{len(x)} pairs are too few to fit an adapter and measure it; give at least "
            f"{LEAST_PAIRS}, better ten times the vectors' width ({10 * x.shape[1]})"
        )
    return Pairs(x, y, 0 if side is None else int(np.shape(side)[1]))


def split(pairs: Pairs, held_out: float, seed: int) -> tuple[Pairs, Pairs, Pairs]:
    """Pairs to fit on, to choose settings on, and to measure on; every pair is in one of them.

    Args:
        held_out: share to measure on, at most 0.5; of many pairs no more than 2,000 are.
        seed: of the division.
    """
    if not 0 < held_out <= 0.5:
        raise ConfigError(f"held_out is a share above 0 up to 0.5, not {held_out}")
    order = np.random.default_rng(seed).permutation(len(pairs))
    held = _count(held_out, len(pairs))
    chosen = held + _count(_CHOOSE, len(pairs))
    return pairs.take(order[chosen:]), pairs.take(order[held:chosen]), pairs.take(order[:held])


def _count(share: float, pairs: int) -> int:
    return min(_MOST_HELD, max(_LEAST_HELD, round(share * pairs)))
