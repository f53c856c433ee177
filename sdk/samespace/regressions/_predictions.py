"""What a classifier said of every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samespace.regressions._checks import (
    Column,
    Floats,
    Texts,
    as_column,
    as_floats,
    as_text,
    check_classes,
    check_ids,
    check_lengths,
    check_probabilities,
    check_scores,
    figures,
)


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """What a classifier said of N pictures.

    Anything that numpy turns into these arrays may be given. Classes are compared as text.

    Attributes:
        ids: of the pictures, unique.
        labels: str (N,), the right answers; None where nobody knows them, which is enough for
            `choose` and for nothing else.
        predicted: str (N,), the answers.
        scores: float64 (N,), 0 to 1: how sure the model is of its answer; None where it does not
            say. With `probabilities` they are the largest of those, whatever is given here.
        probabilities: float32 or float64 (N, C), rows that sum to 1 within 0.001, with the answer's
            the largest; None where only answers are known.
        classes: the C names of what the model can answer; None where that is not known.
        columns: texts (N,) each, as objects, by name: what the user wants errors to be grouped by.
        source: what messages and reports call it, such as the file's name.

    Raises `DataError` that names the source, the row (from 1) and how to mend it.
    """

    ids: tuple[str, ...]
    labels: Texts | None
    predicted: Texts
    scores: NDArray[np.float64] | None = None
    probabilities: Floats | None = None
    classes: tuple[str, ...] | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    source: str = "predictions"

    def __post_init__(self) -> None:
        columns = {name: as_column(values) for name, values in self.columns.items()}
        made: dict[str, Any] = {
            "ids": tuple(as_text(self.ids).tolist()),
            "labels": None if self.labels is None else as_text(self.labels),
            "predicted": as_text(self.predicted),
            "columns": columns,
        }
        if self.scores is not None:
            made["scores"] = np.asarray(self.scores, np.float64)
        if self.probabilities is not None:
            made["probabilities"] = as_floats(self.probabilities)
        if self.classes is not None:
            made["classes"] = tuple(as_text(self.classes).tolist())
        for name, value in made.items():
            object.__setattr__(self, name, value)
        check_ids(self)
        check_lengths(self)
        check_classes(self)
        if self.probabilities is not None:
            check_probabilities(self)
            largest = np.minimum(self.probabilities.max(1).astype(np.float64), 1)
            object.__setattr__(self, "scores", largest)
        check_scores(self)

    @classmethod
    def from_probabilities(
        cls,
        ids: Sequence[str],
        labels: ArrayLike | None,
        probabilities: ArrayLike,
        classes: Sequence[str],
        columns: Mapping[str, Any] | None = None,
        source: str = "predictions",
    ) -> Predictions:
        """Of probabilities (N, C) of the C `classes`; the answer is the first of the largest.

        Raises as the class does.
        """
        values = figures(probabilities, classes, "probabilities", source)
        answers = values.argmax(1)
        return cls._of(ids, labels, answers, values, classes, columns, source)

    @classmethod
    def from_logits(
        cls,
        ids: Sequence[str],
        labels: ArrayLike | None,
        logits: ArrayLike,
        classes: Sequence[str],
        columns: Mapping[str, Any] | None = None,
        source: str = "predictions",
    ) -> Predictions:
        """Of logits (N, C) of the C `classes`, by softmax; raises as the class does."""
        values = figures(logits, classes, "logits", source)
        shifted = values.astype(np.float64) - values.max(1, keepdims=True)
        exponentials = np.exp(shifted)
        exponentials /= exponentials.sum(1, keepdims=True)
        answers = values.argmax(1)
        soft = exponentials.astype(values.dtype)
        return cls._of(ids, labels, answers, soft, classes, columns, source)

    @classmethod
    def _of(
        cls,
        ids: Sequence[str],
        labels: ArrayLike | None,
        answers: NDArray[np.int64],
        probabilities: Floats,
        classes: Sequence[str],
        columns: Mapping[str, Any] | None,
        source: str,
    ) -> Predictions:
        names = as_text(classes)
        return cls(
            ids=tuple(ids),
            labels=None if labels is None else as_text(labels),
            predicted=names[answers],
            probabilities=probabilities,
            classes=tuple(names.tolist()),
            columns=columns or {},
            source=source,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        parts = [repr(self.source), f"{len(self)} pictures"]
        if self.classes is not None:
            parts.append(f"{len(self.classes)} classes")
        if self.labels is None:
            parts.append("no labels")
        if self.probabilities is not None:
            parts.append("probabilities")
        elif self.scores is not None:
            parts.append("scores")
        return f"Predictions({', '.join(parts)})"

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """These rows (M,), in this order."""

        def of(values: Any) -> Any:
            return None if values is None else values[rows]

        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            labels=of(self.labels),
            predicted=self.predicted[rows],
            scores=of(self.scores),
            probabilities=of(self.probabilities),
            columns={name: values[rows] for name, values in self.columns.items()},
        )
