"""Compares the predictions of an old and of a new classifier."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace.regressions._bootstrap import percentiles, resample
from samespace.regressions._calibration import calibration
from samespace.regressions._checks import some
from samespace.regressions._exact import mcnemar
from samespace.regressions._groups import column, exact, grouped
from samespace.regressions._pair import Pair, foreign, pair
from samespace.regressions._predictions import Predictions
from samespace.regressions._report import Flip, NewClasses, RegressionReport
from samespace.verification import Estimate
from samespace.verification._upgrade_measure import relative_negative_rate

_FEW_ERRORS = 30


def compare(
    old: Predictions, new: Predictions, columns: Sequence[str] | None = None, seed: int = 0
) -> RegressionReport:
    """What gets better and what gets worse when `new` replaces `old`.

    Args:
        old, new: of the same N pictures, in any order; at least one of them with labels.
        columns: free columns by whose values errors are told as well; None for none.
        seed: of the bootstrap.

    Intervals are of 95 %, over pictures: of NFR, a share of N, the exact one; of the others by
    2,000 paired resamples. Pictures that are not independent, such as frames of one film, make
    them too narrow.

    Raises `DataError` where the two do not fit together, `ConfigError` for an unknown column.
    """
    both = pair(old, new)
    before, after = both.right
    n = len(before)
    flips = metrics.flips(before, after)
    negative, positive = len(flips.negative), len(flips.positive)
    error_old, error_new = float(np.mean(~before)), float(np.mean(~after))
    wrong, right = int(np.sum(~after)), int(np.sum(after))
    drawn = resample(before, after, seed)
    relative = relative_negative_rate(before, after)
    known = np.flatnonzero(~both.unknown)
    labels = both.labels[known]
    return RegressionReport(
        old=old.source,
        new=new.source,
        pictures=n,
        error_old=error_old,
        error_new=error_new,
        error_difference=_estimate((negative - positive) / n, percentiles(drawn.error_difference)),
        negative_rate=exact(negative, n),
        relative_negative_rate=None
        if relative is None
        else _estimate(relative, percentiles(drawn.relative_negative_rate)),
        negative_impact=negative / wrong if wrong else None,
        positive_rate=flips.positive_rate,
        positive_impact=positive / right if right else None,
        mcnemar_p=mcnemar(negative, positive),
        calibration_old=calibration(both.old.take(known), labels) if len(known) else None,
        calibration_new=calibration(both.new.take(known), labels) if len(known) else None,
        new_classes=_new_classes(both, after),
        by_class=grouped(both.labels, before, after),
        by_column={
            name: grouped(column(both, name), before, after)
            for name in dict.fromkeys(columns or ())
        },
        negative=_flips(both, flips.negative, both.new.scores),
        positive=_flips(both, flips.positive, both.old.scores),
        notes=_notes(both, wrong, negative),
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("samespace"),
    )


def _estimate(value: float, interval: metrics.Interval) -> Estimate:
    return Estimate(value, interval.low, interval.high, interval.over)


def _new_classes(both: Pair, after: NDArray[np.bool_]) -> NewClasses | None:
    unknown = both.unknown
    if not unknown.any():
        return None
    classes = tuple(np.unique(both.labels[unknown]).tolist())
    return NewClasses(classes, int(unknown.sum()), float(np.mean(~after[unknown])))


def _flips(
    both: Pair, rows: NDArray[np.int64], surest: NDArray[np.float64] | None
) -> tuple[Flip, ...]:
    """The flips in these rows, by the scores (N,) of the wrong answer, then by id."""

    def score(p: Predictions, row: int) -> float | None:
        return None if p.scores is None else float(p.scores[row])

    def order(row: int) -> tuple[float, str]:
        return (0.0 if surest is None else -float(surest[row]), both.old.ids[row])

    return tuple(
        Flip(
            id=both.old.ids[row],
            label=str(both.labels[row]),
            old=str(both.old.predicted[row]),
            new=str(both.new.predicted[row]),
            old_score=score(both.old, row),
            new_score=score(both.new, row),
        )
        for row in sorted(rows.tolist(), key=order)
    )


def _notes(both: Pair, wrong: int, negative: int) -> tuple[str, ...]:
    notes = []
    if both.new.classes is not None:
        unseen = sorted(set(both.new.classes) - set(both.labels.tolist()))
        if unseen:
            notes.append(
                f"There is no picture of {len(unseen)} of {len(both.new.classes)} classes "
                f"({some(unseen)}): nothing is said about them."
            )
    if wrong and not negative:
        notes.append(
            "Nothing turned wrong, so resampling gives relative NFR no interval; go by that of NFR."
        )
    elif 0 < wrong < _FEW_ERRORS:
        notes.append(
            f"The new model has {wrong} errors: relative NFR and NFI rest on few pictures, and the "
            "interval of relative NFR is too narrow."
        )
    without = [p.source for p in (both.old, both.new) if p.scores is None]
    if without:
        notes.append(
            f"There are no scores in {' and '.join(without)}: their calibration is not known, and "
            "flips whose wrong answer is theirs are in the order of the ids."
        )
    if both.old.classes is None and both.new.classes is not None:
        notes.append(
            f"{both.old.source} does not say which classes its model knows, so pictures of new "
            "classes are not told apart."
        )
    for side in (both.old, both.new):
        if side.classes is None and (odd := foreign(both, side)):
            notes.append(
                f"{side.source} answers {len(odd)} class(es) that no label names ({some(odd)}): "
                "such answers count as wrong. If they only are named differently, rename them."
            )
    return tuple(notes)
