"""The table of methods. A new one is one row here and, for a new term, one file in `losses/`.

| name | what is added to the cross-entropy | held to | source |
| --- | --- | --- | --- |
| none | nothing | | |
| naive | weight to pictures that the old tagger has right | old answers | PCT, Yan et al. 2021 |
| focal-kl | distance of softened probabilities, more where the old is right | old logits | PCT |
| focal-logit | distance of logits, more where the old is right | old logits | PCT |
| ldi | large differences of the leading logits | old logits | ELODI, Zhao et al. 2022 |
| elodi | the same, to an ensemble of the new architecture | that ensemble | ELODI |
| bct | the old last layer, frozen, on the new embedding | old weights | BCT, Shen et al. 2020 |
| ensemble | nothing; the logits of several taggers are averaged | | PCT, the paragon |

What happens to pictures of classes that the old tagger does not have: their cross-entropy is that
of any other picture, and

| name | besides |
| --- | --- |
| naive, bct | nothing |
| focal-kl, focal-logit | their logits of the old classes are held, with weight alpha |
| ldi | their logits of the old classes are held as those of any other picture |
| elodi | held to the ensemble, which knows the new classes |

The authors' code of the focal methods leaves pictures of new classes out of the distillation.
"""

from __future__ import annotations

from dataclasses import dataclass

from samespace_cloud.tagging.losses import (
    FocalKL,
    FocalLogit,
    Influence,
    LogitDifferenceInhibition,
    Naive,
    Term,
)
from samespace_edge import ConfigError


@dataclass(frozen=True)
class Method:
    """A way to update a tagger.

    Attributes:
        term: what is added to the cross-entropy; None for nothing.
        settings: the fields of `UpdateConfig` that it reads.
    """

    term: type[Term] | None
    settings: tuple[str, ...]

    @property
    def members(self) -> bool:
        """Whether it trains an ensemble: to be held to it or, without a term, to be it."""
        return "members" in self.settings


_LDI = ("weight", "margin", "power", "top_k", "skip_truth")

METHODS: dict[str, Method] = {
    "bct": Method(Influence, ("weight",)),
    "elodi": Method(LogitDifferenceInhibition, (*_LDI, "members")),
    "ensemble": Method(None, ("members",)),
    "focal-kl": Method(FocalKL, ("weight", "alpha", "beta", "temperature")),
    "focal-logit": Method(FocalLogit, ("weight", "alpha", "beta")),
    "ldi": Method(LogitDifferenceInhibition, _LDI),
    "naive": Method(Naive, ("weight",)),
    "none": Method(None, ()),
}


def find_method(name: str) -> Method:
    """The row called `name`; raises `ConfigError` with the known names."""
    if name not in METHODS:
        known = ", ".join(sorted(METHODS))
        raise ConfigError(f"there is no method {name!r} to update a tagger; choose from: {known}")
    return METHODS[name]
