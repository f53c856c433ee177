"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.intervals import POPULATIONS, simulate
from samespace import metrics
from samespace_edge import ConfigError, DimensionError


def unit(angles: list[float]) -> np.ndarray:
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], 1).astype(np.float32)


GALLERY = unit([0, 30, 60, 90])
GALLERY_LABELS = np.array([1, 2, 1, 3])


def test_ranking_by_hand() -> None:
    queries = unit([5, 85, 40])
    ranking = metrics.rank(queries, GALLERY, np.array([1, 2, 9]), GALLERY_LABELS)
    assert ranking.top.tolist() == [[0, 1, 2, 3], [3, 2, 1, 0], [1, 2, 0, 3]]
    assert ranking.first_match.tolist() == [0, 2, metrics.NO_MATCH]
    assert ranking.recall_at(1) == pytest.approx(1 / 3)
    assert ranking.recall_at(5) == pytest.approx(2 / 3)
    # Query 0 meets its two items at ranks 1 and 3; query 1 its one at rank 3; query 2 none.
    assert ranking.average_precision == pytest.approx([(1 + 2 / 3) / 2, 1 / 3, 0.0])
    assert ranking.mean_average_precision == pytest.approx((5 / 6 + 1 / 3) / 3)


def test_other_average_precisions_by_hand() -> None:
    # Of five items in the order of their cosine, the first, third and fifth are right.
    gallery = unit([0, 10, 20, 30, 40])
    ranking = metrics.rank(unit([0]), gallery, np.array([1]), np.array([1, 2, 1, 2, 1]))
    assert ranking.mean_average_precision == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert ranking.r_precision == pytest.approx([2 / 3])
    assert ranking.map_at_r == pytest.approx((1 + 2 / 3) / 3)
    assert ranking.map_at(1) == 1
    assert ranking.map_at(2) == pytest.approx(1 / 2)
    assert ranking.map_at(5) == pytest.approx(ranking.mean_average_precision)
    with pytest.raises(ConfigError, match="rank kept 5"):
        ranking.map_at(6)
    nothing = metrics.rank(unit([0]), gallery, np.array([9]), np.array([1, 2, 1, 2, 1]))
    assert (nothing.r_precision[0], nothing.map_at_r, nothing.map_at(3)) == (0, 0, 0)


