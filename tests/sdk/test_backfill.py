"""Orders and curves of backfill, against values worked out by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from samespace import metrics
from samespace.backfill import ORDERS, SHARES, backfill_curve
from samespace.backfill._orders import pseudo_classes
from samespace_edge import ConfigError, DimensionError


def unit(angles: list[float]) -> np.ndarray:
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], 1).astype(np.float32)


# Class 7 has its mean near 10 degrees, class 8 near 80.
ITEMS = unit([0, 20.2, 10, 50, 95, 95])
LABELS = np.array([7, 7, 7, 8, 8, 8])


def test_orders_by_hand() -> None:
    # From 45 degrees, where both means are equally near: 5, 25, 35, 45, 50, 50 away.
    assert ORDERS["uncertain"](ITEMS, LABELS, None, 0).tolist() == [3, 1, 2, 0, 4, 5]
    # From their own means: 30, then twice 15, 10.1 and 10, 0; ties keep their order.
    assert ORDERS["farthest"](ITEMS, LABELS, None, 0).tolist() == [3, 4, 5, 1, 0, 2]
    views = np.array([5, 9, 0, 9, 2, 7])
    assert ORDERS["column"](ITEMS, None, views, 0).tolist() == [1, 3, 5, 0, 4, 2]
    shuffled = ORDERS["random"](ITEMS, None, None, 3)
    assert sorted(shuffled.tolist()) == [0, 1, 2, 3, 4, 5]
    assert shuffled.tolist() == ORDERS["random"](ITEMS, LABELS, None, 3).tolist()
    assert shuffled.tolist() != ORDERS["random"](ITEMS, None, None, 4).tolist()
    for order in ORDERS.values():
        assert order(ITEMS, LABELS, views, 0).dtype == np.int64
        assert order(ITEMS[:0], LABELS[:0], views[:0], 0).tolist() == []


def test_orders_of_one_class_and_of_text_labels() -> None:
    same = np.zeros(6, np.int64)
    assert ORDERS["uncertain"](ITEMS, same, None, 0).tolist() == [0, 1, 2, 3, 4, 5]
    texts = np.array(["cup", "cup", "cup", "mug", "mug", "mug"])
    by_text = ORDERS["farthest"](ITEMS, texts, None, 0)
    assert by_text.tolist() == ORDERS["farthest"](ITEMS, LABELS, None, 0).tolist()


def test_orders_without_labels_go_by_k_means() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(16, dtype=np.float32)[:5]
    labels = np.repeat(np.arange(5), 5)
    items = centres[labels] + 0.01 * rng.standard_normal((25, 16)).astype(np.float32)
    items[12] += centres[0]  # between its own centre and the first
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    found = pseudo_classes(items)  # √25 = 5 centres
    assert len(np.unique(found)) <= 5
    assert (pseudo_classes(items) == found).all()
    for name in ("uncertain", "farthest"):
        order = ORDERS[name](items, None, None, 0)
        assert sorted(order.tolist()) == list(range(25))
    assert ORDERS["uncertain"](items, None, None, 0)[0] == 12
    assert pseudo_classes(items[:1]).tolist() == [0]


def test_orders_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="goes by numbers, one for every item"):
        ORDERS["column"](ITEMS, LABELS, None, 0)
    with pytest.raises(ConfigError, match="NaN or infinite"):
        ORDERS["column"](ITEMS, LABELS, np.array([1, 2, 3, 4, 5, np.nan]), 0)
    with pytest.raises(DimensionError, match=r"labels have to be \(6,\)"):
        ORDERS["farthest"](ITEMS, LABELS[:5], None, 0)
    with pytest.raises(DimensionError, match=r"numbers have to be \(6,\)"):
        ORDERS["column"](ITEMS, LABELS, np.arange(7), 0)


# Four items, one a label. The new vectors are 5 degrees from their label's query, the old ones
# exactly where the next label's query is.
QUERIES = unit([0, 90, 180, 270])
OLD, NEW = unit([90, 180, 270, 0]), unit([5, 95, 185, 275])
FOUR = np.arange(4)


def test_a_known_curve_and_its_area() -> None:
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    curve = backfill_curve(OLD, NEW, QUERIES, FOUR, FOUR, np.array([2, 0, 3, 1]), shares=quarters)
    # An item that still has its old vector takes the query of the next label. First 2 is new, but
    # the old 1 lies nearer to its query; then 0, before which lies the old 3. With 3 new as well,
    # queries 0 and 3 are right; with 1 all are.
    assert curve.recall_at_1.tolist() == [0, 0, 0, 0.5, 1]
    assert curve.area_recall_at_1 == pytest.approx((0 + 0 + 0.25 + 0.75) / 4)
    assert curve.area_by_query.tolist() == pytest.approx([3 / 8, 1 / 8, 1 / 8, 3 / 8])
    assert curve.order == "given"
    assert "area of R@1 0.250" in repr(curve)
    uneven = backfill_curve(
        OLD, NEW, QUERIES, FOUR, FOUR, np.array([2, 0, 3, 1]), shares=(0.5, 0.75, 1)
    )
    assert uneven.area_recall_at_1 == pytest.approx((0.25 + 0.75) / 2)
    # With 1 still old, queries 1 and 2 meet their item second, an average precision of 1/2.
    assert curve.mean_average_precision[-2:].tolist() == [0.75, 1]


def test_ends_are_the_old_and_the_new_gallery_and_flips_are_told_from_before() -> None:
    rng = np.random.default_rng(0)

    def vectors(count: int, noise: float) -> np.ndarray:
        raw = centres[np.arange(count) % 10] + noise * rng.standard_normal((count, 8))
        return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)

    centres = rng.standard_normal((10, 8))
    labels = np.arange(60) % 10
    old, new, queries = vectors(60, 1.5), vectors(60, 0.5), vectors(60, 0.7)
    ends = [metrics.rank(queries, side, labels, labels) for side in (old, new)]
    for order in ("random", "uncertain", "farthest", "column"):
        curve = backfill_curve(
            old, new, queries, labels, labels, order, values=np.arange(60), seed=1
        )
        assert curve.shares == SHARES
        assert curve.recall_at_1[0] == ends[0].recall_at(1)
        assert curve.recall_at_1[-1] == ends[1].recall_at(1)
        assert curve.mean_average_precision[0] == ends[0].mean_average_precision
        assert curve.mean_average_precision[-1] == ends[1].mean_average_precision
        assert curve.negative_rate[0] == 0
        lost = ends[0].hits(1) & ~ends[1].hits(1)
        assert curve.negative_rate[-1] == lost.mean()
        assert 0 < curve.area_recall_at_1 < 1
        assert curve.area_recall_at_1 == pytest.approx(
            ((curve.recall_at_1[1:] + curve.recall_at_1[:-1]) / 2 * np.diff(SHARES)).sum()
        )
        # Half of the items are new in the middle, those in front.
        places = ORDERS[order](old, labels, np.arange(60), 1)[:30]
        mixed = old.copy()
        mixed[places] = new[places]
        middle = metrics.rank(queries, mixed, labels, labels)
        assert curve.recall_at_1[SHARES.index(0.5)] == middle.recall_at(1)
    told = backfill_curve(old, new, queries, labels, labels, before=np.ones(60, bool))
    assert told.negative_rate == pytest.approx(1 - told.recall_at_1)
    known = backfill_curve(old, new, queries, labels, labels, ends=(ends[0], ends[1]))
    assert (known.hits == backfill_curve(old, new, queries, labels, labels).hits).all()


def test_curves_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="no order 'best'; there are random, uncertain"):
        backfill_curve(OLD, NEW, QUERIES, FOUR, FOUR, "best")
    with pytest.raises(ConfigError, match="names each of the 4 items once"):
        backfill_curve(OLD, NEW, QUERIES, FOUR, FOUR, np.array([0, 1, 2, 2]))
    with pytest.raises(DimensionError, match="of the same items and of one width"):
        backfill_curve(OLD[:3], NEW, QUERIES, FOUR, FOUR)
    for shares in ((0.5,), (0, 0.5, 0.5), (0, 1.1), (1, 0)):
        with pytest.raises(ConfigError, match="two or more, ascending, from 0 to 1"):
            backfill_curve(OLD, NEW, QUERIES, FOUR, FOUR, shares=shares)


def test_a_threshold_for_a_far_of_everything_lets_everything_through() -> None:
    at = metrics.threshold_at_far(QUERIES, NEW, FOUR, FOUR, 1.0)
    assert metrics.operating_point(QUERIES, NEW, FOUR, FOUR, at).far == 1


def test_the_table_is_there_without_faiss_and_matplotlib() -> None:
    code = (
        "import sys; from samespace.backfill import ORDERS; import numpy as np;"
        "ORDERS['farthest'](np.eye(4, dtype=np.float32), np.arange(4), None, 0);"
        "print({'faiss', 'matplotlib', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
