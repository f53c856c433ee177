"""Focal distillation of logits (FD-LM; PCT, Yan et al. 2021, section 3.2)."""

from __future__ import annotations

from torch import Tensor

from samespace_cloud.tagging.losses._base import FocalTerm


class FocalLogit(FocalTerm):
    """D = 1/2 ||z_new - z_old||^2, summed over the shared classes.

    The sum and the 1/2 are the paper's. Another implementation (MPT) takes the mean over the
    classes, and the authors' example weighs the term by 9 (see `UpdateConfig`).

    A picture of a new class counts alpha: its logits of the old classes are drawn to what the old
    tagger says, and its logit of the new class is free.
    """

    def distance(self, new: Tensor, old: Tensor) -> Tensor:
        return (new - old).square().sum(1) / 2
