"""More weight to what the old tagger has right (PCT, Yan et al. 2021, section 3.2, "naive")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.tagging.losses._base import Answers, Term


class Naive(Term):
    """Mean of 1[old right] * cross-entropy: with the training's own cross-entropy, a picture that
    the old tagger has right counts 1 + weight. Pictures of new classes count 1."""

    def forward(self, answers: Answers) -> Tensor:
        per_picture = F.cross_entropy(answers.logits, answers.label, reduction="none")
        return (self.old_right(answers) * per_picture).mean()
