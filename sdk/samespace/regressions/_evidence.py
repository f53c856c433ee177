"""What one model's word says of every class, learnt from pictures whose labels are known.

Three ways, by what the model tells: its answers, its answers with scores, its probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from samespace.regressions._predictions import Predictions

Doubles: TypeAlias = NDArray[np.float64]
Truth: TypeAlias = NDArray[np.int64] | None

SMOOTHINGS = tuple(4.0**power for power in range(7))
"""As how many pictures, of a class or with an answer, a Dirichlet prior may count."""

_LEAST = 1e-12
_SHARPEST, _FLATTEST = 20.0, 0.05
_STEPS = 40
_CLOSE = 1e-9


class Evidence(Protocol):
    """What one model's word says of every class."""

    def __call__(self, predictions: Predictions, truth: Truth = None) -> Doubles:
        """Log of likelihoods (N, C), up to a factor of the row.

        With `truth` (N,) the rows are those it was learnt from: each is left out of its count.
        """


Learnt = TypeVar("Learnt", bound=Evidence)


@dataclass(frozen=True)
class Answers:
    """Of answers alone, by the confusion matrix (Träuble et al. 2021).

    Attributes:
        place: position of every class.
        counts: (C, C): how often class i was answered by j.
        mean: (C, C): of the prior: as often right as over all classes, and else anything alike.
        smoothing: as how many pictures of a class the prior counts.
    """

    place: dict[str, int]
    counts: Doubles
    mean: Doubles
    smoothing: float

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
        return likeliest([cls(place, counts, mean, s) for s in SMOOTHINGS], predictions, truth)

    def __call__(self, predictions: Predictions, truth: Truth = None) -> Doubles:
        """Log of P(answer | class), (N, C)."""
        answers = positions(self.place, predictions.predicted)
        counts = self.counts[:, answers].T
        totals = np.broadcast_to(self.counts.sum(1), counts.shape)
        if truth is not None:
            own = np.zeros(counts.shape)
            own[np.arange(len(truth)), truth] = 1
            counts, totals = counts - own, totals - own
        prior = self.smoothing * self.mean[:, answers].T
        shares = (counts + prior) / (totals + self.smoothing)
        return np.asarray(np.log(shares))


@dataclass(frozen=True)
class Scores:
    """Of answers and how sure they are; the rest of the belief goes where wrong answers come from.

    Attributes:
        place: position of every class.
        wrong: (C, C): how often class i was wrongly answered by j.
        prior: (C,): of the classes.
        slope, offset: of the log-odds of a right answer, by those of its score.
        smoothing: as how many wrong pictures with an answer the prior counts.
    """

    place: dict[str, int]
    wrong: Doubles
    prior: Doubles
    slope: float
    offset: float
    smoothing: float

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
        right = positions(place, predictions.predicted) == truth
        sure = fit_sure(_log_odds(predictions), right)
        candidates = [cls(place, counts, prior, *sure, s) for s in SMOOTHINGS]
        return likeliest(candidates, predictions, truth)

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
        seen = wrong.sum(1, keepdims=True)
        shares = (wrong + self.smoothing * others) / (seen + self.smoothing)
        sure = 1 / (1 + np.exp(-self.slope * _log_odds(predictions) - self.offset))
        shares *= 1 - sure[:, None]
        shares[rows, answers] = sure
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


def likeliest(
    candidates: Sequence[Learnt], predictions: Predictions, truth: NDArray[np.int64]
) -> Learnt:
    """The one that says most of the true classes (N,), each picture left out of its own count.

    A fixed smoothing fits few classes only: it is spread over all of them, and what was confused
    once by chance then counts as much more than what never was, the more the more there are.
    """
    rows = np.arange(len(truth))
    return max(candidates, key=lambda one: float(one(predictions, truth)[rows, truth].sum()))


def fit_sharpness(logs: Doubles, truth: NDArray[np.int64]) -> float:
    """The factor of logs (N, C) by which softmax is likeliest to give `truth` (N,), 0.05 to 20.

    One over the temperature of Guo et al. 2017, section 4.2.
    """
    return float(fit_weights([logs], truth, [_FLATTEST], [_SHARPEST])[0])


def fit_sure(x: Doubles, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope, at least 0, and offset that make log-odds x (N,) those of a right answer (Platt 1999).

    A temperature has no offset, so it cannot say that fewer than half of the sure answers are
    right, as they are where a model lacks classes. One right and one wrong answer of mean odds are
    added, so nothing is certain.
    """
    x = np.append(x, [x.mean()] * 2)
    wrong = np.zeros(len(x))
    features = [np.stack([wrong, x], 1), np.stack([wrong, np.ones(len(x))], 1)]
    truth = np.append(right, [True, False]).astype(np.int64)
    slope, offset = fit_weights(features, truth, [0, -_SHARPEST], [_SHARPEST, _SHARPEST]).tolist()
    return slope, offset


def fit_weights(
    features: Sequence[Doubles],
    truth: NDArray[np.int64],
    low: Sequence[float],
    high: Sequence[float],
    base: Doubles | float = 0.0,
) -> Doubles:
    """Weights (K,) of K features (N, C) by which softmax is likeliest to give `truth` (N,).

    Args:
        low, high: bounds of every weight.
        base: added to the weighted features, (N, C) or (C,).

    The likelihood is concave in them: Newton's steps, kept inside the bounds.
    """
    rows = np.arange(len(truth))
    least, most = np.array(low, np.float64), np.array(high, np.float64)

    def logs_at(weights: Doubles) -> Doubles:
        return log_softmax(base + sum(w * f for w, f in zip(weights, features, strict=True)))

    weights = np.clip(np.ones(len(features)), least, most)
    logs = logs_at(weights)
    for _ in range(_STEPS):
        p = np.exp(logs)
        shared = [p * f for f in features]
        means = np.array([x.sum(1) for x in shared])
        gradient = np.array([f[rows, truth].sum() for f in features]) - means.sum(1)
        squares = [[np.vdot(x, f) for f in features] for x in shared]
        curvature = np.array(squares) - means @ means.T
        down, up = weights > least, weights < most
        free = np.flatnonzero((down | (gradient > 0)) & (up | (gradient < 0)))
        step = np.zeros(len(weights))
        ridge = 1e-9 * np.trace(curvature) + 1e-300
        inner = curvature[np.ix_(free, free)] + ridge * np.eye(len(free))
        step[free] = np.linalg.solve(inner, gradient[free])
        for _ in range(_STEPS):
            moved = np.clip(weights + step, least, most)
            after = logs_at(moved)
            if after[rows, truth].sum() >= logs[rows, truth].sum():
                break
            step /= 2
        done = np.abs(moved - weights).max() < _CLOSE
        weights, logs = moved, after
        if done:
            break
    return weights


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


def _log_odds(predictions: Predictions) -> Doubles:
    """(N,): of the scores."""
    assert predictions.scores is not None
    scores = np.clip(predictions.scores, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(scores) - np.log1p(-scores))


def _log_probabilities(predictions: Predictions, classes: Sequence[str]) -> Doubles:
    """(N, C), in the order of `classes`, of probabilities of at least 1e-12."""
    assert predictions.probabilities is not None
    assert predictions.classes is not None
    place = {name: i for i, name in enumerate(predictions.classes)}
    columns = predictions.probabilities[:, [place[name] for name in classes]]
    return np.asarray(np.log(np.maximum(columns.astype(np.float64), _LEAST)))
