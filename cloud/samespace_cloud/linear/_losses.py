"""What the linear model is fitted by: the rescaled square loss, and cross entropy to compare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_edge import ConfigError

KAPPA = 15.0
"""The target of the true class: with `emphasis` 1, the one-hot times 15 of the default of Tangent
Model Composition (Liu, Soatto 2023), whose authors include those of LQF."""


def rescaled_targets(
    labels: Tensor, classes: int, kappa: float = KAPPA, emphasis: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Targets and weights (N, K) that make the rescaled square loss of `labels`.

    The loss of a picture with label y is sum_i weight_i (f_i - target_i)^2
    = 1/K (emphasis (f_y - kappa)^2 + sum_{i != y} f_i^2) (Hui, Belkin 2021, section 3; LQF,
    Achille et al. 2021, section 3).

    Args:
        labels: int64 (N,), 0 to classes - 1.
        classes: K.
        kappa: target of the true class; the others' is 0.
        emphasis: weight of the true class.

    Raises `ConfigError` for labels outside that range.
    """
    check_labels(labels, classes)
    truth = F.one_hot(labels, classes).to(torch.float32)
    return kappa * truth, (1 + (emphasis - 1) * truth) / classes


def square_loss(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over pictures of sum_i weight_i (output_i - target_i)^2; (N, K) each."""
    return (weights * (outputs - targets).square()).sum(dim=1).mean()


def check_labels(labels: Tensor, classes: int) -> None:
    """Raises `ConfigError` where `labels` (N,) are not 0 to `classes` - 1, or no int64."""
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ConfigError(
            f"labels are int64 (N,), not {labels.dtype} {tuple(labels.shape)}; convert them"
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ConfigError(
            f"{len(outside)} labels, such as {int(outside[0])}, are not among 0 to {classes - 1}; "
            "leave those pictures out, or say how many classes there are"
        )
