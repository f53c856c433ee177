"""A whole search on a few pictures: it ends, it resumes, and what it names can be trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from samespace import Dataset
from samespace_cloud.augment import Augmentation
from samespace_cloud.backbones import macs
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.cli.nas import nas
from samespace_cloud.config import TrainConfig
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.nas import latency
from samespace_cloud.nas.config import NasConfig
from samespace_cloud.nas.evolution import Budget
from samespace_cloud.nas.score import Examination
from samespace_cloud.nas.search import search_architecture
from samespace_cloud.nas.space import Architecture, elastic
from samespace_cloud.training import train_edge
from samespace_edge import ConfigError

TRAIN = TrainConfig(
    model=ModelConfig("edge-xs", 24, dim=16),
    losses=(("cosine-regression", 1.0),),
    epochs=2,
    batch_size=12,
    views=2,
    canvas=32,
    val_share=0.25,
    augmentation=Augmentation(degrees=5, blur=0, saturation=0.1),
)
CONFIG = NasConfig(
    TRAIN,
    sizes=(16, 24),
    random_paths=1,
    score_views=32,
    population=4,
    generations=2,
    parents=2,
    budget=Budget(mmacs=0.25),
)


@pytest.fixture(scope="module")
def cloud() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(EmbeddingModel(ModelConfig("edge-xs", 32, dim=16)).eval(), "cloud")


class Stop(Exception):
    pass


def test_a_search_ends_and_a_stopped_one_ends_the_same(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samespace_cloud.trainer._SAVE_SECONDS", 0.0)
    before = {k: v.clone() for k, v in cloud.model.state_dict().items()}
    result = search_architecture(shop, CONFIG, cloud, tmp_path / "whole")
    assert all(torch.equal(v, before[k]) for k, v in cloud.model.state_dict().items())
    assert len(result.candidates) == 8
    for candidate in result.candidates:
        assert candidate.mmacs <= 0.25
        scores = candidate.scores
        assert scores["r3"] == pytest.approx(scores["m_qq"] * scores["m_qg"])
        assert 0 < scores["r1"] <= 1

    # Once while the supernet is trained, in its second epoch, and once while candidates are scored.
    for stage, at in (("train the supernet", 6), ("search", 3)):

        def stop(now: str, done: int, total: int, stage: str = stage, at: int = at) -> None:
            if now == stage and done == at:
                raise Stop

        with pytest.raises(Stop):
            search_architecture(shop, CONFIG, cloud, tmp_path / "broken", progress=stop)
    resumed = search_architecture(shop, CONFIG, cloud, tmp_path / "broken")
    assert resumed == result

    found = json.loads((tmp_path / "broken" / "architectures.json").read_text())
    assert found == json.loads((tmp_path / "whole" / "architectures.json").read_text())
    best = found["best"]
    model = ModelConfig(best["backbone"], best["input_size"], dim=16)
    assert macs(EmbeddingModel(model), model.input_size) / 1e6 == best["mmacs"] <= 0.25
    assert found["pareto"][-1] == best
    start = Checkpoint.load(tmp_path / "broken" / "best")
    assert start.model.config == model
    assert start.space == cloud.fingerprint
    assert start.metrics == best["scores"]
    edge = train_edge(
        shop, replace(TRAIN, model=model, epochs=1), cloud, tmp_path / "edge", start=start
    )
    assert edge.space == cloud.fingerprint
    assert found["budget"]["mmacs"] == 0.25
    # Another budget takes the same supernet; other settings of its training do not.
    steps: list[str] = []
    wider = replace(CONFIG, budget=Budget(mmacs=0.3), population=1, reward="r2")
    search_architecture(
        shop, wider, cloud, tmp_path / "whole", progress=lambda stage, d, t: steps.append(stage)
    )
    assert "train the supernet" not in steps
    with pytest.raises(ConfigError, match="a supernet of other settings"):
        search_architecture(shop, replace(CONFIG, rule="uniform"), cloud, tmp_path / "whole")


def test_the_shuffle_space_from_the_command_line(
    shop_csv: Path, cloud: Checkpoint, tmp_path: Path
) -> None:
    cloud.save(tmp_path / "cloud")
    options: list[Any] = [
        *(shop_csv, "--cloud", tmp_path / "cloud", "--out", tmp_path / "nas", "--budget", "2x"),
        *("--space", "shuffle", "--width", 0.1, "--sizes", "16,24", "--rule", "uniform"),
        *("--population", 3, "--generations", 1, "--epochs", 1, "--views", 1, "--json"),
        *("--batch-size", 8, "--val-share", 0.25),
    ]
    ran = CliRunner().invoke(nas, [str(o) for o in options], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    limit = macs(cloud.model, 32) / 2e6
    assert found["scored"] == 3
    assert found["best"]["mmacs"] <= found["budget"]["mmacs"] == pytest.approx(limit)
    assert found["best"]["backbone"].startswith("sh-s4-")
    assert f"--backbone {found['best']['backbone']} --size " in found["command"]


def test_what_the_command_line_refuses(shop_csv: Path, cloud: Checkpoint, tmp_path: Path) -> None:
    cloud.save(tmp_path / "cloud")
    base = [str(shop_csv), "--cloud", str(tmp_path / "cloud"), "--out", str(tmp_path / "nas")]
    for options, said in (
        ([], "say what may be spent"),
        (["--budget", "80"], "not a multiple such as 80x"),
        (["--budget", "80x", "--mmacs", "3"], "give one of them"),
        (["--mmacs", "3", "--sizes", "a"], "not numbers"),
    ):
        ran = CliRunner().invoke(nas, [*base, *options])
        assert ran.exit_code == 2
        assert said in ran.output


def test_wrong_searches_are_refused(shop: Dataset, cloud: Checkpoint, tmp_path: Path) -> None:
    other = replace(TRAIN, model=ModelConfig("edge-xs", 24, dim=8))
    with pytest.raises(ConfigError, match="dim 8 is not the cloud's 16"):
        search_architecture(shop, replace(CONFIG, train=other), cloud, tmp_path)
    with pytest.raises(ConfigError, match="there are none; set val_share above 0"):
        search_architecture(
            shop, replace(CONFIG, train=replace(TRAIN, val_share=0.0)), cloud, tmp_path
        )


def test_candidates_are_scored_with_views_from_all_over() -> None:
    material = SimpleNamespace(holdout=SimpleNamespace(queries=(1,)))

    class Views(SimpleNamespace):
        def __len__(self) -> int:
            return 5

    numbers = torch.arange(15)
    views = Views(inputs={16: numbers.view(3, 5, 1, 1, 1)}, taught=numbers.view(3, 5, 1), plain=3)
    few = Examination(material, views, torch.zeros(1), count=5)  # type: ignore[arg-type]
    images, taught = few.sample(16)
    assert torch.equal(images.flatten(), taught.flatten())
    assert sorted(i % 5 for i in images.flatten().tolist()) == [0, 1, 2, 3, 4]
    assert {i // 5 for i in images.flatten().tolist()} == {0, 1, 2}
    every = Examination(material, views, torch.zeros(1), count=99)  # type: ignore[arg-type]
    assert len(set(every.sample(16)[0].flatten().tolist())) == 15
    with pytest.raises(ConfigError, match="no metric 'x'; choose one of: map, recall_at_1"):
        Examination(material, views, torch.zeros(1), metric="x")  # type: ignore[arg-type]


def test_latency_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space = elastic(EmbeddingModel(ModelConfig("edge-xs", 32)).backbone.spec, 8, (16,))
    smallest = space.decode(space.smallest)
    found = latency.measured_latency(smallest)
    assert 0.0 < found < 100.0
    monkeypatch.setattr(latency, "export_bundle", lambda *a: pytest.fail("exported again"))
    again = Architecture(smallest.spec, 16, 8)
    assert np.isclose(latency.measured_latency(again), found)
