"""Training: it learns, it repeats, it resumes to the very same result, it refuses nonsense."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samespace import Dataset
from samespace_cloud.augment import Augmentation, augment, blend
from samespace_cloud.checkpoint import Checkpoint, read_tensors
from samespace_cloud.config import TrainConfig
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.pictures import decoded, hold_out
from samespace_cloud.training import train_cloud, train_edge, train_together
from samespace_edge import CheckpointError, ConfigError, Resize
from samespace_export import export_bundle

CLOUD = TrainConfig(
    model=ModelConfig("edge-xs", 32, dim=16),
    losses=(("cosface", 1.0),),
    epochs=6,
    batch_size=8,
    lr=5e-3,
    views=2,
    canvas=32,
    val_share=0.25,
    ema=0.8,
    augmentation=Augmentation(degrees=5, blur=0, saturation=0.1),
)
EDGE = replace(
    CLOUD,
    model=ModelConfig("edge-xs", 24, dim=16),
    losses=(("cosine-regression", 1.0),),
    init="cloud",
)


@pytest.fixture(scope="module")
def cloud(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return train_cloud(shop, CLOUD, tmp_path_factory.mktemp("cloud") / "cloud", lda_head=True)


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return checkpoint.model.state_dict()


def same(a: Checkpoint, b: Checkpoint) -> bool:
    return all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())


def test_training_is_repeatable_and_learns(shop: Dataset, tmp_path: Path) -> None:
    one = train_cloud(shop, CLOUD, tmp_path / "one")
    two = train_cloud(shop, CLOUD, tmp_path / "two")
    assert same(one, two)
    assert not same(one, train_cloud(shop, replace(CLOUD, seed=1), tmp_path / "three"))
    log = [json.loads(x) for x in (tmp_path / "one" / "log.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in log] == list(range(6))
    assert log[-1]["loss"] < log[0]["loss"]
    assert one.metrics["recall_at_1"] == pytest.approx(
        max(log, key=lambda e: e["score"])["recall_at_1"], abs=1e-4
    )
    assert one.classifier.shape == (6, 16)
    assert len(one.labels) == 6  # of 8 train labels a quarter validates


def test_checkpoints_come_back_as_they_were(cloud: Checkpoint, tmp_path: Path) -> None:
    cloud.save(tmp_path / "c")
    again = Checkpoint.load(tmp_path / "c")
    assert same(cloud, again)
    assert again.fingerprint == cloud.fingerprint
    assert torch.equal(again.classifier, cloud.classifier)
    assert again.labels == tuple(cloud.labels)
    assert again.card == cloud.card
    bundle = export_bundle(again.model, again.export_spec("c"), tmp_path / "c.bundle").bundle
    assert bundle.manifest.fingerprint == cloud.fingerprint
    assert bundle.manifest.card["head"] == "discriminant"


class Stop(Exception):
    pass


@pytest.mark.parametrize("how", ["ctrl-c", "crash"])
def test_a_stopped_training_resumes_to_the_very_same_result(
    shop: Dataset, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_cloud(shop, CLOUD, tmp_path / "whole")
    monkeypatch.setattr("samespace_cloud.trainer._SAVE_SECONDS", 0.0)

    def interrupt(stage: str, done: int, total: int) -> None:
        # In mid-epoch: six epochs of four steps.
        if stage.startswith("train") and done == 14:
            if how == "crash":
                raise Stop
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises((KeyboardInterrupt, Stop)):
        train_cloud(shop, CLOUD, tmp_path / "broken", progress=interrupt)
    assert (tmp_path / "broken" / "state.safetensors").exists()
    seen: list[int] = []
    resumed = train_cloud(
        shop,
        CLOUD,
        tmp_path / "broken",
        progress=lambda stage, done, total: seen.append(done) if "train" in stage else None,
    )
    # Ctrl-C loses nothing; a crash goes back to what was saved last, after the third epoch.
    assert seen[0] == (15 if how == "ctrl-c" else 13)
    assert same(whole, resumed)
    assert not (tmp_path / "broken" / "state.safetensors").exists()


def test_a_stopped_training_is_not_mixed_with_another(shop: Dataset, tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage.startswith("train") and done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_cloud(shop, CLOUD, tmp_path / "a", progress=interrupt)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train_cloud(shop, replace(CLOUD, lr=1e-3), tmp_path / "a")


def test_an_edge_model_learns_the_clouds_space(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in weights(cloud).items()}
    edge = train_edge(shop, EDGE, cloud, tmp_path / "edge", ridge_head=True)
    assert all(torch.equal(v, before[k]) for k, v in weights(cloud).items())
    assert edge.space == cloud.fingerprint
    assert edge.role == "edge"
    assert edge.fingerprint != cloud.fingerprint
    log = [json.loads(x) for x in (tmp_path / "edge" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    again = train_edge(shop, EDGE, cloud, tmp_path / "again", ridge_head=True)
    assert same(edge, again)


@pytest.mark.parametrize(
    "losses",
    [
        (("frozen-classifier", 1.0), ("cosface", 1.0)),
        (("ranking", 1.0), ("cosine-regression", 0.5)),
    ],
    ids=["HVS: new and frozen classifier", "ranking"],
)
def test_other_recipes_train(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path, losses: tuple[tuple[str, float], ...]
) -> None:
    config = replace(EDGE, losses=losses, epochs=2, mixed_views=1, steady=1.0)
    edge = train_edge(shop, config, cloud, tmp_path / "edge", gallery_aware=True)
    assert edge.card["gallery-aware"].startswith("yes")
    assert np.isfinite(edge.metrics["map"])


def test_a_loss_without_an_anchor_is_warned_of(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path
) -> None:
    config = replace(EDGE, losses=(("cosface", 1.0),), epochs=1)
    with pytest.warns(UserWarning, match="vectors mean nothing in the cloud's gallery"):
        train_edge(shop, config, cloud, tmp_path / "edge")


def test_cloud_and_edge_learn_together(shop: Dataset, tmp_path: Path) -> None:
    small = replace(CLOUD, model=ModelConfig("edge-xs", 24, dim=16))
    config = replace(CLOUD, align_from=0.1, align=20.0, epochs=10, val_share=0.0)
    anchor, edge = train_together(shop, config, small, tmp_path / "both")
    assert edge.space == anchor.fingerprint
    assert Checkpoint.load(tmp_path / "both" / "edge").fingerprint == edge.fingerprint

    def cosine(a: Checkpoint, b: Checkpoint) -> float:
        from samespace_cloud.frozen_network import embed_pictures

        pictures = decoded(shop, shop.train, Resize(32, 32))
        cpu = torch.device("cpu")
        vectors = [embed_pictures(c.model, pictures, cpu) for c in (a, b)]
        return float((vectors[0] * vectors[1]).sum(1).mean())

    unaligned = train_together(shop, replace(config, align=0.0), small, tmp_path / "apart")
    assert cosine(anchor, edge) > cosine(*unaligned) + 0.02


def test_deploying_at_another_size(shop: Dataset, tmp_path: Path) -> None:
    checkpoint = train_cloud(
        shop, replace(CLOUD, epochs=1), tmp_path / "c", deploy_size=48, lda_head=True
    )
    assert checkpoint.model.config.input_size == 48
    assert checkpoint.export_spec("c").resize == Resize(48, 48)
    with pytest.raises(ConfigError, match="needs lda_head"):
        train_cloud(shop, CLOUD, tmp_path / "d", deploy_size=48)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="epochs = 0, lr = -1"):
        replace(CLOUD, epochs=0, lr=-1)
    with pytest.raises(ConfigError, match="unknown training settings: speed"):
        TrainConfig.from_json({**CLOUD.to_json(), "speed": 9})
    with pytest.raises(ConfigError, match="there is no backbone"):
        ModelConfig("nothing", 32)
    with pytest.raises(ConfigError, match="at least 16"):
        ModelConfig("edge-s", 8)
    assert TrainConfig.from_json(json.loads(json.dumps(EDGE.to_json()))) == EDGE


def test_wrong_combinations_are_refused(shop: Dataset, cloud: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use train_edge"):
        train_cloud(shop, EDGE, tmp_path / "a")
    wide = replace(EDGE, model=ModelConfig("edge-xs", 24, dim=32))
    with pytest.raises(ConfigError, match="dim 32 is not the cloud's 16"):
        train_edge(shop, wide, cloud, tmp_path / "b")
    with pytest.raises(ConfigError, match="needs the cloud model"):
        train_cloud(shop, replace(CLOUD, init="cloud"), tmp_path / "c")


def test_a_pickle_is_never_read(cloud: Checkpoint, tmp_path: Path) -> None:
    cloud.save(tmp_path / "c")
    for content in (pickle.dumps({"w": 1}), b"PK\x03\x04 a torch zip"):
        (tmp_path / "c" / "weights.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="is a pickle"):
            Checkpoint.load(tmp_path / "c")
    (tmp_path / "c" / "weights.safetensors").write_bytes(b"garbage, but no pickle")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        Checkpoint.load(tmp_path / "c")
    shutil.rmtree(tmp_path / "c")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        Checkpoint.load(tmp_path / "c")


def test_validation_labels_are_never_trained_on(shop: Dataset) -> None:
    held = hold_out(shop.train, 0.25, seed=3)
    validation = {i.label for i in held.queries + held.gallery}
    assert len(validation) == 2
    assert not validation & {i.label for i in held.train}
    assert {i.label for i in held.queries} == {i.label for i in held.gallery}
    assert len(held.train) + len(held.queries) + len(held.gallery) == len(shop.train)
    assert hold_out(shop.train, 0.25, seed=3) == held
    assert hold_out(shop.train, 0.0, seed=3).train == shop.train


def test_decoded_pictures_are_cached_by_content(shop: Dataset, tmp_path: Path) -> None:
    resize = Resize(16, 16)
    first = decoded(shop, shop.train, resize, tmp_path)
    assert first.shape == (48, 16, 16, 3)
    (cached,) = tmp_path.glob("*.npy")
    os.utime(cached, (1, 1))
    assert np.array_equal(decoded(shop, shop.train, resize, tmp_path), first)
    assert cached.stat().st_mtime == 1
    decoded(shop, shop.train[:9], resize, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_views_depend_on_the_seed_alone() -> None:
    images = torch.randint(0, 256, (6, 3, 20, 20), dtype=torch.uint8)
    how = Augmentation(hue=0.05)
    torch.manual_seed(1)
    one = augment(images, how, 7)
    torch.manual_seed(2)
    two = augment(images, how, 7)
    assert torch.equal(one, two)
    assert one.dtype == torch.uint8
    assert one.shape == images.shape
    assert not torch.equal(one, augment(images, how, 8))
    assert torch.equal(blend(images, 3), blend(images, 3))
    assert not torch.equal(blend(images, 3), images)


def test_a_models_output_does_not_depend_on_its_batch(cloud: Checkpoint) -> None:
    model = EmbeddingModel(cloud.model.config)
    model.load_state_dict(weights(cloud))
    model.double().eval()  # in float32, processors round by the size of the batch, up to 1e-4
    x = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(model(x)[2], model(x[2:3])[0], rtol=0, atol=1e-9)


def test_tensors_keep_their_metadata(cloud: Checkpoint, tmp_path: Path) -> None:
    cloud.save(tmp_path / "c")
    tensors, metadata = read_tensors(tmp_path / "c" / "weights.safetensors")
    assert "classifier" in tensors
    assert json.loads(metadata["checkpoint"])["role"] == "cloud"


def test_a_stop_while_the_head_is_fitted_does_not_train_again(
    shop: Dataset, tmp_path: Path
) -> None:
    whole = train_cloud(shop, CLOUD, tmp_path / "whole", lda_head=True)

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "fit the head":
            raise Stop

    with pytest.raises(Stop):
        train_cloud(shop, CLOUD, tmp_path / "broken", lda_head=True, progress=interrupt)
    steps: list[int] = []
    again = train_cloud(
        shop,
        CLOUD,
        tmp_path / "broken",
        lda_head=True,
        progress=lambda stage, done, total: steps.append(done) if "train" in stage else None,
    )
    assert set(steps) == {24}  # the end is announced, no step is taken
    assert same(whole, again)


def test_a_stopped_edge_training_does_not_go_on_with_another_teacher(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path
) -> None:
    other = train_cloud(shop, replace(CLOUD, seed=5, epochs=1), tmp_path / "other")

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage.startswith("train") and done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_edge(shop, EDGE, cloud, tmp_path / "edge", progress=interrupt)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train_edge(shop, EDGE, other, tmp_path / "edge")


def test_edge_validates_on_what_its_cloud_has_not_seen(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path
) -> None:
    edge = train_edge(shop, replace(EDGE, seed=9, epochs=1), cloud, tmp_path / "edge")
    assert set(edge.labels) == set(cloud.labels)


def test_a_validation_split_of_the_users_own_is_used(shop: Dataset, tmp_path: Path) -> None:
    chosen = sorted({i.label for i in shop.train})[:2]
    items = [replace(i, split="val") if i.label in chosen else i for i in shop.items]
    checkpoint = train_cloud(shop.subset(items), replace(CLOUD, epochs=1), tmp_path / "c")
    assert set(checkpoint.labels) == {i.label for i in shop.train} - set(chosen)
    assert "recall_at_1" in checkpoint.metrics


def test_settings_that_would_be_ignored_are_refused(shop: Dataset, tmp_path: Path) -> None:
    for more in ({"mixed_views": 1}, {"steady": 1.0}):
        with pytest.raises(ConfigError, match="learning from a cloud model"):
            train_cloud(shop, replace(CLOUD, **more), tmp_path / "c")
    two = replace(CLOUD, losses=(("cosface", 1.0), ("arcface", 1.0)))
    with pytest.raises(ConfigError, match="takes one loss"):
        train_together(shop, two, CLOUD, tmp_path / "d")
    with pytest.raises(ConfigError, match="cannot be read"):
        TrainConfig.from_json({**CLOUD.to_json(), "augmentation": {"loud": 1}})
