"""Contrast with the cloud's vectors of the batch (supervised contrastive learning, Khosla et al.
2020, equation 2, with the cloud's vectors as anchors; temperature of openBCT)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossInputs, taught_of

_TEMPERATURE = 0.05


class Contrastive(Loss):
    """Mean of -log p, p the share that a right cloud vector has among all of the batch.

    Right are the cloud's vectors of the same picture and of pictures with the same label. Needs no
    labels: without one, the picture itself is all that is right.
    """

    anchored = True
    taught = True

    def forward(self, inputs: LossInputs) -> Tensor:
        taught = taught_of(inputs, "the contrastive loss")
        logits = F.normalize(inputs.embedding) @ taught.T / _TEMPERATURE
        label = inputs.label
        right = (label[:, None] == label[None, :]) & (label >= 0)[:, None]
        right = right | torch.eye(len(label), dtype=torch.bool, device=label.device)
        share = right.to(logits.dtype) / right.sum(1, keepdim=True)
        return -(share * F.log_softmax(logits, dim=1)).sum(1).mean()
