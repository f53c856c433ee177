"""Softmax on cosines with a margin: CosFace (Wang et al. 2018) and ArcFace (Deng et al. 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.losses._base import Loss, LossContext, LossInputs, labelled_mean


def margin_logits(cosine: Tensor, label: Tensor, scale: float, margin: float, arc: bool) -> Tensor:
    """Logits (N, C) with the margin taken off the true class.

    CosFace: s (cos t - m). ArcFace: s cos(t + m), monotone as in the paper's appendix: where
    t + m would exceed pi, s (cos t - m sin m).

    Args:
        cosine: (N, C).
        label: (N,); rows with -1 stay as they are.
    """
    if margin == 0.0:
        return scale * cosine
    rows = torch.arange(len(cosine), device=cosine.device)
    known = label >= 0
    target = cosine[rows, label.clamp_min(0)]
    if arc:
        m = torch.tensor(margin, dtype=cosine.dtype, device=cosine.device)
        sine = torch.sqrt((1 - target.square()).clamp_min(1e-7))
        moved = target * torch.cos(m) - sine * torch.sin(m)
        moved = torch.where(target > -torch.cos(m), moved, target - m * torch.sin(m))
    else:
        moved = target - margin
    column = torch.where(known, moved, target)
    return scale * cosine.index_put((rows, label.clamp_min(0)), column)


class _MarginSoftmax(Loss):
    arc = False

    def __init__(self, context: LossContext) -> None:
        super().__init__(context)
        self.classifier = nn.Parameter(torch.randn(context.classes, context.dim) * 0.05)
        self._scale, self._margin = context.scale, context.margin

    def forward(self, inputs: LossInputs) -> Tensor:
        cosine = F.normalize(inputs.embedding) @ F.normalize(self.classifier).T
        logits = margin_logits(cosine, inputs.label, self._scale, self._margin, self.arc)
        per_picture = F.cross_entropy(logits, inputs.label.clamp_min(0), reduction="none")
        return labelled_mean(per_picture, inputs.label)


class CosFace(_MarginSoftmax):
    """A classifier of its own, with an additive margin on the cosine."""


class ArcFace(_MarginSoftmax):
    """A classifier of its own, with an additive margin on the angle."""

    arc = True
