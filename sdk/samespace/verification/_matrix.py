"""The matrix and the criterion of a report, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UPGRADE = "upgrade"
"""The rule of a newer cloud model: M(new, old) above M(old, old)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over queries, with its 95 % interval (see `samespace.metrics.ClusterRobust`)."""

    value: float
    low: float
    high: float
    over: str


@dataclass(frozen=True)
class Prefix:
    """A cell when query and gallery vectors are cut to their first numbers and made unit again.

    Attributes:
        width: how many numbers are left.
        estimates: every metric of `METRICS`.
        difference: R@1 at this width less R@1 at the full one, paired by query.
    """

    width: int
    estimates: Mapping[str, Estimate]
    difference: Estimate


@dataclass(frozen=True)
class PrefixCriterion:
    """A criterion when all its vectors, the reference's too, are cut to their first numbers.

    Attributes:
        width: how many numbers are left.
        value, reference_value: R@1 of M(query, gallery) and of M(reference, reference).
        difference: of the two, paired by query.
        holds: whether its whole interval is above 0, on enough queries, as for `Criterion`.
    """

    width: int
    value: float
    reference_value: float
    difference: Estimate
    holds: bool


@dataclass(frozen=True)
class Cell:
    """M(query, gallery): one entry of the matrix, for every metric of `METRICS`.

    Attributes:
        corrected: the same with hub correction; None where there was no bank.
        corrected_difference: R@1 with correction less R@1 without, paired by query.
        prefixes: the same with shorter vectors, by ascending width; None where none was asked for.
    """

    query: str
    gallery: str
    estimates: Mapping[str, Estimate]
    corrected: Mapping[str, Estimate] | None = None
    corrected_difference: Estimate | None = None
    prefixes: tuple[Prefix, ...] | None = None

    @property
    def homogeneous(self) -> bool:
        """Whether one model embeds both sides."""
        return self.query == self.gallery


@dataclass(frozen=True)
class Criterion:
    """Whether M(query, gallery) is above M(reference, reference) beyond its interval, in R@1.

    Attributes:
        reference: the baseline, or the query model itself; for an upgrade the gallery model.
        difference: M(query, gallery) - M(reference, reference), paired by query.
        gap: M(query, gallery) - M(paragon, paragon), paired by query. The paragon is the gallery
            model; for an upgrade the query model, which embeds the gallery in the end.
        gain: share of the paragon's advantage over the reference that is had; None where the
            paragon has none.
        cost_ratio: MACs of the gallery model over those of the query model.
        decides: whether gate and certificate go by it.
        holds: whether the whole interval of `difference` is above 0, on at least 30 queries of at
            least 8 labels.
        prefixes: whether it holds with shorter vectors too, by ascending width; None where none
            was asked for.
        rule: `UPGRADE` where a newer cloud model is judged against an older one; None otherwise.
    """

    query: str
    gallery: str
    reference: str
    value: float
    reference_value: float
    difference: Estimate
    gap: Estimate
    gain: float | None
    cost_ratio: float
    decides: bool
    holds: bool
    prefixes: tuple[PrefixCriterion, ...] | None = None
    rule: str | None = None


def cell_from_json(value: Mapping[str, Any]) -> Cell:
    """A cell from a report's JSON; raises `KeyError` or `TypeError` for what is none."""
    corrected, difference = value.get("corrected"), value.get("corrected_difference")
    prefixes = value.get("prefixes")
    return Cell(
        value["query"],
        value["gallery"],
        _estimates(value["estimates"]),
        corrected and _estimates(corrected),
        difference and Estimate(**difference),
        prefixes
        and tuple(
            Prefix(p["width"], _estimates(p["estimates"]), Estimate(**p["difference"]))
            for p in prefixes
        ),
    )


def criterion_from_json(value: Mapping[str, Any]) -> Criterion:
    """A criterion from a report's JSON; raises `KeyError` or `TypeError` for what is none."""
    prefixes = value.get("prefixes")
    found = {
        **value,
        "difference": Estimate(**value["difference"]),
        "gap": Estimate(**value["gap"]),
        "prefixes": prefixes
        and tuple(
            PrefixCriterion(**{**p, "difference": Estimate(**p["difference"])}) for p in prefixes
        ),
    }
    return Criterion(**found)


def _estimates(value: Mapping[str, Any]) -> dict[str, Estimate]:
    return {name: Estimate(**e) for name, e in value.items()}
