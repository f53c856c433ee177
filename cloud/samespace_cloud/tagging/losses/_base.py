"""The interface that every term of an update has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from samespace_cloud.tagging.classes import SharedClasses
from samespace_edge import ConfigError

if TYPE_CHECKING:
    from samespace_cloud.tagging.update_config import UpdateConfig


@dataclass(frozen=True)
class Answers:
    """What a term may look at.

    Attributes:
        logits: the new tagger's, float (N, C).
        embedding: what its last layer sees, float (N, F).
        label: int64 (N,), positions in the new tagger's classes.
        old: logits of the tagger that it is held to, float (N, C_old), of the same views or, where
            only saved logits are there, of the pictures as they are; None without one.
    """

    logits: Tensor
    embedding: Tensor
    label: Tensor
    old: Tensor | None = None


@dataclass(frozen=True)
class TermContext:
    """What a term may be built from.

    Attributes:
        settings: alpha, beta and all that.
        shared: which classes the two taggers have in common.
        width: of the new tagger's embedding.
        old_head: the old tagger's last layer; None where there are only its logits.
    """

    settings: UpdateConfig
    shared: SharedClasses
    width: int
    old_head: nn.Linear | None = None


class Term(nn.Module):
    """What is added to the cross-entropy of an update; `forward` takes `Answers` and returns a
    scalar, the mean over the pictures of the batch.

    Only the classes that both taggers have are compared.

    Attributes:
        taught: whether it looks at the other tagger's logits.
    """

    taught: ClassVar[bool] = True

    def __init__(self, context: TermContext) -> None:
        super().__init__()
        self.in_old: Tensor
        self.in_new: Tensor
        self.old_place: Tensor
        # Not part of the state: they follow from the classes.
        for name in ("in_old", "in_new", "old_place"):
            self.register_buffer(name, getattr(context.shared, name), persistent=False)

    def forward(self, answers: Answers) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def pair(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """New and old logits (N, K) of the shared classes."""
        return answers.logits[:, self.in_new], self._old(answers)[:, self.in_old]

    def old_right(self, answers: Answers) -> Tensor:
        """1[old right], float (N,): whether the old tagger's answer, among all of its classes, is
        the label. It never is for a class that it does not have."""
        answered = self._old(answers).argmax(1)
        return (answered == self.old_place[answers.label]).to(answers.logits.dtype)

    def _old(self, answers: Answers) -> Tensor:
        if answers.old is None:
            raise ConfigError(f"{type(self).__name__} needs the old tagger's logits")
        return answers.old.detach()


class FocalTerm(Term):
    """Mean of F(x) D(x): a distance, weighted by F(x) = alpha + beta * 1[old right] (PCT, Yan et
    al. 2021, section 3.2)."""

    def __init__(self, context: TermContext) -> None:
        super().__init__(context)
        self._alpha, self._beta = context.settings.alpha, context.settings.beta

    def forward(self, answers: Answers) -> Tensor:
        weight = self._alpha + self._beta * self.old_right(answers)
        return (weight * self.distance(*self.pair(answers))).mean()

    def distance(self, new: Tensor, old: Tensor) -> Tensor:
        """D(x), (N,), of logits (N, K)."""
        raise NotImplementedError(f"{type(self).__name__} defines no distance")
