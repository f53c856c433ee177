"""Which old answers to replace by a new model's, without training anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.regressions._beliefs import Beliefs, learn
from samespace.regressions._checks import some
from samespace.regressions._evidence import Doubles, positions
from samespace.regressions._pair import Pair, pair
from samespace.regressions._predictions import Predictions
from samespace_edge import ConfigError, DataError

STRATEGIES = ("cost-ratio", "max-belief", "min-entropy")
"""How `choose` decides."""

_FIGURES_AT_ONCE = 2_000_000


@dataclass(frozen=True, repr=False)
class Update:
    """What `choose` chose.

    Attributes:
        predictions: of every picture the old or the new answer, scored by the belief that it is
            right; labels and columns as they were given.
        differing: how many answers differ between the two models.
        replaced: ids of those that are now the new model's.
        expected_negative, expected_positive: how many of these are expected to have turned wrong,
            and right.
        always_negative, always_positive: the same if every differing answer were replaced.
        strategy, cost_ratio: by which it was decided.
    """

    predictions: Predictions
    differing: int
    replaced: tuple[str, ...]
    expected_negative: float
    expected_positive: float
    always_negative: float
    always_positive: float
    strategy: str
    cost_ratio: float

    def __repr__(self) -> str:
        return (
            f"Update({len(self.replaced)} of {self.differing} differing answers replaced, expected "
            f"flips -{self.expected_negative:.1f} +{self.expected_positive:.1f}, of all "
            f"-{self.always_negative:.1f} +{self.always_positive:.1f})"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the predictions."""
        return {name: value for name, value in vars(self).items() if name != "predictions"}


@dataclass(frozen=True)
class _Believed:
    """(N,) each: belief in the old and the new answer, and entropy before and after the new one."""

    old: Doubles
    new: Doubles
    entropy_before: Doubles
    entropy_after: Doubles


def choose(
    old: Predictions,
    new: Predictions,
    validation: tuple[Predictions, Predictions],
    *,
    strategy: str = "cost-ratio",
    cost_ratio: float = 1.0,
    max_replaced: int | None = None,
    max_negative_flips: float | None = None,
) -> Update:
    """For every picture keep the old answer or take the new one (Träuble et al. 2021).

    What either model's answer is worth is learnt from `validation`: the old and the new model's
    predictions of other pictures, with labels, of the same kind as these. `old` and `new` need no
    labels, and none are looked at.

    Args:
        strategy: what has to hold for the new answer to be taken. `cost-ratio`: the belief in it
            is more than `cost_ratio` times that in the old one. `max-belief`: it is larger.
            `min-entropy`: it is larger, and both answers together leave less doubt (entropy) than
            the old one alone.
        cost_ratio: what a right answer that turns wrong costs, over what a wrong one that turns
            right brings; only for `cost-ratio`. 1 aims at the fewest errors, more at fewer flips.
        max_replaced: replace at most so many answers.
        max_negative_flips: replace only while so many are expected to turn wrong.

    With a budget those go first that bring most: new belief less `cost_ratio` times old belief;
    where negative flips are limited, for each of these that is expected.

    Raises `ConfigError` for settings that cannot be, `DataError` where predictions do not fit, and
    where `validation` has some of the pictures that are to be decided.
    """
    _check(strategy, cost_ratio, max_replaced, max_negative_flips)
    target, known = pair(old, new), pair(*validation)
    _check_validation(target, known)
    believed = _believe(learn(known, target), target)
    differ = target.old.predicted != target.new.predicted
    gain = believed.new - cost_ratio * believed.old
    worth = differ & (gain > 0)
    if strategy == "min-entropy":
        worth &= believed.entropy_after < believed.entropy_before
    rows = np.flatnonzero(worth)
    by = gain if max_negative_flips is None else gain / np.maximum(believed.old, 1e-300)
    rows = rows[np.argsort(-by[rows], kind="stable")]
    if max_negative_flips is not None:
        rows = rows[np.cumsum(believed.old[rows]) <= max_negative_flips]
    rows = np.sort(rows[:max_replaced])
    return _update(target, believed, differ, rows, strategy, cost_ratio)


