"""Evolution: budgets hold, nothing is scored twice, and a stopped search ends as it would have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samespace_cloud.backbones import BACKBONES, backbone_spec
from samespace_cloud.nas.evolution import (
    Budget,
    Candidate,
    Evolution,
    EvolutionConfig,
    SearchResult,
)
from samespace_cloud.nas.score import REWARDS, kendall_tau
from samespace_cloud.nas.space import Genotype, elastic
from samespace_edge import ConfigError

SPACE = elastic(backbone_spec("ir-s16-1x16x1s1k3-6x32x2s2k5-6x64x3s2k3"), dim=8, sizes=(16, 24, 32))
LEAST, MOST = (SPACE.decode(g).mmacs for g in (SPACE.smallest, SPACE.largest))
BUDGET = Budget(mmacs=4 * LEAST)
CONFIG = EvolutionConfig(population=8, generations=5, parents=4)


def score(genotype: Genotype) -> dict[str, float]:
    """Bigger is better, with a taste for kernels of 5: something to find."""
    values = SPACE.values(genotype)
    return {"r3": math.log(SPACE.decode(genotype).parameters) + (values["stage1.kernel"] == 5)}


def evolution(**more: Any) -> Evolution:
    given: dict[str, Any] = {
        "space": SPACE,
        "cost": SPACE.decode,
        "score": score,
        "reward": "r3",
        "budget": BUDGET,
        "config": CONFIG,
    }
    return Evolution(**(given | more))


def watched(seen: list[Genotype], stop_after: int | None = None) -> Callable[[Genotype], Any]:
    def scored(genotype: Genotype) -> dict[str, float]:
        if stop_after is not None and len(seen) == stop_after:
            raise KeyboardInterrupt
        seen.append(genotype)
        return score(genotype)

    return scored


@pytest.mark.parametrize("how", ["run", "random_search"])
def test_nothing_over_the_budget_is_ever_scored(how: str) -> None:
    seen: list[Genotype] = []
    limits = Budget(mmacs=4 * LEAST, parameters=20_000)
    result = getattr(evolution(score=watched(seen), budget=limits), how)()
    assert len(seen) == len(set(seen)) == len(result.candidates) == 40
    assert all(SPACE.decode(g).mmacs <= 4 * LEAST for g in seen)
    assert all(SPACE.decode(g).parameters <= 20_000 for g in seen)
    assert all(c.mmacs <= 4 * LEAST for c in result.candidates)
    assert MOST > 40 * LEAST  # the budget does shut out


def test_evolution_beats_as_many_draws_at_random() -> None:
    space = elastic(BACKBONES["lite0-trunk"])

    def worth(genotype: Genotype) -> dict[str, float]:
        genes = zip(genotype, space.dimensions, strict=True)
        return {"r3": sum(math.sqrt(g / len(d.choices)) for g, d in genes)}

    limits = Budget(mmacs=10 * space.decode(space.smallest).mmacs)
    for seed in range(3):
        config = EvolutionConfig(population=16, generations=8, parents=6, seed=seed)
        search = evolution(
            space=space, cost=space.decode, config=config, score=worth, budget=limits
        )
        bred, drawn = search.run(), search.random_search()
        assert len(bred.candidates) == len(drawn.candidates) == 128
        assert bred.best.scores["r3"] > drawn.best.scores["r3"]


@pytest.mark.parametrize("stop", [0, 3, 8, 21, 39])
def test_a_stopped_search_ends_as_it_would_have(tmp_path: Path, stop: int) -> None:
    whole = evolution(folder=tmp_path / "whole").run()
    first: list[Genotype] = []
    with pytest.raises(KeyboardInterrupt):
        evolution(score=watched(first, stop), folder=tmp_path / "broken").run()
    assert len(first) == stop
    second: list[Genotype] = []
    resumed = evolution(score=watched(second), folder=tmp_path / "broken").run()
    assert resumed == whole
    assert len(first) + len(second) == 40
    files = [(tmp_path / name / "history.jsonl").read_text() for name in ("whole", "broken")]
    assert files[0] == files[1]
    assert resumed.pareto() == whole.pareto()


def test_half_a_line_is_as_good_as_none(tmp_path: Path) -> None:
    whole = evolution(folder=tmp_path).run()
    file = tmp_path / "history.jsonl"
    text = file.read_text()
    file.write_text(text[:-9])
    seen: list[Genotype] = []
    assert evolution(score=watched(seen), folder=tmp_path).run() == whole
    assert len(seen) == 1
    assert file.read_text() == text


def test_scores_serve_the_next_budget_but_not_other_settings(tmp_path: Path) -> None:
    evolution(folder=tmp_path, about=["supernet 1"]).run()
    seen: list[Genotype] = []
    wider = Budget(mmacs=5 * LEAST)
    again = evolution(
        folder=tmp_path, about=["supernet 1"], budget=wider, score=watched(seen)
    ).run()
    assert len(seen) < len(again.candidates)
    with pytest.raises(ConfigError, match="search with other settings"):
        evolution(folder=tmp_path, about=["supernet 2"]).run()


def test_seeds_differ_and_repeat() -> None:
    one = evolution().run()
    assert evolution().run() == one
    assert evolution(config=replace(CONFIG, seed=1)).run() != one


def test_latency_is_measured_last_and_once(tmp_path: Path) -> None:
    timed: list[Genotype] = []

    def latency(genotype: Genotype) -> float:
        timed.append(genotype)
        return SPACE.decode(genotype).parameters / 1000

    limits = Budget(mmacs=4 * LEAST, latency_ms=10.0)
    found = evolution(budget=limits, latency=latency, folder=tmp_path).run()
    assert len(timed) == len(set(timed))
    assert all(SPACE.decode(g).mmacs <= 4 * LEAST for g in timed)
    assert all(c.latency_ms is not None and c.latency_ms <= 10 for c in found.candidates)
    count = len(timed)
    # Times vary: a search that goes on keeps those that it has.
    again = evolution(budget=limits, latency=lambda g: 0.0, folder=tmp_path).run()
    assert again == found
    assert len(timed) == count
    with pytest.raises(ConfigError, match="needs something that measures it"):
        evolution(budget=limits)


def test_where_nothing_fits_the_smallest_is_named() -> None:
    with pytest.raises(ConfigError, match=rf"budget \(mmacs .*the smallest has {LEAST:.3f} MMACs"):
        evolution(budget=Budget(mmacs=LEAST / 2)).run()
    with pytest.raises(ConfigError, match=r"latency_ms 1\): the smallest has .* 5\.00 ms"):
        evolution(budget=Budget(latency_ms=1), latency=lambda g: 5.0).run()


def test_a_space_that_is_all_scored_ends_the_search() -> None:
    tiny = elastic(backbone_spec("ir-s8-1x8x2s1k3-1x8x1s2k3"), dim=8, sizes=(16, 24))
    result = evolution(
        space=tiny, cost=tiny.decode, score=lambda g: {"r3": 1.0}, budget=Budget()
    ).run()
    assert tiny.size == 8
    assert len(result.candidates) == 8
    # Of equals the one that costs least is best, and alone on the front.
    assert result.best.genotype == tiny.smallest
    assert result.pareto() == (result.best,)


def test_the_front_by_hand() -> None:
    rows = [(1.0, 0.2), (2.0, 0.2), (3.0, 0.5), (4.0, 0.4), (5.0, 0.9), (3.0, 0.6)]
    candidates = tuple(
        Candidate((i,), cost, 0, None, {"r": value}) for i, (cost, value) in enumerate(rows)
    )
    result = SearchResult(candidates, "r")
    assert [c.genotype for c in result.pareto()] == [(0,), (5,), (4,)]
    assert [c.genotype[0] for c in result.ranked] == [4, 5, 2, 3, 0, 1]


def test_unknown_rewards_name_the_known() -> None:
    with pytest.raises(ConfigError, match="no reward 'r9'; scored are r3"):
        evolution(reward="r9").run()


def test_rewards_by_hand() -> None:
    assert {k: reward(0.5, 0.4) for k, reward in REWARDS.items()} == {
        "r1": 0.5,
        "r2": 0.4,
        "r3": 0.2,
    }


@pytest.mark.parametrize(
    ("one", "other", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),  # one of six pairs the wrong way round
        ([1, 2, 3], [1, 1, 2], 2 / math.sqrt(3 * 2)),  # a tie in one
        ([1, 1, 2, 3], [1, 1, 3, 2], 3 / 5),  # a tie in both: 4 agree, 1 does not, of 5 and 5
        ([12, 2, 1, 12, 2], [1, 4, 7, 1, 0], -0.4714045207910316),  # scipy's own example
    ],
)
def test_kendall_tau_by_hand(one: list[float], other: list[float], tau: float) -> None:
    assert kendall_tau(one, other) == pytest.approx(tau)


def test_kendall_tau_of_nothing() -> None:
    assert math.isnan(kendall_tau([1, 1], [1, 2]))
    with pytest.raises(ConfigError, match="2 and 1 scores"):
        kendall_tau([1, 2], [1])
