"""Terms that keep a new tagger right where an old one is: one file each.

`samespace_cloud.tagging.methods` says which method uses which.
"""

from samespace_cloud.tagging.losses._base import Answers, Term, TermContext
from samespace_cloud.tagging.losses.focal_kl import FocalKL
from samespace_cloud.tagging.losses.focal_logit import FocalLogit
from samespace_cloud.tagging.losses.influence import Influence
from samespace_cloud.tagging.losses.ldi import LogitDifferenceInhibition
from samespace_cloud.tagging.losses.naive import Naive

__all__ = [
    "Answers",
    "FocalKL",
    "FocalLogit",
    "Influence",
    "LogitDifferenceInhibition",
    "Naive",
    "Term",
    "TermContext",
]
