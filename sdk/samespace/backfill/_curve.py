"""Accuracy against the share of a gallery that a new model has embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace.backfill._orders import ORDERS, Positions
from samespace_edge import ConfigError, DimensionError

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the gallery that are measured unless told otherwise."""


@dataclass(frozen=True, eq=False)
class BackfillCurve:
    """What one query model finds in a gallery that is more and more a new model's.

    Attributes:
        order: the name in `ORDERS`, or `given`.
        shares: of the items that have new vectors, ascending, S of them.
        hits: bool (S, Q): whether the first hit is right.
        average_precision: float64 (S, Q).
        before: bool (Q,): whether the first hit was right in the system that flips are told from.
    """

    order: str
    shares: tuple[float, ...]
    hits: NDArray[np.bool_]
    average_precision: NDArray[np.float64]
    before: NDArray[np.bool_]

    def __repr__(self) -> str:
        return f"BackfillCurve({self.order!r}, area of R@1 {self.area_recall_at_1:.3f})"

    @property
    def recall_at_1(self) -> NDArray[np.float64]:
        """(S,): R@1 at every share."""
        return np.asarray(self.hits.mean(1))

    @property
    def mean_average_precision(self) -> NDArray[np.float64]:
        """(S,): mAP at every share."""
        return np.asarray(self.average_precision.mean(1))

    @property
    def negative_rate(self) -> NDArray[np.float64]:
        """(S,): share of the queries that were right before and are wrong here."""
        return np.asarray((self.before & ~self.hits).mean(1))

    @property
    def area_by_query(self) -> NDArray[np.float64]:
        """(Q,): area of every query's own curve of R@1, for intervals and paired differences."""
        return _area(self.hits, self.shares)

    @property
    def area_recall_at_1(self) -> float:
        """Mean R@1 over the shares, by trapezoids: the area under the curve, 0 to 1."""
        return float(self.area_by_query.mean())

    @property
    def area_map(self) -> float:
        """Mean mAP over the shares, by trapezoids."""
        return float(_area(self.average_precision, self.shares).mean())


def backfill_curve(
    old_vectors: Vectors,
    new_vectors: Vectors,
    query_vectors: Vectors,
    query_labels: Labels,
    gallery_labels: Labels,
    order: str | Positions = "random",
    *,
    shares: Sequence[float] = SHARES,
    values: NDArray[Any] | None = None,
    seed: int = 0,
    before: NDArray[np.bool_] | None = None,
    ends: tuple[metrics.Ranking, metrics.Ranking] | None = None,
) -> BackfillCurve:
    """Search a gallery whose items, one share after another, get a new model's vectors.

    Args:
        old_vectors, new_vectors: unit vectors (G, D) of the same items, by either model.
        query_vectors: unit vectors (Q, D) of whichever model asks; call it once for each.
        query_labels, gallery_labels: (Q,) and (G,). The order goes by the latter too.
        order: a name in `ORDERS`, or a permutation (G,) of the items.
        shares: of the items that have new vectors; two or more, ascending, within 0 and 1. The
            nearest whole number of items is taken.
        values: (G,), for the order `column`.
        seed: of the order.
        before: (Q,): first-hit correctness that negative flips are told from, such as that of
            the old model on both sides; by default that of the first share.
        ends: the rankings without any new vector and with all of them, where they are known.

    At share 0 it is M(q, old), at share 1 M(q, new). Raises `ConfigError`, `DimensionError`.
    """
    if old_vectors.shape != new_vectors.shape:
        raise DimensionError(
            f"the old vectors {old_vectors.shape} and the new ones {new_vectors.shape} have to be "
            "of the same items and of one width"
        )
    places = _permutation(order, old_vectors, gallery_labels, values, seed)
    at = np.asarray(shares, np.float64)
    if len(at) < 2 or not (np.diff(at) > 0).all() or at[0] < 0 or at[-1] > 1:
        raise ConfigError(
            f"shares of a backfill are two or more, ascending, from 0 to 1, not {tuple(shares)}"
        )
    rankings = []
    for share in at:
        count = int(np.floor(share * len(places) + 0.5))
        if ends is not None and count in (0, len(places)):
            rankings.append(ends[count > 0])
            continue
        mixed = old_vectors.copy()
        mixed[places[:count]] = new_vectors[places[:count]]
        rankings.append(metrics.rank(query_vectors, mixed, query_labels, gallery_labels, keep=1))
    hits = np.stack([r.hits(1) for r in rankings])
    return BackfillCurve(
        order if isinstance(order, str) else "given",
        tuple(at.tolist()),
        hits,
        np.stack([r.average_precision for r in rankings]),
        hits[0] if before is None else before,
    )


def _permutation(
    order: str | Positions,
    vectors: Vectors,
    labels: Labels,
    values: NDArray[Any] | None,
    seed: int,
) -> Positions:
    if isinstance(order, str):
        if order not in ORDERS:
            raise ConfigError(f"there is no order {order!r}; there are {', '.join(ORDERS)}")
        return ORDERS[order](vectors, labels, values, seed)
    places = np.asarray(order)
    if not np.array_equal(np.sort(places), np.arange(len(vectors))):
        raise ConfigError(f"an order names each of the {len(vectors)} items once, by position")
    return places


def _area(values: NDArray[Any], shares: Sequence[float]) -> NDArray[np.float64]:
    """Trapezoids under values (S, Q), per unit of share: (Q,)."""
    widths = np.diff(shares)
    weights = (np.append(widths, 0.0) + np.append(0.0, widths)) / 2
    areas = weights @ values.astype(np.float64) / widths.sum()
    # Rounding must not carry a mean past what it is the mean of.
    return np.asarray(np.clip(areas, values.min(0), values.max(0)))
