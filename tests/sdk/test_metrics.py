"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_interval_is_the_wider_of_queries_and_labels() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 50)
    by_label = np.repeat(rng.random(20) < 0.5, 50)  # pictures of a label stand or fall together
    clustered = metrics.Bootstrap(labels).interval(by_label)
    assert clustered.over == "labels"
    p = by_label.mean()
    expected = 1.96 * np.sqrt(p * (1 - p) / 20)
    assert (clustered.high - clustered.low) / 2 == pytest.approx(expected, rel=0.15)

    independent = rng.random(1000) < 0.3
    found = metrics.Bootstrap(np.arange(1000)).interval(independent)
    expected = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.15)
    assert found.low < independent.mean() < found.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(100):
        values = np.random.default_rng(seed).random(200) < 0.4
        found = metrics.Bootstrap(np.arange(200), resamples=400, seed=seed).interval(values)
        covered += found.low <= 0.4 <= found.high
    assert covered >= 88


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
