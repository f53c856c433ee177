"""Regression to the cloud's embedding of the same view (AML, Budnik & Avrithis 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossInputs
from samespace_edge import ConfigError


class CosineRegression(Loss):
    """Mean of 1 - cosine; needs no labels."""

    anchored = True

    def forward(self, inputs: LossInputs) -> Tensor:
        if inputs.taught is None:
            raise ConfigError("cosine regression needs a cloud model to learn from")
        return (1 - (F.normalize(inputs.embedding) * inputs.taught).sum(1)).mean()
