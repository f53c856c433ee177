"""Focal distillation of probabilities (FD-KL; PCT, Yan et al. 2021, section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.tagging.losses._base import FocalTerm, TermContext


class FocalKL(FocalTerm):
    """D = tau^2 * KL( softmax(z_new / tau) || softmax(z_old / tau) ).

    For a large tau this comes near to ||c||^2 / (2 K), with c the difference of the logits less its
    mean over the K shared classes: without tau^2, which the authors' code has and the paper does
    not print, the default tau of 100 would leave next to nothing of it. For such a tau the
    divergence the other way round is the same to that order.

    A picture of a new class counts alpha: what the old tagger says of it, among the old classes.
    """

    def __init__(self, context: TermContext) -> None:
        super().__init__(context)
        self._tau = context.settings.temperature

    def distance(self, new: Tensor, old: Tensor) -> Tensor:
        own = F.log_softmax(new / self._tau, dim=1)
        told = F.log_softmax(old / self._tau, dim=1)
        return (own.exp() * (own - told)).sum(1) * self._tau**2
