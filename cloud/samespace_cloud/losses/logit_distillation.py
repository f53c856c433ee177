"""Distillation of class probabilities (Hinton et al. 2015). It ties nothing to the cloud's space:
here for comparison, and as a companion of a loss that does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.losses._base import Loss, LossContext, LossInputs, taught_of
from samespace_edge import ConfigError


class LogitDistillation(Loss):
    """KL between what the cloud's classifier says of the cloud's vector and what a classifier of
    the student's own says of the student's."""

    taught = True

    def __init__(self, context: LossContext) -> None:
        super().__init__(context)
        if context.cloud_classifier is None:
            raise ConfigError("logit distillation needs the cloud model's classifier")
        self.cloud_classifier: Tensor
        self.register_buffer("cloud_classifier", F.normalize(context.cloud_classifier))
        self.classifier = nn.Parameter(torch.randn(context.classes, context.dim) * 0.05)
        self._scale = context.scale

    def forward(self, inputs: LossInputs) -> Tensor:
        taught = taught_of(inputs, "logit distillation")
        told = F.softmax(self._scale * taught @ self.cloud_classifier.T, dim=1)
        cosine = F.normalize(inputs.embedding) @ F.normalize(self.classifier).T
        return F.kl_div(F.log_softmax(self._scale * cosine, dim=1), told, reduction="batchmean")
