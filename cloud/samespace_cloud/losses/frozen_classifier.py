"""The influence loss: the cloud's classifier, frozen, on the edge embedding (BCT, Shen et al.
2020, equation 4; HVS, Duggal et al. 2021, section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.losses._base import Loss, LossContext, LossInputs, labelled_mean
from samespace_cloud.losses.margin_softmax import margin_logits
from samespace_edge import ConfigError


class FrozenClassifier(Loss):
    """Softmax on the cosines with the cloud classifier's directions."""

    anchored = True

    def __init__(self, context: LossContext) -> None:
        super().__init__(context)
        if context.cloud_classifier is None:
            raise ConfigError(
                "the frozen-classifier loss needs the cloud model's classifier for the training "
                "labels; use cosine regression, which needs none"
            )
        self.classifier: Tensor
        self.register_buffer("classifier", F.normalize(context.cloud_classifier))
        self._scale, self._margin = context.scale, context.margin

    def forward(self, inputs: LossInputs) -> Tensor:
        cosine = F.normalize(inputs.embedding) @ self.classifier.T
        logits = margin_logits(cosine, inputs.label, self._scale, self._margin, arc=False)
        per_picture = F.cross_entropy(logits, inputs.label.clamp_min(0), reduction="none")
        return labelled_mean(per_picture, inputs.label)
