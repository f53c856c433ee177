"""What a report says of an upgrade, as values: a newer cloud model takes over a gallery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samespace.verification._matrix import Estimate


@dataclass(frozen=True)
class Change:
    """What a query model meets when the items it searches become the new model's.

    Attributes:
        query: whose searches.
        before, after: R@1 of M(query, old) and of M(query, new).
        difference: of the two, paired by query.
        negative_rate: NFR: share of all queries that turn wrong.
        relative_negative_rate: NFR over what independent errors would give,
            NFR / (R@1 before · (1 - R@1 after)) (PCT, Yan et al. 2021, section 3); None where
            that is 0.
        positive_rate: share of all queries that turn right.
        negative, positive: paths of those queries.
    """

    query: str
    before: float
    after: float
    difference: Estimate
    negative_rate: float
    relative_negative_rate: float | None
    positive_rate: float
    negative: tuple[str, ...]
    positive: tuple[str, ...]

    @property
    def direction(self) -> str:
        """`better` or `worse` where the whole interval of the difference says so, or `unclear`."""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "unclear"


@dataclass(frozen=True)
class Acceptance:
    """What the old threshold does to the scores of one query model in one gallery.

    Attributes:
        far, tar: share of the wrong, and of the right, pairs that pass.
        restoring: cosine from which no larger share of the wrong pairs passes than of the old
            model's own at its threshold.
        restored_tar: share of the right pairs that pass there.
    """

    query: str
    gallery: str
    far: float
    tar: float
    restoring: float
    restored_tar: float


@dataclass(frozen=True)
class Curve:
    """What one query model finds while the gallery is embedded anew, in one order.

    Attributes:
        query: whose searches.
        order: a name in `samespace.backfill.ORDERS`.
        shares: of the items that the new model has embedded, ascending, S of them.
        recall_at_1, map: (S,).
        negative_rate: (S,): share of the queries that were right before the upgrade and are wrong
            here. Before it, the new model's queries were the old one's.
        area: R@1, mean over the shares by trapezoids.
        area_map: mAP, likewise.
        over_random: area less that of the order `random`, paired by query; None for that order.
    """

    query: str
    order: str
    shares: tuple[float, ...]
    recall_at_1: tuple[float, ...]
    map: tuple[float, ...]
    negative_rate: tuple[float, ...]
    area: Estimate
    area_map: float
    over_random: Estimate | None = None


@dataclass(frozen=True)
class Joint:
    """Queries asked with the old and the new model at once: the mean of both vectors.

    Attributes:
        gallery: `old`'s or `new`'s label.
        value: R@1 there.
        difference: of that to the new model's queries alone, paired by query.
        negative_rate: share of the queries that the old model had right in its own gallery, and
            that are wrong here.
        alone_rate: the same of the new model's queries alone.
    """

    gallery: str
    value: float
    difference: Estimate
    negative_rate: float
    alone_rate: float


@dataclass(frozen=True)
class UpgradeSection:
    """A newer cloud model takes over the gallery of an older one of its space.

    Attributes:
        old, new: their labels.
        threshold: cosine that was set for the old model's own queries: at FAR 1 %, or the user's.
        changes: for every query model, the old and the new cloud model first.
        acceptances: for every query model in either gallery, at `threshold`.
        curves: the new model's queries in every order; other query models' in that of `random`.
        paragon: the new model trained alone; None where none was named.
        paragon_gain: share of what `paragon` on both sides would bring over the old model that
            the new one brings without backfill; None where that brings nothing.
        tax: M(new, new) - M(paragon, paragon), paired by query: what compatibility costs.
        joint: of both models' queries at once, in the old and in the new gallery.
    """

    old: str
    new: str
    threshold: float
    changes: tuple[Change, ...]
    acceptances: tuple[Acceptance, ...]
    curves: tuple[Curve, ...]
    paragon: str | None = None
    paragon_gain: float | None = None
    tax: Estimate | None = None
    joint: tuple[Joint, ...] = ()

    def change(self, query: str) -> Change:
        """The change for a query model, by label; raises `KeyError`."""
        return {c.query: c for c in self.changes}[query]


def upgrade_from_json(value: Mapping[str, Any]) -> UpgradeSection:
    """An upgrade from a report's JSON; raises `KeyError` or `TypeError` for what is none."""
    return UpgradeSection(
        **{
            **value,
            "changes": tuple(_with(Change, c) for c in value["changes"]),
            "acceptances": tuple(Acceptance(**a) for a in value["acceptances"]),
            "curves": tuple(_with(Curve, c) for c in value["curves"]),
            "tax": _estimate(value.get("tax")),
            "joint": tuple(_with(Joint, j) for j in value.get("joint", ())),
        }
    )


_ESTIMATES = ("difference", "area", "over_random")


def _with(kind: Any, value: Mapping[str, Any]) -> Any:
    """A value of `kind`, its lists as tuples and its estimates as such."""
    estimates = {k: _estimate(v) for k, v in value.items() if k in _ESTIMATES}
    lists = {k: tuple(v) for k, v in value.items() if isinstance(v, list)}
    return kind(**{**value, **lists, **estimates})


def _estimate(value: Mapping[str, Any] | None) -> Estimate | None:
    return None if value is None else Estimate(**value)
