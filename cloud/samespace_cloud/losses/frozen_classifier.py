"""The influence loss: the cloud's classifier, frozen, on the edge embedding, or the old model's on
the new one (BCT, Shen et al. 2020, equation 4; HVS, Duggal et al. 2021, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossContext, LossInputs, labelled_mean
from samespace_cloud.losses.margin_softmax import margin_logits
from samespace_edge import ConfigError


class FrozenClassifier(Loss):
    """Softmax on the cosines with the cloud classifier's directions.

    Rows for labels that the training does not have are there to be kept away from. Labels without
    a row are left out, as pictures and as alternatives.
    """

    anchored = True

    def __init__(self, context: LossContext) -> None:
        super().__init__(context)
        if context.cloud_classifier is None:
            raise ConfigError(
                "the frozen-classifier loss needs the cloud model's classifier for the training "
                "labels; use cosine regression, which needs none"
            )
        rows = context.cloud_classifier
        known = rows.any(dim=1)
        place = torch.where(known, known.cumsum(0) - 1, -1)
        rows = rows[known]
        if context.other_classes is not None:
            rows = torch.cat([rows, context.other_classes])
        self.classifier: Tensor
        self.place: Tensor
        self.register_buffer("classifier", F.normalize(rows))
        # Not part of the state: it follows from the labels.
        self.register_buffer("place", place, persistent=False)
        self._scale, self._margin = context.scale, context.margin

    def forward(self, inputs: LossInputs) -> Tensor:
        cosine = F.normalize(inputs.embedding) @ self.classifier.T
        label = torch.where(inputs.label >= 0, self.place[inputs.label.clamp_min(0)], -1)
        logits = margin_logits(cosine, label, self._scale, self._margin, arc=False)
        per_picture = F.cross_entropy(logits, label.clamp_min(0), reduction="none")
        return labelled_mean(per_picture, label)
