"""Logit difference inhibition (LDI; ELODI, Zhao et al. 2022, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from samespace_cloud.tagging.losses._base import Answers, Term, TermContext


class LogitDifferenceInhibition(Term):
    """Mean over pictures and over k CLASSES of each of max(0, |z_new - z_ref| - margin)^power.

    The classes are the `top_k` of the shared ones with the picture's largest reference logits; with
    `skip_truth` its own class is not among them. Differences below the margin cost nothing.

    With `ldi` the reference is the old tagger, with `elodi` the mean of an ensemble of the new
    architecture, trained on the new data: single taggers that each follow such an ensemble turn
    each other's answers over as seldom as the ensembles do, and need no old tagger for it.

    Departures from the authors' code (amazon-science/regression-constraint-model-upgrade): the
    classes are chosen by the reference's logits, which do not move, where the original chooses by
    the new tagger's. By default `elodi` has 4 members, a margin of 0, and counts the picture's own
    class, where the original has 8 members, a margin of 0 to 0.2, and leaves that class out
    (`members`, `margin`, `skip_truth`). On the weight see `UpdateConfig`.

    Every picture counts alike. One of a new class is held, with `ldi`, to the old tagger's logits
    of the old classes; its logit of the new class is free.
    """

    def __init__(self, context: TermContext) -> None:
        super().__init__(context)
        settings = context.settings
        self._margin, self._power = settings.allowance, settings.power
        self._skip = settings.skip_truth
        self._k = min(settings.top_k, len(context.shared) - self._skip)

    def forward(self, answers: Answers) -> Tensor:
        new, ref = self.pair(answers)
        ranked = ref
        if self._skip:
            own = self.in_new == answers.label[:, None]
            ranked = ref.masked_fill(own, -torch.inf)
        chosen = ranked.topk(self._k, dim=1).indices
        excess = ((new - ref).gather(1, chosen).abs() - self._margin).clamp_min(0)
        return excess.pow(self._power).mean()
