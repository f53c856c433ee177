"""The cloud's class centroids with their spread (AsymVPR 2025; implicit augmentation, Wang et al.
2019): stands in for a cloud classifier where there is none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossContext, LossInputs, labelled_mean, taught_of
from samespace_edge import ConfigError

_TEMPERATURE = 0.05
_SPREAD = 15.0


class Centroids(Loss):
    """The cloud's vector of the picture against the other classes' centroids.

    -log [ e^(q.g/t) / (e^(q.g/t) + sum_j e^(q.c_j/t + (s / 2 t^2) q^T V_j q)) ]

    with q the student's unit vector, g the cloud's of the same view, c_j the mean of the cloud's
    vectors of another class, V_j their variance (diagonal), t = .05 and s = 15. The last term is
    what an exponential expects of vectors that scatter around c_j. Pictures without a label are
    left out.
    """

    anchored = True
    taught = True

    def __init__(self, context: LossContext) -> None:
        super().__init__(context)
        if context.centroids is None or context.variances is None:
            raise ConfigError(
                "the centroids loss needs labelled pictures, to take the cloud's class centroids of"
            )
        self.centroids: Tensor
        self.variances: Tensor
        self.register_buffer("centroids", context.centroids)
        self.register_buffer("variances", context.variances)

    def forward(self, inputs: LossInputs) -> Tensor:
        taught = taught_of(inputs, "the centroids loss")
        q = F.normalize(inputs.embedding)
        own = (q * taught).sum(1, keepdim=True) / _TEMPERATURE
        spread = _SPREAD / (2 * _TEMPERATURE**2) * (q.square() @ self.variances.T)
        others = q @ self.centroids.T / _TEMPERATURE + spread
        same = torch.arange(others.shape[1], device=others.device) == inputs.label[:, None]
        logits = torch.cat([own, others.masked_fill(same, -torch.inf)], dim=1)
        return labelled_mean(torch.logsumexp(logits, dim=1) - own[:, 0], inputs.label)
