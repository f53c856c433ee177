"""What a comparison of two classifiers found, as values (schemas/regressions.schema.json)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from samespace.verification import Estimate

SCHEMA = 1


@dataclass(frozen=True)
class Flip:
    """A picture whose answer changed between right and wrong.

    Attributes:
        id: of the picture.
        label: the right answer.
        old, new: both models' answers.
        old_score, new_score: how sure each was; None where it does not say.
    """

    id: str
    label: str
    old: str
    new: str
    old_score: float | None
    new_score: float | None


@dataclass(frozen=True)
class Group:
    """Pictures of one class, or with one value in a column.

    Attributes:
        value: the class, or the value.
        pictures: how many.
        error_old, error_new: share answered wrongly.
        negative, positive: how many turned wrong, and right.
        negative_rate: NFR, with the exact interval.
    """

    value: str
    pictures: int
    error_old: float
    error_new: float
    negative: int
    positive: int
    negative_rate: Estimate


@dataclass(frozen=True)
class Calibration:
    """Whether a model is as often right as it says.

    Attributes:
        pictures: how many it was measured on: those whose class both models know.
        ece: expected calibration error, 15 bins of equally many pictures (Guo et al. 2017).
        brier: mean squared distance of the probabilities to the truth, summed over classes, 0 to
            2 (Brier 1950); None without probabilities.
        nll: mean of -log of the label's probability, in nats, a probability counting as 1e-38 at
            least; None without probabilities.
    """

    pictures: int
    ece: float
    brier: float | None
    nll: float | None


@dataclass(frozen=True)
class NewClasses:
    """Pictures of classes that only the new model knows.

    The old model is wrong on them and could not be right, so none can be a negative flip.

    Attributes:
        classes: those that such pictures are of.
        pictures: how many.
        error_new: share of them that the new model gets wrong.
    """

    classes: tuple[str, ...]
    pictures: int
    error_new: float


@dataclass(frozen=True, repr=False)
class RegressionReport:
    """The result of `compare`. Rates are shares of all pictures unless said otherwise.

    Attributes:
        old, new: what the predictions are called.
        pictures: how many were compared.
        error_old, error_new: ER: share answered wrongly.
        error_difference: ER_new - ER_old, paired.
        negative_rate: NFR: right before, wrong now (PCT, Yan et al. 2021, section 3). Its interval
            is the exact one, which has a width where there is no flip, too.
        relative_negative_rate: NFR over (1 - ER_old) ER_new, what independent errors would give
            (ibid.); None where that is 0.
        negative_impact: NFI: negative flips over the new model's errors; None where it has none.
        positive_rate: PFR: wrong before, right now.
        positive_impact: PFI: positive flips over what the new model has right; None where it has
            nothing right.
        mcnemar_p: two-sided p value of the hypothesis that flips go either way alike.
        calibration_old, calibration_new: None where the model does not say how sure it is.
        new_classes: None where the old model knows every label, or its classes are not known.
        by_class: the classes of the labels, most negative flips first.
        by_column: the same for every column that was asked for.
        negative, positive: the flips, those where the wrong answer was surest first.
        notes: what a reader has to know before the figures.
    """

    old: str
    new: str
    pictures: int
    error_old: float
    error_new: float
    error_difference: Estimate
    negative_rate: Estimate
    relative_negative_rate: Estimate | None
    negative_impact: float | None
    positive_rate: float
    positive_impact: float | None
    mcnemar_p: float
    calibration_old: Calibration | None
    calibration_new: Calibration | None
    new_classes: NewClasses | None
    by_class: tuple[Group, ...]
    by_column: Mapping[str, tuple[Group, ...]]
    negative: tuple[Flip, ...]
    positive: tuple[Flip, ...]
    notes: tuple[str, ...]
    seed: int
    created: str
    version: str

    def __repr__(self) -> str:
        return (
            f"RegressionReport({self.old!r} → {self.new!r}, {self.pictures} pictures, error "
            f"{self.error_old:.4f} → {self.error_new:.4f}, NFR {self.negative_rate.value:.4f} "
            f"[{self.negative_rate.low:.4f}, {self.negative_rate.high:.4f}])"
        )

    def to_json(self) -> dict[str, Any]:
        """As it is written to `regressions.json`."""
        return {"schema": SCHEMA, **asdict(self)}
