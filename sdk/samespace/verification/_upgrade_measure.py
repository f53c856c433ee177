"""Measures an upgrade: who gains, who loses, what scores mean now, and how backfill goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace.backfill import SHARES, BackfillCurve, backfill_curve
from samespace.verification._cells import difference, share
from samespace.verification._claims import one_space
from samespace.verification._criteria import Rankings
from samespace.verification._inputs import Progress
from samespace.verification._models import Model
from samespace.verification._thresholds import FAR, finite
from samespace.verification._upgrade import Acceptance, Change, Curve, Joint, UpgradeSection

ORDERS_SHOWN = ("random", "uncertain", "farthest")
"""The orders of a report; `column` would need numbers of the user's own."""


@dataclass(frozen=True)
class Measured:
    """What was measured of all models, which an upgrade draws on.

    Attributes:
        rankings: what the queries of one label found in the gallery of another.
        query_labels, gallery_labels: (Q,) and (G,).
        paths: of the queries.
        intervals: of the queries.
        threshold: the user's own; None for the old model's at FAR 1 %.
        seed: of the orders.
        progress: is told how many curves of how many are done.
    """

    rankings: Rankings
    query_labels: NDArray[np.int64]
    gallery_labels: NDArray[np.int64]
    paths: Sequence[str]
    intervals: metrics.ClusterRobust
    threshold: float | None
    seed: int
    progress: Progress

    def right(self, query: Model, gallery: Model) -> NDArray[np.bool_]:
        """(Q,): whether the first hit is right."""
        return self.rankings[query.label, gallery.label].hits(1)


def measure_upgrade(
    old: Model, new: Model, models: Sequence[Model], measured: Measured
) -> UpgradeSection:
    """The upgrade from `old` to `new`, for every query model of their space among `models`."""
    others = [
        m
        for m in models
        if "query" in m.declared and m is not old and m is not new and one_space(m, old)
    ]
    queries = [old, new, *others]
    at, acceptances = _acceptances(old, new, queries, measured)
    alone = next((m for m in models if "paragon" in m.declared and m is not new), None)
    gain, tax = None, None
    if alone is not None:
        ours, theirs = measured.right(new, new), measured.right(alone, alone)
        gain = metrics.update_gain(
            *(float(x.mean()) for x in (measured.right(new, old), measured.right(old, old), theirs))
        )
        tax = difference(ours.astype(np.float64) - theirs, measured.intervals)
    return UpgradeSection(
        old=old.label,
        new=new.label,
        threshold=at,
        changes=tuple(_change(q, old, new, measured) for q in queries),
        acceptances=acceptances,
        curves=_curves(old, new, others, measured),
        paragon=None if alone is None else alone.label,
        paragon_gain=None if gain is None or np.isnan(gain) else gain,
        tax=tax,
        joint=tuple(_joint(old, new, gallery, measured) for gallery in (old, new)),
    )


def _joint(old: Model, new: Model, gallery: Model, measured: Measured) -> Joint:
    labels = (measured.query_labels, measured.gallery_labels)
    both = metrics.joint(old.queries, new.queries)
    right = metrics.rank(both, gallery.gallery, *labels, keep=1).hits(1)
    before, alone = measured.right(old, old), measured.right(new, gallery)
    return Joint(
        gallery=gallery.label,
        value=float(right.mean()),
        difference=difference(right.astype(np.float64) - alone, measured.intervals),
        negative_rate=metrics.flips(before, right).negative_rate,
        alone_rate=metrics.flips(before, alone).negative_rate,
    )


def _change(query: Model, old: Model, new: Model, measured: Measured) -> Change:
    before, after = measured.right(query, old), measured.right(query, new)
    found = metrics.flips(before, after)
    return Change(
        query=query.label,
        before=float(before.mean()),
        after=float(after.mean()),
        difference=difference(after.astype(np.float64) - before, measured.intervals),
        negative_rate=found.negative_rate,
        relative_negative_rate=relative_negative_rate(before, after),
        positive_rate=found.positive_rate,
        negative=tuple(measured.paths[i] for i in found.negative),
        positive=tuple(measured.paths[i] for i in found.positive),
    )


def relative_negative_rate(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float | None:
    """NFR over the share that independent errors would flip (PCT, Yan et al. 2021, section 3).

    Args:
        before, after: (Q,): whether the first hit is right.

    1 says that the two are wrong independently of one another. None where nothing was right
    before, or nothing is wrong after.
    """
    expected = float(before.mean()) * float((~after).mean())
    return metrics.flips(before, after).negative_rate / expected if expected else None


def _acceptances(
    old: Model, new: Model, queries: Sequence[Model], measured: Measured
) -> tuple[float, tuple[Acceptance, ...]]:
    """The old threshold, and what it does in both galleries."""
    labels = (measured.query_labels, measured.gallery_labels)
    at = measured.threshold
    if at is None:
        at = metrics.threshold_at_far(old.queries, old.gallery, *labels, FAR)
    allowed = metrics.operating_point(old.queries, old.gallery, *labels, at).far
    found = []
    for query in queries:
        for gallery in (old, new):
            sides = (query.queries, gallery.gallery, *labels)
            here = metrics.operating_point(*sides, at)
            # A share of pairs is a whole number of them, which rounding must not make one less.
            restoring = metrics.threshold_at_far(*sides, allowed * (1 + 1e-9))
            there = metrics.operating_point(*sides, restoring)
            figures = (here.far, here.tar, restoring, there.tar)
            found.append(Acceptance(query.label, gallery.label, *map(finite, figures)))
    return finite(at), tuple(found)


def _curves(
    old: Model, new: Model, others: Sequence[Model], measured: Measured
) -> tuple[Curve, ...]:
    wanted = [(new, order) for order in ORDERS_SHOWN] + [(q, "random") for q in (old, *others)]
    curves = []
    chance: dict[str, BackfillCurve] = {}
    for done, (query, order) in enumerate(wanted, 1):
        found = backfill_curve(
            old.gallery,
            new.gallery,
            query.queries,
            measured.query_labels,
            measured.gallery_labels,
            order,
            seed=measured.seed,
            # What users had: a device its own search, the new model's queries the old model's.
            before=measured.right(old if query is new else query, old),
            ends=(
                measured.rankings[query.label, old.label],
                measured.rankings[query.label, new.label],
            ),
        )
        base = chance.setdefault(query.label, found)
        gained = found.area_by_query - base.area_by_query
        curves.append(
            Curve(
                query=query.label,
                order=order,
                shares=SHARES,
                recall_at_1=tuple(found.recall_at_1.tolist()),
                map=tuple(found.mean_average_precision.tolist()),
                negative_rate=tuple(found.negative_rate.tolist()),
                area=share(found.area_by_query, measured.intervals),
                area_map=found.area_map,
                over_random=None if base is found else difference(gained, measured.intervals),
            )
        )
        measured.progress(f"backfill from {old.label} to {new.label}", done, len(wanted))
    return tuple(curves)
