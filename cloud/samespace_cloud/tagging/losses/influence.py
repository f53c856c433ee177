"""The old tagger's last layer, frozen, on the new embedding (BCT, Shen et al. 2020, equation 4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.losses._base import labelled_mean
from samespace_cloud.tagging.losses._base import Answers, Term, TermContext
from samespace_edge import ConfigError


class Influence(Term):
    """Cross-entropy of the old tagger's last layer, as it is, on the new embedding.

    A wider embedding is seen by its leading coordinates, a narrower one through a linear map that
    is learnt with it and then dropped. Pictures of classes that the old tagger does not have are
    left out; classes that the new one does not have stay as alternatives.
    """

    taught = False

    def __init__(self, context: TermContext) -> None:
        super().__init__(context)
        if context.old_head is None:
            raise ConfigError(
                "bct needs the old tagger's last layer; saved logits and ensembles have none. Use "
                "focal-kl or focal-logit"
            )
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", context.old_head.weight.detach().clone())
        self.register_buffer("bias", context.old_head.bias.detach().clone())
        self._width = self.weight.shape[1]
        narrower = context.width < self._width
        self.widen = nn.Linear(context.width, self._width) if narrower else nn.Identity()

    def forward(self, answers: Answers) -> Tensor:
        seen = self.widen(answers.embedding)[:, : self._width]
        label = self.old_place[answers.label]
        logits = F.linear(seen, self.weight, self.bias)
        per_picture = F.cross_entropy(logits, label.clamp_min(0), reduction="none")
        return labelled_mean(per_picture, label)
