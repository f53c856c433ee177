"""What two models' words together say of the right answer.

After Träuble et al. 2021 (NeurIPS): the posterior over classes given every model's answer, with
confusion matrices as likelihoods. Where a model tells probabilities or scores, these take part,
after a temperature (Guo et al. 2017) or Platt's scaling. As two models err on the same pictures,
the product of their likelihoods is too sure of itself, and may trust the worse one too much: each
gets an exponent, the likeliest on the validation pair (a logarithmic opinion pool: Heskes 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samespace.regressions._evidence import (
    Answers,
    Doubles,
    Evidence,
    Probabilities,
    Scores,
    fit_weights,
    log_softmax,
    positions,
)
from samespace.regressions._pair import Pair
from samespace.regressions._predictions import Predictions


@dataclass(frozen=True)
class Beliefs:
    """Posteriors over the C classes.

    Attributes:
        place: position of every class.
        prior: (C,): of the classes.
        old, new: what either model's word is worth.
        exponents: (2,): of either's likelihood where both are known, 0 to 1.
    """

    place: dict[str, int]
    prior: Doubles
    old: Evidence
    new: Evidence
    exponents: Doubles

    def before(self, both: Pair) -> Doubles:
        """(N, C): P(class | the old model's word)."""
        return np.asarray(np.exp(log_softmax(np.log(self.prior) + self.old(both.old))))

    def after(self, both: Pair) -> Doubles:
        """(N, C): P(class | both models' word)."""
        old, new = self.exponents
        logs = np.log(self.prior) + old * self.old(both.old) + new * self.new(both.new)
        return np.asarray(np.exp(log_softmax(logs)))


def learn(validation: Pair, target: Pair) -> Beliefs:
    """Beliefs learnt from a labelled pair, for the answers of another.

    Of each model what it tells in both is used: probabilities of every class there is, or else
    scores, or else its answers.
    """
    place = {name: i for i, name in enumerate(_classes(validation, target))}
    truth = positions(place, validation.labels)
    counts = np.bincount(truth, minlength=len(place))
    prior = (counts + 1) / (len(truth) + len(place))
    old = _evidence(validation.old, target.old, truth, place, prior)
    new = _evidence(validation.new, target.new, truth, place, prior)
    words = [old(validation.old, truth), new(validation.new, truth)]
    exponents = fit_weights(words, truth, [0, 0], [1, 1], np.log(prior))
    return Beliefs(place, prior, old, new, exponents)


def _classes(validation: Pair, target: Pair) -> list[str]:
    """Every class that is a label or an answer, or that a model is said to know."""
    found = set(validation.labels.tolist())
    for p in (validation.old, validation.new, target.old, target.new):
        found |= set(p.predicted.tolist()) | set(p.classes or ())
    return sorted(found)


def _evidence(
    known: Predictions,
    target: Predictions,
    truth: NDArray[np.int64],
    place: dict[str, int],
    prior: Doubles,
) -> Evidence:
    """What a model's word is worth, learnt from `known`, for the use on `target`."""
    both = (known, target)
    if all(p.probabilities is not None and set(p.classes or ()) >= set(place) for p in both):
        return Probabilities.learn(known, truth, place, prior)
    if all(p.scores is not None for p in both):
        return Scores.learn(known, truth, place, prior)
    return Answers.learn(known, truth, place)
