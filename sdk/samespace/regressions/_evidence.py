"""What one model's word says of every class, learnt from pictures whose labels are known.

Three ways, by what the model tells: its answers, its answers with scores, its probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from samespace.regressions._predictions import Predictions

Doubles: TypeAlias = NDArray[np.float64]
Truth: TypeAlias = NDArray[np.int64] | None

SMOOTHING = 5.0
"""As how many pictures, of a class or with an answer, the Dirichlet prior counts."""

_LEAST = 1e-12
_SHARPEST, _FLATTEST = 20.0, 0.05
_STEPS = 40


class Evidence(Protocol):
    """What one model's word says of every class."""

    def __call__(self, predictions: Predictions, truth: Truth = None) -> Doubles:
        """Log of likelihoods (N, C), up to a factor of the row.

        With `truth` (N,) the rows are those it was learnt from: each is left out of its count.
        """


@dataclass(frozen=True)
class Answers:
    """Of answers alone, by the confusion matrix (Träuble et al. 2021).

    Attributes:
        place: position of every class.
        counts: (C, C): how often class i was answered by j.
        mean: (C, C): of the prior: as often right as over all classes, and else anything alike.
    """

    place: dict[str, int]
    counts: Doubles
    mean: Doubles

    @classmethod
    def learn(
        cls, predictions: Predictions, truth: NDArray[np.int64], place: dict[str, int]
    ) -> Answers:
        """From predictions and the positions (N,) of their labels."""
        counts = confusion(predictions, truth, place)
        can = np.ones(len(place), np.bool_)
        if predictions.classes is not None:
            can = np.isin(list(place), predictions.classes)
        right = (np.trace(counts) + 1) / (counts[can].sum() + 2)
        mean = np.full(counts.shape, (1 - right) / max(1, len(place) - 1))
        np.fill_diagonal(mean, right)
        mean[~can] = 1 / len(place)  # what it cannot answer, it calls anything
        return cls(place, counts, mean)

    def __call__(self, predictions: Predictions, truth: Truth = None) -> Doubles:
        """Log of P(answer | class), (N, C)."""
        answers = positions(self.place, predictions.predicted)
        counts = self.counts[:, answers].T
        totals = np.broadcast_to(self.counts.sum(1), counts.shape)
        if truth is not None:
            own = np.zeros(counts.shape)
            own[np.arange(len(truth)), truth] = 1
            counts, totals = counts - own, totals - own
        shares = (counts + SMOOTHING * self.mean[:, answers].T) / (totals + SMOOTHING)
        return np.asarray(np.log(shares))


@dataclass(frozen=True)
class Scores:
    """Of answers and how sure they are; the rest of the belief goes where wrong answers come from.

    Attributes:
        place: position of every class.
        wrong: (C, C): how often class i was wrongly answered by j.
        prior: (C,): of the classes.
        sharpness: one over the temperature of the scores.
    """

    place: dict[str, int]
    wrong: Doubles
    prior: Doubles
    sharpness: float

    @classmethod
    def learn(
        cls,
        predictions: Predictions,
        truth: NDArray[np.int64],
        place: dict[str, int],
        prior: Doubles,
    ) -> Scores:
        """From predictions and the positions (N,) of their labels."""
        counts = confusion(predictions, truth, place)
        np.fill_diagonal(counts, 0)
        failed = (positions(place, predictions.predicted) != truth).astype(np.int64)
        return cls(place, counts, prior, fit_sharpness(_two_sided(predictions), failed))

    def __call__(self, predictions: Predictions, truth: Truth = None) -> Doubles:
        """Log of P(class | answer, score) / P(class), (N, C)."""
        answers = positions(self.place, predictions.predicted)
        rows = np.arange(len(answers))
        wrong = self.wrong[:, answers].T
        if truth is not None:
            own = np.zeros(wrong.shape)
            own[rows, truth] = truth != answers
            wrong = wrong - own
        others = np.tile(self.prior, (len(answers), 1))
        others[rows, answers] = 0
        others /= np.maximum(others.sum(1, keepdims=True), _LEAST)
        shares = (wrong + SMOOTHING * others) / (wrong.sum(1, keepdims=True) + SMOOTHING)
        sure = np.exp(log_softmax(self.sharpness * _two_sided(predictions)))
        shares *= sure[:, 1:]
        shares[rows, answers] = sure[:, 0]
        return np.asarray(np.log(np.maximum(shares, _LEAST)) - np.log(self.prior))


@dataclass(frozen=True)
class Probabilities:
    """Of probabilities of every class.

    Attributes:
        place: position of every class.
        prior: (C,): of the classes, which is divided out again.
        sharpness: one over the temperature.
    """

    place: dict[str, int]
    prior: Doubles
    sharpness: float

    @classmethod
    def learn(
        cls,
        predictions: Predictions,
        truth: NDArray[np.int64],
        place: dict[str, int],
        prior: Doubles,
    ) -> Probabilities:
        """From predictions and the positions (N,) of their labels."""
        logs = _log_probabilities(predictions, list(place))
        return cls(place, prior, fit_sharpness(logs, truth))

    def __call__(self, predictions: Predictions, truth: Truth = None) -> Doubles:
        """Log of P(class | picture) / P(class), (N, C)."""
        logs = _log_probabilities(predictions, list(self.place))
        return log_softmax(self.sharpness * logs) - np.log(self.prior)


def fit_sharpness(logs: Doubles, truth: NDArray[np.int64]) -> float:
    """The factor of logs (N, C) by which softmax is likeliest to give `truth` (N,), 0.05 to 20.

    One over the temperature of Guo et al. 2017, section 4.2. The likelihood is concave in it, so
    its derivative is bisected.
    """
    given = logs[np.arange(len(truth)), truth]
    low, high = _FLATTEST, _SHARPEST
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        expected = np.einsum("nc,nc->n", np.exp(log_softmax(middle * logs)), logs)
        low, high = (middle, high) if given.mean() > expected.mean() else (low, middle)
    return float(np.sqrt(low * high))


def log_softmax(logs: Doubles) -> Doubles:
    """Rows (N, C) whose exponentials sum to 1."""
    shifted = logs - logs.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def positions(place: dict[str, int], names: NDArray[np.str_]) -> NDArray[np.int64]:
    """Where names (N,) are."""
    return np.array([place[name] for name in names.tolist()], np.int64)


def confusion(predictions: Predictions, truth: NDArray[np.int64], place: dict[str, int]) -> Doubles:
    """(C, C): how often class i was answered by j."""
    counts = np.zeros((len(place), len(place)))
    np.add.at(counts, (truth, positions(place, predictions.predicted)), 1)
    return counts


def _two_sided(predictions: Predictions) -> Doubles:
    """(N, 2): log of the score, and of what it leaves."""
    assert predictions.scores is not None
    scores = np.clip(predictions.scores, _LEAST, 1 - _LEAST)
    return np.stack([np.log(scores), np.log1p(-scores)], 1)


def _log_probabilities(predictions: Predictions, classes: Sequence[str]) -> Doubles:
    """(N, C), in the order of `classes`, of probabilities of at least 1e-12."""
    assert predictions.probabilities is not None
    assert predictions.classes is not None
    place = {name: i for i, name in enumerate(predictions.classes)}
    columns = predictions.probabilities[:, [place[name] for name in classes]]
    return np.asarray(np.log(np.maximum(columns.astype(np.float64), _LEAST)))
