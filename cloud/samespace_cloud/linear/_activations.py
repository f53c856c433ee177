"""Activations that let a little through where the usual ones let nothing through.

Each is the usual one plus `slope` times what it cuts off, so it is continuous, and `slope` 0 is the
usual one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def leaky_relu6(x: Tensor, slope: float) -> Tensor:
    """x between 0 and 6; `slope` x below, 6 + `slope` (x - 6) above."""
    return (1 - slope) * F.relu6(x) + slope * x


def leaky_hardswish(x: Tensor, slope: float) -> Tensor:
    """x relu6(x + 3) / 6, and `slope` (x + 3) below -3, where that is 0."""
    return x * F.relu6(x + 3) / 6 - slope * F.relu(-x - 3)


class LeakyReLU6(nn.Module):
    """See `leaky_relu6`."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu6(x, self.slope)

    def extra_repr(self) -> str:
        return f"slope={self.slope}"


class LeakyHardswish(LeakyReLU6):
    """See `leaky_hardswish`."""

    def forward(self, x: Tensor) -> Tensor:
        return leaky_hardswish(x, self.slope)


LEAKY = (LeakyReLU6, LeakyHardswish)
