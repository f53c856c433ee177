"""Against negative flips: a new vector is nearer to its old one than to any other label's, old or
new (RACT: Zhang et al., "Hot-Refresh Model Upgrades", ICLR 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossContext, LossInputs, taught_of


class RegressionAlleviating(Loss):
    """-log [ e^(n.o/t) / (e^(n.o/t) + sum_k (e^(n.o_k/t) + e^(n.n_k/t))) ], mean over the batch.

    n and o are the student's and the cloud's unit vectors of the same view, k runs over the
    pictures of the batch with another label, and t is the context's temperature. While an old
    gallery is embedded again, a query meets vectors of both models: a picture of another label
    that is embedded anew must not come before one of its own that is not yet. A picture without a
    label has all the others against it.
    """

    anchored = True
    taught = True

    def __init__(self, context: LossContext) -> None:
        super().__init__(context)
        self._temperature = context.temperature

    def forward(self, inputs: LossInputs) -> Tensor:
        taught = taught_of(inputs, "the regression-alleviating loss")
        new, label = F.normalize(inputs.embedding), inputs.label
        same = (label[:, None] == label[None, :]) & (label >= 0)[:, None]
        same = same | torch.eye(len(label), dtype=torch.bool, device=label.device)
        own = (new * taught).sum(1, keepdim=True)
        others = [(new @ x.T).masked_fill(same, -torch.inf) for x in (taught, new)]
        logits = torch.cat([own, *others], dim=1) / self._temperature
        return (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()
