"""Steps of a training: AdamW, or SGD as papers have it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch

Optimizer = Literal["adamw", "sgd"]

CLIP = 5.0
"""The norm that a step's gradient has at most, unless told otherwise."""

_MOMENTUM = 0.9


def new_optimizer(
    kind: Optimizer, groups: Iterable[dict[str, Any]], lr: float
) -> torch.optim.Optimizer:
    """One for these groups of weights."""
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=lr)
