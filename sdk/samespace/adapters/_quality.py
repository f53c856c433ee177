"""How well mapped vectors stand in for those that they imitate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace import metrics


@dataclass(frozen=True)
class Quality:
    """Of pairs that nothing was fitted or chosen on.

    Attributes:
        cosine: mean cosine of a mapped vector with the target vector of the same picture.
        recall_at_1: share of the pairs whose mapped vector is nearest to its own target vector,
            among those of all these pairs. It falls with their number: compare equal ones.
        pairs: how many.
    """

    cosine: float
    recall_at_1: float
    pairs: int

    def to_json(self) -> dict[str, Any]:
        """As it stands in an adapter's file."""
        return dict(vars(self))


def measure(mapped: NDArray[np.float32], targets: NDArray[np.float32]) -> Quality:
    """The quality of unit vectors (N, D) against the target model's own (N, D)."""
    own = np.arange(len(mapped), dtype=np.int64)
    found = metrics.rank(mapped, targets, own, own, keep=1)
    return Quality(mean_cosine(mapped, targets), found.recall_at(1), len(mapped))


def mean_cosine(mapped: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """Mean cosine of vectors (N, D), of any length, with unit vectors (N, D) row by row."""
    wide = mapped.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    dots = np.einsum("nd,nd->n", wide, targets, dtype=np.float64)
    return float(np.mean(dots / np.maximum(lengths, 1e-12)))
