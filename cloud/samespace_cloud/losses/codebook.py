"""The cloud's product quantiser as anchors (SSP, Wu et al. 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossContext, LossInputs, taught_of
from samespace_edge import ConfigError

_SCALE = 10.0


class Codebook(Loss):
    """KL( softmax(10 g_m.C_m) || softmax(10 q_m.C_m) ), averaged over the sub-vectors m.

    g_m and q_m are the pieces of the cloud's and the student's vectors, each of unit length, and
    C_m the unit centroids of piece m, learnt from the cloud's vectors without labels.
    """

    anchored = True
    taught = True

    def __init__(self, context: LossContext) -> None:
        super().__init__(context)
        if context.codebook is None:
            raise ConfigError("the codebook loss needs a cloud model's vectors to learn one from")
        self.codebook: Tensor
        self.register_buffer("codebook", F.normalize(context.codebook, dim=-1))

    def forward(self, inputs: LossInputs) -> Tensor:
        told = F.softmax(self._against(taught_of(inputs, "the codebook loss")), dim=-1)
        own = F.log_softmax(self._against(F.normalize(inputs.embedding)), dim=-1)
        pieces, rows = told.shape[:2]
        return F.kl_div(own, told, reduction="sum") / (pieces * rows)

    def _against(self, vectors: Tensor) -> Tensor:
        """Scaled cosines of each piece with its centroids: (N, D) -> (M, N, K)."""
        pieces = vectors.view(len(vectors), len(self.codebook), -1).transpose(0, 1)
        return _SCALE * torch.bmm(F.normalize(pieces, dim=-1), self.codebook.transpose(1, 2))
