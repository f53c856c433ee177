"""Differences of similarities among the cloud's nearest (D3still, CVPR 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossInputs, taught_of

_NEAREST = 10
_SELF, _SWAPPED, _ORDERED = 100.0, 5.0, 1.0
_FLOOR = 0.1


class DifferenceDistillation(Loss):
    """What the cloud says of how much nearer one picture is than another.

    For every picture the batch is sorted by the cloud's own cosines S. With X the cosines of the
    student's vector with the same cloud vectors, in the same order, the loss is

        100 ||S_0 - X_0|| / B  +  mean_i [ 5 ||h (dX - dS) / (.1 + |dS|)||
                                         + 1 ||(1 - h) (dX - dS) / (.1 + |dS|)|| ] / (k - 1)

    S_0 belongs to the picture itself, dS and dX are the differences between any two of the ranks
    1 to k - 1, and h marks the pairs that the student has the other way round.
    """

    anchored = True
    taught = True

    def forward(self, inputs: LossInputs) -> Tensor:
        taught = taught_of(inputs, "distillation of differences")
        k = min(_NEAREST, len(taught))
        cosines, order = (taught @ taught.T).sort(dim=1, descending=True, stable=True)
        own = (F.normalize(inputs.embedding) @ taught.T).gather(1, order)
        itself = (cosines[:, 0] - own[:, 0]).norm() / len(taught)
        total: Tensor = _SELF * itself
        if k < 3:
            return total
        told = cosines[:, 1:k, None] - cosines[:, None, 1:k]
        said = own[:, 1:k, None] - own[:, None, 1:k]
        error = (said - told) / (_FLOOR + told.abs())
        swapped = (told * said < 0).to(error.dtype)
        hard = _norms(error * swapped).mean() / (k - 1)
        easy = _norms(error * (1 - swapped)).mean() / (k - 1)
        return total + _SWAPPED * hard + _ORDERED * easy


def _norms(matrices: Tensor) -> Tensor:
    """Length of each matrix (N, K, K) -> (N,), with a gradient of 0 where it is 0."""
    return (matrices.square().sum((1, 2)) + torch.finfo(matrices.dtype).tiny).sqrt()