def test_junk_is_neither_right_nor_wrong() -> None:
    gallery, labels = unit([0, 10, 20, 30, 40]), np.array([1, 2, 1, 2, 1])
    junk = np.array([[True, True, False, False, False]])
    ranking = metrics.rank(unit([0]), gallery, np.array([1]), labels, junk=junk)
    without = metrics.rank(unit([0]), gallery[2:], np.array([1]), labels[2:])
    assert ranking.top[:, :3].tolist() == [[2, 3, 4]]
    assert ranking.first_match.tolist() == without.first_match.tolist() == [0]
    assert ranking.mean_average_precision == without.mean_average_precision
    assert ranking.map_at_r == without.map_at_r
    assert ranking.matches.tolist() == [2]


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, labels and cameras of 300 pictures."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 40, 300)
    vectors = rng.normal(size=(40, 32))[labels] + 1.5 * rng.normal(size=(300, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels, rng.integers(0, 4, 300)


@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out_as_stanford_online_products_and_cub_count_it(seed: int) -> None:
    """Recall@k and MAP@R of every picture among all others, counted one query at a time."""
    vectors, labels, _ = scene(seed)
    ranking = metrics.rank(vectors, vectors, labels, labels, keep=20, junk=np.eye(300, dtype=bool))
    right = {k: [] for k in (1, 2, 4, 8)}
    at_r = []
    for i in range(300):
        others = np.delete(np.arange(300), i)
        order = others[np.argsort(-(vectors[others] @ vectors[i]), kind="stable")]
        same = labels[order] == labels[i]
        for k, found in right.items():
            found.append(bool(same[:k].any()))
        r = int(same.sum())
        hits = same[:r]
        at_r.append(float(np.sum(hits * np.cumsum(hits) / np.arange(1, r + 1)) / r) if r else 0.0)
    for k, found in right.items():
        assert ranking.recall_at(k) == pytest.approx(np.mean(found), abs=1e-12)
    assert ranking.map_at_r == pytest.approx(np.mean(at_r), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_junk_as_market_1501_counts_it(seed: int) -> None:
    """Pictures of a query's own label and camera are left out of its ranking."""
    vectors, labels, cameras = scene(seed)
    q, g = slice(0, 80), slice(80, 300)
    own = (labels[q, None] == labels[None, g]) & (cameras[q, None] == cameras[None, g])
    ranking = metrics.rank(vectors[q], vectors[g], labels[q], labels[g], junk=own)
    first, precisions = [], []
    for i in range(80):
        kept = np.flatnonzero(~own[i])
        order = kept[np.argsort(-(vectors[g][kept] @ vectors[i]), kind="stable")]
        places = np.flatnonzero(labels[g][order] == labels[i])
        first.append(len(places) > 0 and places[0] == 0)
        ranks = np.arange(1, len(places) + 1)
        precisions.append(float(np.mean(ranks / (places + 1))) if len(places) else 0.0)
    assert ranking.recall_at(1) == pytest.approx(np.mean(first), abs=1e-12)
    assert ranking.mean_average_precision == pytest.approx(np.mean(precisions), abs=1e-12)


def test_a_collapsed_model_scores_nothing_from_ties() -> None:
    same = np.tile(unit([10]), (8, 1))
    labels = np.arange(8)
    ranking = metrics.rank(same, same, labels, labels)
    assert ranking.recall_at(1) == 0
    assert (ranking.first_match == 7).all()


@pytest.mark.parametrize("items", [20, 122, 1000])
@pytest.mark.parametrize("dim", [3, 64, 128, 513])
def test_equal_vectors_get_equal_cosines(items: int, dim: int) -> None:
    """One vector for all pictures finds nothing, however the products are added up."""
    rng = np.random.default_rng(dim)
    one = rng.normal(size=(1, dim)).astype(np.float32)
    same = np.tile(one / np.linalg.norm(one), (items, 1))
    labels = np.arange(items) // 2
    ranking = metrics.rank(same, same, labels, labels)
    assert ranking.recall_at(1) == 0
    assert (ranking.first_match == items - 2).all()


def test_doubles_of_an_item_share_its_cosine() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(40, 96)).astype(np.float32)
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    which = rng.integers(0, 40, 700)
    queries = kinds + 0.0
    # Of every kind one item has the query's label; all its doubles come before it.
    labels = np.full(700, -1)
    for kind in range(40):
        labels[np.flatnonzero(which == kind)[0]] = kind
    ranking = metrics.rank(queries, kinds[which], np.arange(40), labels)
    assert ranking.first_match.tolist() == (np.bincount(which, minlength=40) - 1).tolist()
    assert (ranking.top_scores[:, :2] == ranking.top_scores[:, :1]).all()


def test_interval_of_a_share_by_hand() -> None:
    # Three labels with means 1, 1/2 and 0 of two queries each.
    found = metrics.ClusterRobust(np.array([0, 0, 1, 1, 2, 2])).share([1, 1, 1, 0, 0, 0])
    # Without a label: 1/4, 1/2, 3/4. Variance 2/3 (1/16 + 0 + 1/16), t of 2 degrees 4.3027.
    error = np.sqrt(2 / 3 * 2 / 16)
    margin = 4.302652729749464 * error / 0.25  # on the scale of log odds
    assert found.low == pytest.approx(1 / (1 + np.exp(margin)))
    assert found.high == pytest.approx(1 / (1 + np.exp(-margin)))
    assert found.over == "labels"


def test_interval_of_a_difference_by_hand() -> None:
    # Labels of one, two and three queries: leaving one out changes the others' weight.
    labels, values = np.array([0, 1, 1, 2, 2, 2]), [1, 0, 1, 0, -1, 0]
    means = [0 / 5, 0 / 4, 2 / 3]
    variance = 2 / 3 * sum((m - 1 / 6) ** 2 for m in means)
    found = metrics.ClusterRobust(labels).difference(values)
    margin = 4.302652729749464 * np.sqrt(variance)
    assert found.low == pytest.approx(max(-1, 1 / 6 - margin))
    assert found.high == pytest.approx(min(1, 1 / 6 + margin))


def test_with_a_query_a_label_intervals_are_students() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-1, 2, 60)
    found = metrics.ClusterRobust(np.arange(60)).difference(values)
    margin = 2.0009953780882688 * values.std(ddof=1) / np.sqrt(60)  # t of 59 degrees
    assert found.low == pytest.approx(values.mean() - margin)
    assert found.high == pytest.approx(values.mean() + margin)


@pytest.mark.parametrize("labels", [1, 8, 200])
def test_without_any_spread_intervals_are_exact(labels: int) -> None:
    intervals = metrics.ClusterRobust(np.repeat(np.arange(labels), 3))
    unseen = 1 - 0.025 ** (1 / labels)  # Clopper and Pearson, of none in so many
    right, wrong = np.ones(3 * labels), np.zeros(3 * labels)
    assert (intervals.share(right).low, intervals.share(right).high) == (
        pytest.approx(1 - unseen),
        1,
    )
    assert (intervals.share(wrong).low, intervals.share(wrong).high) == (0, pytest.approx(unseen))
    same = intervals.difference(wrong)
    assert (same.low, same.high) == (pytest.approx(-unseen), pytest.approx(unseen))


def test_a_single_flip_proves_nothing() -> None:
    values = np.zeros(300)
    values[7] = 1
    assert metrics.ClusterRobust(np.arange(300)).difference(values).low < 0


@pytest.mark.slow
@pytest.mark.parametrize("labels", [8, 10, 20, 50, 200])
def test_intervals_cover_the_truth_as_often_as_they_say(labels: int) -> None:
    """Of the populations that docs/benchmarks.md simulates: see `benchmarks.intervals`."""
    for population in POPULATIONS:
        cover, false_passes = simulate(labels, population, runs=2000, seed=0)
        # 2,000 runs: a standard error of half a per cent. Hard labels are seldom drawn where all
        # but a few are right, and then intervals cover less.
        least = 0.88 if population.accuracy > 0.9 else 0.93
        assert least < cover < 0.995, population
        assert false_passes < 0.04, population


def test_update_gain() -> None:
    assert metrics.update_gain(0.42, 0.40, 0.60) == pytest.approx(0.1)
    assert metrics.update_gain(0.30, 0.40, 0.60) == pytest.approx(-0.5)
    assert np.isnan(metrics.update_gain(0.5, 0.4, 0.4))
    assert np.isnan(metrics.update_gain(0.40, 0.50, 0.45))  # no advantage to have a share of


def test_flips() -> None:
    before = np.array([True, True, False, False, True])
    after = np.array([True, False, True, False, False])
    found = metrics.flips(before, after)
    assert found.negative.tolist() == [1, 4]
    assert found.positive.tolist() == [2]
    assert found.negative_rate == pytest.approx(0.4)
    assert found.positive_rate == pytest.approx(0.2)


def test_threshold_lets_through_what_it_says() -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((200, 16)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    gallery = queries[:100]
    labels = np.arange(200)
    at = metrics.threshold_at_far(queries, gallery, labels, labels[:100], 0.01)
    point = metrics.operating_point(queries, gallery, labels, labels[:100], at)
    pairs = 200 * 100 - 100
    assert 0.01 - 2 / pairs < point.far <= 0.01
    assert point.tar == 1.0  # every matching pair here is a vector with itself


def test_threshold_without_different_pairs() -> None:
    one = unit([0])
    assert np.isnan(metrics.threshold_at_far(one, one, np.array([1]), np.array([1]), 0.01))


def test_queries_asked_with_two_models_of_one_space() -> None:
    old = np.array([[1, 0], [0.6, 0.8], [1, 0]], np.float32)
    new = np.array([[0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    half = np.sqrt(0.5)
    assert metrics.joint(old, new) == pytest.approx(
        np.array([[half, half], [0.6, 0.8], [0, 0]]), abs=1e-6
    )
    assert metrics.joint(old, new, 0) == pytest.approx(old)
    assert metrics.joint(old, new, 1) == pytest.approx(new)
    # One search with the joint vector ranks as the mean of two searches' cosines does.
    rng = np.random.default_rng(0)
    old, new, gallery = (
        metrics.shorten(rng.normal(size=(n, 8)).astype(np.float32), 8) for n in (5, 5, 40)
    )
    mean = 0.3 * new @ gallery.T + 0.7 * old @ gallery.T
    asked = metrics.joint(old, new, 0.3)
    assert asked.dtype == np.float32
    assert ((asked @ gallery.T).argsort(1) == mean.argsort(1)).all()
    with pytest.raises(DimensionError, match=r"\(5, 8\) of the old model and \(5, 4\)"):
        metrics.joint(old, new[:, :4])
    with pytest.raises(ConfigError, match=r"weight 1\.5 of the new model"):
        metrics.joint(old, new, 1.5)
