"""What can be wrong with predictions, and how it is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samespace_edge import DataError

if TYPE_CHECKING:
    from samespace.regressions._predictions import Predictions

Texts: TypeAlias = NDArray[np.str_]
Column: TypeAlias = NDArray[np.object_]
Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

RESERVED = ("id", "label", "prediction", "score")
"""The columns of a CSV that are not the user's own."""

_SUM_WITHIN = 1e-3
_SHOWN = 5


def as_text(values: ArrayLike | Iterable[Any]) -> Texts:
    """Anything as a str array; whole numbers as their digits."""
    return np.asarray(values if isinstance(values, np.ndarray) else list(values)).astype(np.str_)  # type: ignore[arg-type]


def as_column(values: ArrayLike | Iterable[Any]) -> Column:
    """Anything as an array of texts, each as long as it is: one may be a caption, or a prompt."""
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values), np.object_)  # type: ignore[arg-type]
    texts = np.empty(array.size, np.object_)
    texts[:] = [str(value) for value in array.flat]
    return texts.reshape(array.shape)


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(repr(str(n)) for n in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def as_floats(values: ArrayLike) -> Floats:
    array = np.asarray(values)
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def figures(values: ArrayLike, classes: Sequence[str], what: str, source: str) -> Floats:
    """Finite numbers (N, C), N and C at least 1."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{source}: {what} are numbers, not of type {array.dtype}")
    if array.ndim != 2 or array.shape[1] != len(classes):
        raise DataError(
            f"{source}: {what} have the shape {array.shape}, but there are {len(classes)} classes; "
            "give one row for every id and one column for every class"
        )
    if not array.size:
        raise DataError(f"{source} lists no pictures")
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if len(bad):
        raise DataError(
            f"{source}: {what} of {_rows(bad)} are not finite; mend the model or leave "
            "these pictures out of both files"
        )
    return as_floats(array)


def _rows(positions: NDArray[np.int64]) -> str:
    """Rows as people count them, from 1."""
    shown = ", ".join(str(i + 1) for i in positions[:_SHOWN])
    more = f" and {len(positions) - _SHOWN} more" if len(positions) > _SHOWN else ""
    return f"row {shown}" if len(positions) == 1 else f"rows {shown}{more}"


def check_ids(p: Predictions) -> None:
    """There are some, each has a name, and none comes twice."""
    if not p.ids:
        raise DataError(f"{p.source} lists no pictures")
    first: dict[str, int] = {}
    problems = []
    for row, name in enumerate(p.ids, 1):
        if not name:
            raise DataError(f"{p.source}: the id of row {row} is empty; give every picture one")
        if name in first:
            problems.append(f"{name!r} in rows {first[name]} and {row}")
        first.setdefault(name, row)
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{p.source} lists ids more than once: {', '.join(problems[:_SHOWN])}{more}; "
            "keep one row of each",
            problems,
        )


def check_lengths(p: Predictions) -> None:
    """One value for every id; no free column with a name that is taken."""
    if p.probabilities is not None and len(p.probabilities) != len(p.ids):
        raise DataError(
            f"{p.source}: probabilities have {len(p.probabilities)} rows, but there are "
            f"{len(p.ids)} ids; give one row for every id"
        )
    lengths = {"labels": p.labels, "predicted": p.predicted, "scores": p.scores, **p.columns}
    for name, values in lengths.items():
        if values is not None and values.shape != (len(p.ids),):
            raise DataError(
                f"{p.source}: {name} have the shape {values.shape}, but there are {len(p.ids)} "
                "ids; give one value for every id"
            )
    if taken := [name for name in p.columns if name in RESERVED]:
        raise DataError(f"{p.source}: a free column cannot be called {some(taken)}; rename it")


def check_classes(p: Predictions) -> None:
    """Every class has a name, once, and answers are among them."""
    if p.classes is not None and "" in p.classes:
        raise DataError(
            f"{p.source}: the class in position {p.classes.index('')}, from 0, has no name; name it"
        )
    answers: tuple[tuple[str, Texts | None], ...]
    answers = (("label", p.labels), ("prediction", p.predicted))
    for name, values in answers:
        if values is not None and len(empty := np.flatnonzero(values == "")):
            raise DataError(f"{p.source}: the {name} of {_rows(empty)} is empty; name the class")
    if p.classes is None:
        return
    if repeated := [c for c, n in Counter(p.classes).items() if n > 1]:
        raise DataError(f"{p.source} lists classes more than once: {some(repeated)}; keep one")
    bad = np.flatnonzero(~np.isin(p.predicted, p.classes))
    if len(bad):
        raise DataError(
            f"{p.source}: {_rows(bad)} predict {some(sorted(set(p.predicted[bad])))}, which is "
            "not among the classes; add it to them"
        )


def check_probabilities(p: Predictions) -> None:
    """They are probabilities, and the answer is the likeliest class."""
    assert p.probabilities is not None
    if p.classes is None:
        raise DataError(f"{p.source} has probabilities without classes; name every column")
    values = figures(p.probabilities, p.classes, "probabilities", p.source)
    sums = values.sum(1, dtype=np.float64)
    bad = np.flatnonzero((np.abs(sums - 1) > _SUM_WITHIN) | (values.min(1) < 0))
    if len(bad):
        i = bad[0]
        raise DataError(
            f"{p.source}: the probabilities of {_rows(bad)} are not from 0 to 1 with the sum 1, "
            f"such as those of row {i + 1} (smallest {values[i].min():g}, sum {sums[i]:.4f}); if "
            "they are logits, call them so"
        )
    place = {name: i for i, name in enumerate(p.classes)}
    answers = np.array([place[name] for name in p.predicted])
    given = np.take_along_axis(values, answers[:, None], 1)[:, 0]
    bad = np.flatnonzero(given < values.max(1) - _SUM_WITHIN)
    if len(bad):
        raise DataError(
            f"{p.source}: {_rows(bad)} predict a class that is not the one of the largest "
            "probability; take that, or leave the probabilities out"
        )


def check_scores(p: Predictions) -> None:
    """They are from 0 to 1."""
    if p.scores is None:
        return
    bad = np.flatnonzero(~((p.scores >= 0) & (p.scores <= 1)))
    if len(bad):
        raise DataError(
            f"{p.source}: the score of {_rows(bad)} is {p.scores[bad[0]]:g}, which is not between "
            "0 and 1; give the probability of the prediction, or leave the column out"
        )