def _update(
    target: Pair,
    believed: _Believed,
    differ: NDArray[np.bool_],
    rows: NDArray[np.int64],
    strategy: str,
    cost_ratio: float,
) -> Update:
    taken = np.zeros(len(differ), np.bool_)
    taken[rows] = True
    predictions = replace(
        target.new,
        labels=target.new.labels if target.old.labels is None else target.old.labels,
        predicted=np.where(taken, target.new.predicted, target.old.predicted),
        scores=np.clip(np.where(taken, believed.new, believed.old), 0, 1),
        probabilities=None,
        columns={**target.new.columns, **target.old.columns},
        source=f"{target.old.source}, updated by {target.new.source}",
    )
    return Update(
        predictions=predictions,
        differing=int(differ.sum()),
        replaced=tuple(target.old.ids[i] for i in rows),
        expected_negative=float(believed.old[taken].sum()),
        expected_positive=float(believed.new[taken].sum()),
        always_negative=float(believed.old[differ].sum()),
        always_positive=float(believed.new[differ].sum()),
        strategy=strategy,
        cost_ratio=cost_ratio,
    )


def _believe(beliefs: Beliefs, target: Pair) -> _Believed:
    """Beliefs in both answers of every picture, some pictures at a time."""
    found = [_of_part(beliefs, part) for part in _parts(target, len(beliefs.place))]
    return _Believed(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def _of_part(beliefs: Beliefs, part: Pair) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    before, after = beliefs.before(part), beliefs.after(part)
    old, new = (
        np.take_along_axis(after, positions(beliefs.place, p.predicted)[:, None], 1)[:, 0]
        for p in (part.old, part.new)
    )
    return old, new, _entropy(before), _entropy(after)


def _parts(target: Pair, classes: int) -> Iterator[Pair]:
    rows, at_once = np.arange(len(target.old)), max(1, _FIGURES_AT_ONCE // classes)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        yield Pair(target.old.take(part), target.new.take(part))


def _entropy(p: Doubles) -> Doubles:
    """Of rows (N, C), in nats."""
    return np.asarray(-(p * np.log(np.maximum(p, 1e-300))).sum(1))


def _check_validation(target: Pair, known: Pair) -> None:
    """It is of other pictures, and of the same classes."""
    names = f"{known.old.source} and {known.new.source}"
    if shared := sorted(set(target.old.ids) & set(known.old.ids)):
        raise DataError(
            f"{len(shared)} picture(s) that are to be decided are in {names} too: {some(shared)}; "
            "what is learnt from a picture's own label says nothing about others. Leave them out "
            "of one",
            shared,
        )
    told = {*known.labels.tolist(), *known.old.predicted.tolist(), *known.new.predicted.tolist()}
    for side in (target.old, target.new):
        answers = sorted(set(side.predicted.tolist()))
        if len(answers) > 1 and told.isdisjoint(answers):
            raise DataError(
                f"{side.source} answers {some(answers)}, but in {names} there are only "
                f"{some(sorted(told))}; name classes alike"
            )


def _check(
    strategy: str, cost_ratio: float, max_replaced: int | None, max_negative_flips: float | None
) -> None:
    if strategy not in STRATEGIES:
        raise ConfigError(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    if not (np.isfinite(cost_ratio) and cost_ratio > 0):
        raise ConfigError(f"the cost ratio is a number above 0, such as 2, not {cost_ratio}")
    if strategy != "cost-ratio" and cost_ratio != 1:
        raise ConfigError(
            f"the strategy {strategy} knows no costs; leave the ratio of {cost_ratio:g} out, or "
            "take cost-ratio"
        )
    budgets = {"max_replaced": max_replaced, "max_negative_flips": max_negative_flips}
    for name, budget in budgets.items():
        if budget is not None and not budget >= 0:
            raise ConfigError(f"{name} is a number from 0 up, not {budget}")
