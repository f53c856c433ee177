"""Regression to the cloud's embedding of the same view (AML, Budnik & Avrithis 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossInputs, taught_of


class CosineRegression(Loss):
    """Mean of 1 - cosine; needs no labels."""

    anchored = True
    taught = True

    def forward(self, inputs: LossInputs) -> Tensor:
        taught = taught_of(inputs, "cosine regression")
        return (1 - (F.normalize(inputs.embedding) * taught).sum(1)).mean()
