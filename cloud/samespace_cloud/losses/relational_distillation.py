"""Distillation of distances between pictures (RKD-D, Park et al. 2019, equations 4 to 6). Any
rotation of the space satisfies it: here for comparison, and as a companion of an anchored loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossInputs, taught_of


class RelationalDistillation(Loss):
    """Huber loss between the distances of all pairs of the batch, each divided by its mean."""

    taught = True

    def forward(self, inputs: LossInputs) -> Tensor:
        taught = taught_of(inputs, "relational distillation")
        return F.smooth_l1_loss(_relative(F.normalize(inputs.embedding)), _relative(taught))


def _relative(x: Tensor) -> Tensor:
    rows, columns = torch.triu_indices(len(x), len(x), 1, device=x.device)
    distance = F.pairwise_distance(x[rows], x[columns])
    return distance / distance.mean().clamp_min(1e-8)
