"""Rank the cloud's anchors as the cloud does (CSD, Wu et al. 2022, on anchors of our own)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossContext, LossInputs, taught_of
from samespace_edge import ConfigError


class RankingDistillation(Loss):
    """KL( softmax(s t.A) || softmax(s e.A) ), with A the anchors: vectors of the cloud's space.

    The anchors are the centres of the training labels and, where the training is gallery-aware,
    the gallery's own vectors: the very things that a query will be ranked against.
    """

    anchored = True
    taught = True

    def __init__(self, context: LossContext) -> None:
        super().__init__(context)
        if context.anchors is None:
            raise ConfigError("ranking distillation needs a cloud model's anchors to rank")
        self.anchors: Tensor
        self.register_buffer("anchors", F.normalize(context.anchors))
        self._scale = context.anchor_scale

    def forward(self, inputs: LossInputs) -> Tensor:
        taught = taught_of(inputs, "ranking distillation")
        told = F.log_softmax(self._scale * taught @ self.anchors.T, dim=1)
        own = F.log_softmax(self._scale * F.normalize(inputs.embedding) @ self.anchors.T, dim=1)
        # Of logarithms of both: torch needs many times as long for those of probabilities.
        return F.kl_div(own, told, reduction="batchmean", log_target=True)
