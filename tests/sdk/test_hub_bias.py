"""The bias against hubs, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from samespace import metrics
from samespace_edge import ConfigError, DimensionError


def unit(angles: list[float]) -> np.ndarray:
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], 1).astype(np.float32)


BANK = unit([0, 60, 180])


def test_bias_by_hand() -> None:
    # Cosines with the bank: 1, 1/2, -1 for the item at 0°; 1/2, 1, -1/2 for the one at 60°.
    found = metrics.hub_bias(unit([0, 60]), BANK, k=2, weight=0.5)
    assert found.dtype == np.float32
    assert found == pytest.approx([-0.5 * 0.75, -0.5 * 0.75], abs=1e-6)
    assert metrics.hub_bias(unit([180]), BANK, k=1, weight=1) == pytest.approx([-1], abs=1e-6)
    assert metrics.hub_bias(unit([180]), BANK, k=2, weight=1) == pytest.approx([-0.25], abs=1e-6)


def test_a_k_beyond_the_bank_uses_all_of_it() -> None:
    everything = metrics.hub_bias(unit([0, 60]), BANK, k=3)
    assert everything == pytest.approx([-0.5 * 0.5 / 3, -0.5 * 1 / 3], abs=1e-6)
    assert metrics.hub_bias(unit([0, 60]), BANK, k=50) == pytest.approx(everything)
    assert metrics.hub_bias(unit([0, 60]), BANK) == pytest.approx(everything)


def test_a_hub_loses_its_first_place() -> None:
    """An item between all queries is nearest to every one of them, until it is corrected."""
    gallery = np.array([[1, 1, 1], [1, 0.1, 0], [0, 1, 0.1], [0.1, 0, 1]], np.float32)
    queries = np.array([[1, 0.6, 0.5], [0.5, 1, 0.6], [0.6, 0.5, 1]], np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    assert (queries @ gallery.T).argmax(1).tolist() == [0, 0, 0]
    bank = np.abs(np.random.default_rng(0).standard_normal((500, 3))).astype(np.float32)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    bias = metrics.hub_bias(gallery, bank, k=500, weight=1)
    assert bias.argmin() == 0
    assert (queries @ gallery.T + bias).argmax(1).tolist() == [1, 2, 3]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    gallery, bank = (rng.standard_normal((n, 8)).astype(np.float32) for n in (70, 30))
    whole = metrics.hub_bias(gallery, bank, k=7)
    direct = -0.5 * np.sort(gallery @ bank.T, axis=1)[:, -7:].mean(1)
    assert whole == pytest.approx(direct, abs=1e-6)
    monkeypatch.setattr(metrics._retrieval, "_PAIRS_AT_ONCE", 100)
    assert metrics.hub_bias(gallery, bank, k=7) == pytest.approx(whole, abs=1e-6)
    assert metrics.hub_bias(gallery[:0], bank).shape == (0,)


def test_what_cannot_be_computed() -> None:
    items = unit([0])
    with pytest.raises(ConfigError, match="holds no vectors"):
        metrics.hub_bias(items, BANK[:0])
    with pytest.raises(DimensionError, match=r"\(1, 2\) and bank \(3, 3\)"):
        metrics.hub_bias(items, np.ones((3, 3), np.float32))
    with pytest.raises(DimensionError):
        metrics.hub_bias(items, BANK[0])
    with pytest.raises(ConfigError, match="k has to be 1 or more"):
        metrics.hub_bias(items, BANK, k=0)
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="weight"):
            metrics.hub_bias(items, BANK, weight=weight)
