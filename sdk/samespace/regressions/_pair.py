"""Two classifiers' predictions of the same pictures, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from samespace.regressions._checks import Texts, some
from samespace.regressions._predictions import Predictions
from samespace_edge import DataError


@dataclass(frozen=True)
class Pair:
    """The predictions of an old and of a new model; row i of both is of one picture.

    Attributes:
        old, new: in the order of the old ones.
    """

    old: Predictions
    new: Predictions

    @property
    def labels(self) -> Texts:
        """(N,): the right answers; raises `DataError` where there are none."""
        for side in (self.old, self.new):
            if side.labels is not None:
                return side.labels
        raise DataError(
            f"neither {self.old.source} nor {self.new.source} has labels, without which nothing "
            "can be called right or wrong; add them as the column label"
        )

    @property
    def right(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(N,) each: whether the old, and the new, model is right."""
        return self.old.predicted == self.labels, self.new.predicted == self.labels

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """(N,): whether the label is of a class that the old model cannot answer."""
        if self.old.classes is None:
            return np.zeros(len(self.old), np.bool_)
        return ~np.isin(self.labels, self.old.classes)


def pair(old: Predictions, new: Predictions) -> Pair:
    """Bring two models' predictions of the same pictures together.

    The new model may know classes that the old one does not; the opposite is an error.

    Raises `DataError` for pictures that only one of them has, labels that disagree, classes that
    the new one lacks, and answers that are named differently from the labels.
    """
    place = {name: i for i, name in enumerate(new.ids)}
    _check_ids(old, new)
    _check_classes(old, new)
    made = Pair(old, new.take(np.array([place[name] for name in old.ids])))
    if old.labels is not None and made.new.labels is not None:
        bad = np.flatnonzero(old.labels != made.new.labels)
        if len(bad):
            i = bad[0]
            raise DataError(
                f"{old.source} and {new.source} disagree on the label of {len(bad)} picture(s), "
                f"such as {old.ids[i]!r}: {str(old.labels[i])!r} and "
                f"{str(made.new.labels[i])!r}; compare with one set of labels",
                [f"{old.ids[j]}: {old.labels[j]!s}, {made.new.labels[j]!s}" for j in bad],
            )
    _check_names(made)
    return made


def foreign(both: Pair, side: Predictions) -> list[str]:
    """Classes that one of the two models answers and that no picture is of."""
    return sorted(set(side.predicted.tolist()) - set(both.labels.tolist()))


def _check_names(both: Pair) -> None:
    """A model whose answers are named differently from the labels is never right.

    Were it the old one, nothing could turn wrong, and every gate would pass. Where both tell their
    classes, `_check_classes` knows better: an old model may lack all that there are pictures of.
    """
    if both.old.labels is None and both.new.labels is None:
        return
    if both.old.classes is not None and both.new.classes is not None:
        return
    labels = sorted(set(both.labels.tolist()))
    for side in (both.old, both.new):
        answers = sorted(set(side.predicted.tolist()))
        if min(len(answers), len(labels)) > 1 and set(answers).isdisjoint(labels):
            raise DataError(
                f"{side.source} answers {some(answers)}, but the labels are {some(labels)}: none "
                "is the same, so it would never be right; name classes alike, or, where the model "
                "lacks all of these, compare npz files, which tell the classes"
            )


def _check_ids(old: Predictions, new: Predictions) -> None:
    problems = []
    for here, there in ((old, new), (new, old)):
        if lone := sorted(set(here.ids) - set(there.ids)):
            problems.append(f"{len(lone)} only in {here.source} ({some(lone)})")
    if problems:
        same = {normalize("NFC", i) for i in old.ids} == {normalize("NFC", i) for i in new.ids}
        fix = (
            "they are the same but for their Unicode form (NFC or NFD); write them alike"
            if same
            else "predict these with both models, or leave them out of both"
        )
        raise DataError(
            f"{old.source} and {new.source} are not of the same pictures: "
            f"{', '.join(problems)}; {fix}",
            problems,
        )


def _check_classes(old: Predictions, new: Predictions) -> None:
    if new.classes is None:
        return
    answered = old.classes if old.classes is not None else old.predicted.tolist()
    if lost := sorted(set(answered) - set(new.classes)):
        raise DataError(
            f"{new.source} lacks {len(lost)} class(es) of {old.source}: {some(lost)}; a new model "
            "may know more classes, not fewer. Name them alike in both, or, for classes that were "
            "given up, leave their pictures out and give them probability 0"
        )
    labels = old.labels if new.labels is None else new.labels
    if labels is not None and (odd := sorted(set(labels.tolist()) - set(new.classes))):
        raise DataError(
            f"{new.source}: {len(odd)} label(s) are not among its classes: {some(odd)}; neither "
            "model can answer them. Name them alike, or leave these pictures out"
        )
