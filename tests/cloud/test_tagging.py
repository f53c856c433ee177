"""Taggers: they learn, they repeat, they come back, and their updates turn fewer answers over."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samespace import Dataset
from samespace.regressions import compare, read_predictions
from samespace_cloud.augment import Augmentation
from samespace_cloud.checkpoint import Checkpoint, read_tensors, write_tensors
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.tagging import (
    METHODS,
    DivergedError,
    FromPictures,
    FromVectors,
    SavedLogits,
    TaggerCheckpoint,
    TaggerConfig,
    UpdateConfig,
    ensemble_of,
    interpolate,
    open_labelled,
    predictions_of,
    train_tagger,
    update_tagger,
)
from samespace_cloud.tagging.data import held_out, part, read_labelled
from samespace_edge import CheckpointError, ConfigError, DataError

CLASSES = 5
CONFIG = TaggerConfig(
    FromPictures("edge-xs", 16, "squash"),
    epochs=25,
    batch_size=16,
    lr=1e-2,
    ema=0.8,
    views=2,
    views_seed=0,
    augmentation=Augmentation(degrees=5, blur=0, flip=0),
)
QUICK = replace(CONFIG, epochs=2)


def picture(label: int, shot: int) -> Image.Image:
    """Two colours of a label, so far off that pictures of two labels may look alike."""
    noise = np.random.default_rng(shot)
    colours = np.random.default_rng(label + 5).integers(60, 200, (2, 3))
    pixels = np.repeat(np.repeat(colours[None], 10, axis=1), 20, axis=0).astype(float)
    pixels += noise.normal(0, 30, pixels.shape)
    pixels[:, :10] += noise.normal(0, 60, 3)
    pixels[:, 10:] += noise.normal(0, 60, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_manifest(folder: Path, rows: list[tuple[str, str, str]], name: str = "c.csv") -> Path:
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "shelf"])
        writer.writerows((*row, row[1][-1]) for row in rows)
    return folder / name


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five classes with 48 train, 4 val and 60 test pictures each."""
    folder = tmp_path_factory.mktemp("classes")
    rows, shot = [], 0
    for label in range(CLASSES):
        for split, count in (("train", 48), ("val", 4), ("test", 60)):
            for _ in range(count):
                shot += 1
                picture(label, shot).save(folder / f"{shot}.png")
                rows.append((f"{shot}.png", f"class{label}", split))
    return open_labelled(write_manifest(folder, rows))


@pytest.fixture(scope="module")
def data(many: Dataset) -> Dataset:
    """A quarter of them to train on."""
    train = [i for i in many.items if i.split == "train"]
    return many.subset([*train[::4], *(i for i in many.items if i.split != "train")])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def old(data: Dataset, runs: Path) -> TaggerCheckpoint:
    return train_tagger(data, CONFIG, runs / "old")


@pytest.fixture(scope="module")
def two_classes(data: Dataset) -> Dataset:
    """Of the same pictures those of classes 3 and 1, as a dataset of its own."""
    return data.subset([i for i in data.items if i.label in ("class3", "class1")])


def same(a: TaggerCheckpoint, b: TaggerCheckpoint) -> bool:
    return a.fingerprint == b.fingerprint


def test_a_tagger_learns(old: TaggerCheckpoint, data: Dataset, runs: Path) -> None:
    log = [json.loads(x) for x in (runs / "old" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    assert old.metrics["accuracy"] > 2 / CLASSES
    found = predictions_of(old, data)
    assert np.mean(found.predicted == found.labels) > 2 / CLASSES
    assert old.classes == tuple(f"class{i}" for i in range(CLASSES))
    assert old.card["validated on"] == "20 pictures"
    assert not (runs / "old" / "state.safetensors").exists()


def test_the_same_settings_give_the_same_weights(data: Dataset, tmp_path: Path) -> None:
    one = train_tagger(data, QUICK, tmp_path / "one")
    assert same(one, train_tagger(data, QUICK, tmp_path / "two"))
    assert not same(one, train_tagger(data, replace(QUICK, seed=1), tmp_path / "three"))


SGD = replace(QUICK, optimizer="sgd", lr=0.05, clip=0.0)


@pytest.mark.parametrize("quick", [QUICK, SGD], ids=lambda c: c.optimizer)
def test_a_stopped_training_goes_on_to_the_same_weights(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path, quick: TaggerConfig
) -> None:
    update = UpdateConfig("focal-kl")
    whole = update_tagger(data, quick, update, old, tmp_path / "whole")

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage.startswith("train") and done == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        update_tagger(data, quick, update, old, tmp_path / "part", progress=interrupt)
    other = UpdateConfig("focal-kl", beta=1.0)
    with pytest.raises(CheckpointError, match="a stopped training with other settings"):
        update_tagger(data, quick, other, old, tmp_path / "part")
    assert same(whole, update_tagger(data, quick, update, old, tmp_path / "part"))


def test_held_to_old_logits_a_new_tagger_turns_fewer_answers_over(
    many: Dataset, tmp_path: Path
) -> None:
    config = replace(CONFIG, epochs=16, batch_size=32)
    old = train_tagger(many, config, tmp_path / "old")
    before = predictions_of(old, many)
    rates = {"none": 0.0, "focal-logit": 0.0}
    for seed in (1, 2):
        for name in rates:
            other, how = replace(config, seed=seed), UpdateConfig(name)
            new = update_tagger(many, other, how, old, tmp_path / f"{name}{seed}")
            report = compare(before, predictions_of(new, many))
            rates[name] += report.negative_rate.value / 2
    assert rates["focal-logit"] < 0.8 * rates["none"]


@pytest.mark.parametrize("name", [m for m in sorted(METHODS) if m != "none"])
def test_every_method_trains_to_weights_of_its_own(
    old: TaggerCheckpoint, data: Dataset, runs: Path, tmp_path: Path, name: str
) -> None:
    update = UpdateConfig(name, members=2)
    new = update_tagger(data, QUICK, update, old, tmp_path / "new")
    plain = train_tagger(data, QUICK, tmp_path / "plain")
    assert not same(new, plain)
    assert set(new.metrics) == {"accuracy", "old_accuracy", "negative_flips", "positive_flips"}
    assert new.metrics["old_accuracy"] == old.metrics["accuracy"]
    gained = new.metrics["positive_flips"] - new.metrics["negative_flips"]
    assert new.metrics["accuracy"] - old.metrics["accuracy"] == pytest.approx(gained)
    assert new.card["classes"] == "5 of the old one's, 0 new, 0 given up"
    again = TaggerCheckpoint.load(tmp_path / "new")
    assert again.settings["update"]["method"] == name
    assert len(again.members) == (2 if name == "ensemble" else 1)


def test_without_a_term_an_update_is_a_training(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    plain = train_tagger(data, QUICK, tmp_path / "plain")
    assert same(plain, update_tagger(data, QUICK, UpdateConfig("none"), old, tmp_path / "none"))
    idle = UpdateConfig("focal-logit", weight=0.0)
    assert same(plain, update_tagger(data, QUICK, idle, old, tmp_path / "idle"))


def test_members_are_averaged_and_trained_once(data: Dataset, tmp_path: Path) -> None:
    update = UpdateConfig("ensemble", members=2)
    stages: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    first = train_tagger(data, QUICK, tmp_path / "old")
    both = update_tagger(data, QUICK, update, first, tmp_path / "both")
    items = part(data, "val")
    members = [TaggerCheckpoint.load(tmp_path / f"both-member-{i}") for i in range(2)]
    # One folder of views, one set of pictures of each kind.
    assert len(list((tmp_path / "views").iterdir())) == 1
    expected = (members[0].predict(data, items) + members[1].predict(data, items)) / 2
    assert torch.equal(both.predict(data, items), expected)
    again = update_tagger(data, QUICK, update, first, tmp_path / "both", progress=progress)
    assert same(both, again)
    assert not any(stage.startswith("train") for stage in stages)
    # Given, they teach as they would when trained for it, and an ensemble can be replaced, too.
    elodi = UpdateConfig("elodi")
    taught = update_tagger(data, QUICK, elodi, both, tmp_path / "elodi", members=members)
    assert not same(taught, first)
    few = data.subset([i for i in data.items if i.label != "class0"])
    with pytest.raises(ConfigError, match="only the first has 'class0'"):
        update_tagger(few, QUICK, update, first, tmp_path / "few", members=members)
    with pytest.raises(ConfigError, match="is an ensemble of 2 taggers"):
        _ = both.tagger


def test_a_checkpoint_comes_back_as_it_was(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    old.save(tmp_path / "t")
    again = TaggerCheckpoint.load(tmp_path / "t")
    assert same(again, old)
    assert (again.classes, again.metrics, again.card) == (old.classes, old.metrics, old.card)
    assert TaggerConfig.from_json(again.settings["tagger"]) == CONFIG
    items = part(data, "val")
    assert torch.equal(again.predict(data, items), old.predict(data, items))
    described = json.loads((tmp_path / "t" / "tagger.json").read_text())
    assert described["fingerprint"] == old.fingerprint.hex
    assert described["classes"] == list(old.classes)


def test_spoiled_checkpoints_are_refused(old: TaggerCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a tagger: it has no tagger\.json"):
        TaggerCheckpoint.load(tmp_path)
    old.save(tmp_path)
    tensors, metadata = read_tensors(tmp_path / "weights.safetensors")
    tensors["0.head.bias"] += 1
    write_tensors(tmp_path / "weights.safetensors", tensors, metadata)
    with pytest.raises(CheckpointError, match="are not those of its fingerprint"):
        TaggerCheckpoint.load(tmp_path)
    value = json.loads(metadata["tagger"]) | {"schema": 9}
    write_tensors(tmp_path / "weights.safetensors", tensors, {"tagger": json.dumps(value)})
    with pytest.raises(CheckpointError, match="has schema 9; this version reads 1"):
        TaggerCheckpoint.load(tmp_path)


def test_saved_logits_stand_in_for_an_old_tagger(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    predictions_of(old, data, "train", tmp_path / "train.npz")
    saved = SavedLogits(tmp_path / "train.npz")
    items = part(data, "train")
    assert torch.equal(saved.predict(data, items), old.predict(data, items))
    one_view = replace(QUICK, views=1)
    update = UpdateConfig("focal-kl")
    # The old tagger's logits of the unchanged pictures, in whatever order the file has them: what
    # it says of a single view, which is the picture itself.
    by_file = update_tagger(data, one_view, update, tmp_path / "train.npz", tmp_path / "file")
    by_tagger = update_tagger(data, one_view, update, old, tmp_path / "tagger")

    def apart(a: TaggerCheckpoint, b: TaggerCheckpoint) -> float:
        return float((a.predict(data, items) - b.predict(data, items)).abs().max())

    assert apart(by_file, by_tagger) == 0
    several = (
        update_tagger(data, QUICK, update, tmp_path / "train.npz", tmp_path / "file2"),
        update_tagger(data, QUICK, update, old, tmp_path / "tagger2"),
    )
    assert apart(*several) > 1e-2
    # It says nothing of the validation pictures, and has no last layer.
    assert set(by_file.metrics) == {"accuracy"}
    with pytest.raises(ConfigError, match="saved logits and ensembles have none"):
        update_tagger(data, QUICK, UpdateConfig("bct"), saved, tmp_path / "bct")


def test_probabilities_stand_in_for_logits(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    items = part(data, "train")
    logits = old.predict(data, items)
    ids, classes = np.array([i.path for i in items]), np.array(old.classes)
    shares = torch.softmax(logits.double(), 1).numpy()
    np.savez(tmp_path / "p.npz", ids=ids, classes=classes, probabilities=shares)
    centred = logits - logits.mean(1, keepdim=True)
    found = SavedLogits(tmp_path / "p.npz").predict(data, items)
    torch.testing.assert_close(found, centred, rtol=1e-4, atol=1e-4)
    shares[3] = np.eye(CLASSES)[2]
    np.savez(tmp_path / "p.npz", ids=ids, classes=classes, probabilities=shares)
    with pytest.raises(DataError, match="probabilities of 0, whose logits are not finite"):
        SavedLogits(tmp_path / "p.npz")


def test_saved_logits_that_do_not_fit_are_refused(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    predictions_of(old, data, "test", tmp_path / "test.npz")
    with pytest.raises(DataError, match=r"no logits of 60 of 60 pictures, such as '1\.png'"):
        update_tagger(data, QUICK, UpdateConfig(), tmp_path / "test.npz", tmp_path / "new")
    logits = np.zeros((2, 2), np.float32)
    logits[1, 0] = np.nan
    np.savez(tmp_path / "n.npz", ids=["a", "b"], classes=["x", "y"], logits=logits)
    with pytest.raises(DataError, match="logits of row 2 are not finite"):
        SavedLogits(tmp_path / "n.npz")
    predictions_of(old, data, "test", tmp_path / "test.csv")
    with pytest.raises(DataError, match="answers alone say too little"):
        SavedLogits(tmp_path / "test.csv")
    with pytest.raises(ConfigError, match="there is no old tagger at"):
        update_tagger(data, QUICK, UpdateConfig(), tmp_path / "nothing", tmp_path / "new")


def test_classes_may_come_and_go(
    old: TaggerCheckpoint, two_classes: Dataset, data: Dataset, tmp_path: Path
) -> None:
    fewer = train_tagger(two_classes, QUICK, tmp_path / "fewer")
    assert fewer.classes == ("class1", "class3")
    more = update_tagger(data, QUICK, UpdateConfig("focal-kl"), fewer, tmp_path / "more")
    assert more.card["classes"] == "2 of the old one's, 3 new, 0 given up"
    # The old one has at most the pictures of its own two classes right.
    assert more.metrics["old_accuracy"] <= 2 / CLASSES
    less = update_tagger(two_classes, QUICK, UpdateConfig("ldi"), old, tmp_path / "less")
    assert less.card["classes"] == "2 of the old one's, 0 new, 3 given up"
    report = compare(predictions_of(fewer, data), predictions_of(more, data))
    assert report.new_classes is not None


def test_names_decide_and_not_positions(
    two_classes: Dataset, data: Dataset, tmp_path: Path
) -> None:
    """The same logits under other positions teach the same."""
    items = part(data, "train")
    logits = np.random.default_rng(0).normal(size=(len(items), 3)).astype(np.float32)
    ids, names = [i.path for i in items], np.array(["class1", "class3", "gone"])
    found = []
    for i, order in enumerate(([0, 1, 2], [2, 0, 1])):
        np.savez(tmp_path / f"{i}.npz", ids=ids, classes=names[order], logits=logits[:, order])
        update = UpdateConfig("focal-logit")
        found.append(
            update_tagger(two_classes, QUICK, update, tmp_path / f"{i}.npz", tmp_path / str(i))
        )
    assert same(*found)


def test_an_old_tagger_of_a_larger_input_sees_what_it_is_used_to(
    data: Dataset, tmp_path: Path
) -> None:
    large = replace(CONFIG, sees=FromPictures("edge-xs", 32, "squash"), epochs=12)
    old = train_tagger(data, large, tmp_path / "old")
    config = replace(QUICK, epochs=1)
    found = update_tagger(data, config, UpdateConfig("focal-logit"), old, tmp_path / "new")
    assert found.settings["tagger"]["canvas"] == 32
    # Where it teaches nothing, and where it sees less, nothing changes.
    bare = update_tagger(data, config, UpdateConfig("none"), old, tmp_path / "none")
    assert bare.settings["tagger"]["canvas"] == 0
    up = update_tagger(data, replace(large, epochs=1), UpdateConfig(), found, tmp_path / "up")
    assert up.settings["tagger"]["canvas"] == 0


def test_members_in_an_order_of_their_own_are_measured_by_it(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    turned = TaggerCheckpoint.load(_saved(old, tmp_path / "turned"))
    with torch.no_grad():
        turned.tagger.head.weight.copy_(old.tagger.head.weight.flip(0))
        turned.tagger.head.bias.copy_(old.tagger.head.bias.flip(0))
    turned.classes = old.classes[::-1]
    both, update = [turned, turned], UpdateConfig("ensemble")
    found = update_tagger(data, CONFIG, update, old, tmp_path / "e", members=both)
    assert found.metrics["accuracy"] == found.metrics["old_accuracy"] == old.metrics["accuracy"]
    assert found.metrics["negative_flips"] == 0
    with pytest.raises(ConfigError, match="ensemble needs members, and there are none"):
        update_tagger(data, CONFIG, update, old, tmp_path / "e", members=[])
    other = replace(CONFIG, sees=FromPictures("edge-xs", 24))
    with pytest.raises(
        ConfigError, match="members are edge-xs-16px, the settings say edge-xs-24px"
    ):
        update_tagger(data, other, update, old, tmp_path / "e", members=both)


def test_a_start_brings_weights_and_rows(
    old: TaggerCheckpoint, two_classes: Dataset, tmp_path: Path
) -> None:
    still = replace(QUICK, init="checkpoint", epochs=1, lr=1e-9, ema=0.0)
    begun = train_tagger(two_classes, still, tmp_path / "begun", start=old)
    torch.testing.assert_close(begun.tagger.head.weight, old.tagger.head.weight[[1, 3]])
    assert begun.card["started"] == f"from the weights of {old.fingerprint.short}…"
    model = EmbeddingModel(ModelConfig("edge-xs", 24, dim=8))
    from_space = train_tagger(
        two_classes, still, tmp_path / "space", start=Checkpoint(model.eval(), "cloud")
    )
    for (name, mine), theirs in zip(
        from_space.tagger.backbone.named_parameters(), model.backbone.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, msg=name)
    with pytest.raises(ConfigError, match="init='checkpoint' goes with a checkpoint"):
        train_tagger(two_classes, still, tmp_path / "none")
    with pytest.raises(ConfigError, match="init is 'random', not 'checkpoint'"):
        train_tagger(two_classes, QUICK, tmp_path / "none", start=old)


def test_a_head_on_a_bundles_vectors(
    old: TaggerCheckpoint, data: Dataset, bundles: dict[str, Path], tmp_path: Path
) -> None:
    sees = FromVectors.of(bundles["cloud"], hidden=16)
    config = replace(CONFIG, sees=sees)
    head = train_tagger(data, config, tmp_path / "head")
    assert head.metrics["accuracy"] > 2 / CLASSES
    assert same(TaggerCheckpoint.load(tmp_path / "head"), head)
    space = Checkpoint(EmbeddingModel(ModelConfig("edge-xs", 24, dim=8)).eval(), "cloud")
    linear = replace(QUICK, sees=replace(sees, hidden=0), init="checkpoint")
    with pytest.raises(ConfigError, match=r"no layer of .* fits into vectors-24d"):
        train_tagger(data, linear, tmp_path / "lost", start=space)
    assert "backbone.0.weight" in dict(head.tagger.named_parameters())
    # Each kind can replace the other, and what a bundle says of views is asked for.
    update = UpdateConfig("focal-kl")
    onwards = update_tagger(data, QUICK, update, head, tmp_path / "pictures")
    assert onwards.metrics["old_accuracy"] == head.metrics["accuracy"]
    back = update_tagger(data, replace(QUICK, sees=sees), update, old, tmp_path / "vectors")
    assert back.metrics["old_accuracy"] == old.metrics["accuracy"]
    mixed = interpolate(head, back, 0.5)  # without batch norms no pictures are needed
    assert torch.equal(mixed.tagger.head.bias, (head.tagger.head.bias + back.tagger.head.bias) / 2)
    linear = replace(QUICK, sees=replace(sees, hidden=0))
    with pytest.raises(ConfigError, match="has none to move; set hidden above 0"):
        update_tagger(data, linear, UpdateConfig("bct"), old, tmp_path / "bct")
    moved = replace(linear, sees=replace(sees, bundle=str(bundles["poor"])))
    with pytest.raises(ConfigError, match="Give the bundle that it was trained with"):
        train_tagger(data, moved, tmp_path / "moved")


def test_interpolation_begins_and_ends_at_the_two(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    new = train_tagger(data, replace(QUICK, init="checkpoint"), tmp_path / "new", start=old)
    assert same(interpolate(old, new, 0, data), old)
    assert same(interpolate(old, new, 1, data), new)
    mixed = interpolate(old, new, 0.25, data)
    stem = "backbone.stem.conv.weight"
    theirs = [dict(c.tagger.named_parameters())[stem] for c in (old, new, mixed)]
    torch.testing.assert_close(theirs[2], 0.75 * theirs[0] + 0.25 * theirs[1])
    # Statistics are measured, and not mixed.
    norm = "backbone.stem.norm.running_mean"
    mean = [c.tagger.state_dict()[norm] for c in (old, new, mixed)]
    assert not torch.allclose(mean[2], 0.75 * mean[0] + 0.25 * mean[1], rtol=1e-3)
    assert same(mixed, interpolate(old, new, 0.25, data))
    mixed.save(tmp_path / "mixed")
    assert same(TaggerCheckpoint.load(tmp_path / "mixed"), mixed)


def test_taggers_that_cannot_be_mixed(
    old: TaggerCheckpoint, two_classes: Dataset, data: Dataset, tmp_path: Path
) -> None:
    fewer = train_tagger(two_classes, QUICK, tmp_path / "fewer")
    with pytest.raises(ConfigError, match="only the first has 'class0'"):
        interpolate(old, fewer, 0.5, data)
    with pytest.raises(
        ConfigError, match="averaged need the same classes: the first has 5, the second 2"
    ):
        ensemble_of([old, fewer])
    larger = replace(QUICK, sees=FromPictures("edge-xs", 24))
    other = train_tagger(data, larger, tmp_path / "larger")
    with pytest.raises(ConfigError, match="edge-xs-16px and edge-xs-24px: weights are mixed"):
        interpolate(old, other, 0.5, data)
    with pytest.raises(ConfigError, match="members of an ensemble see the same"):
        ensemble_of([old, other])
    with pytest.raises(ConfigError, match="give a dataset with train pictures"):
        interpolate(old, old, 0.5)
    with pytest.raises(ConfigError, match=r"share 1\.5 has to be between 0"):
        interpolate(old, old, 1.5, data)


def test_pictures_are_held_out_of_every_class(data: Dataset) -> None:
    without_val = data.subset([i for i in data.items if i.split != "val"])
    held = read_labelled(without_val, replace(QUICK, val_share=0.25))
    assert len(held.val) == CLASSES * 3
    assert not {i.path for i in held.train} & {i.path for i in held.val}
    # The seed of the training says nothing of the split.
    assert held == read_labelled(without_val, replace(QUICK, val_share=0.25, seed=7))
    assert held != read_labelled(without_val, replace(QUICK, val_share=0.25, split_seed=7))
    assert read_labelled(without_val, replace(QUICK, val_share=0.0)).val == ()
    assert len(held_out(held.train[:1], 0.9, 0)[0]) == 1  # a class keeps a picture to learn from


def test_what_is_trained_on_decides_and_not_only_what_there_is(
    data: Dataset, tmp_path: Path
) -> None:
    """The same pictures, but those to validate are trained on, and as many the other way round."""
    train, val = list(data.train), list(data.val)
    for i, item in enumerate(val):
        j = next(j for j, x in enumerate(train) if x.label == item.label and x not in val)
        train[j], val[i] = item, train[j]
    turned = [replace(i, split="train") for i in train] + [replace(i, split="val") for i in val]
    other = data.subset([*turned, *(i for i in data.items if i.split == "test")])
    assert read_labelled(other, QUICK).digest != read_labelled(data, QUICK).digest
    update, quick = UpdateConfig("ensemble", members=2), replace(QUICK, epochs=1)
    old = train_tagger(data, quick, tmp_path / "old")
    first = update_tagger(data, quick, update, old, tmp_path / "e")
    again = update_tagger(other, quick, update, old, tmp_path / "e")
    assert not same(first, again)


def test_a_dataset_that_no_tagger_can_learn(
    data: Dataset, tmp_path: Path, old: TaggerCheckpoint
) -> None:
    lone = [i for i in data.items if not (i.split == "train" and i.label == "class2")]
    with pytest.raises(DataError, match=r"1 class\(es\) of val have no train picture, such as 'cl"):
        read_labelled(data.subset(lone), QUICK)
    single = [i for i in data.items if i.label == "class2"]
    with pytest.raises(DataError, match="has 1 class in train; a tagger needs two"):
        read_labelled(data.subset(single), QUICK)
    tests = data.subset([i for i in data.items if i.split == "test"])
    with pytest.raises(DataError, match="has no train pictures"):
        read_labelled(tests, QUICK)
    with pytest.raises(ConfigError, match="no split 'validation'; choose from: train, val, test"):
        part(data, "validation")
    with pytest.raises(ConfigError, match=r"written as \.csv or as \.npz, not as x\.txt"):
        predictions_of(old, data, file="x.txt")


def test_manifests_are_read_with_and_without_roles(
    data: Dataset, shop_csv: Path, tmp_path: Path
) -> None:
    assert {i.role for i in data.items} == {""}
    assert data.items[0].columns == {"shelf": "0"}
    assert open_labelled(shop_csv).items == Dataset.open(shop_csv).items
    bad = write_manifest(tmp_path, [("a.png", "x", "train"), ("../b.png", "x", "dev")])
    with pytest.raises(DataError, match="line 3"):
        open_labelled(bad)
    (tmp_path / "n.csv").write_text("path,label\na.png,x\n")
    with pytest.raises(DataError, match="lacks the column"):
        open_labelled(tmp_path / "n.csv")
    (tmp_path / "b.csv").write_bytes(b"path,label,split\ncaf\xe9.png,x,train\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        open_labelled(tmp_path / "b.csv")
    # All that comes after a lone quote would be one field.
    (tmp_path / "q.csv").write_text(
        'path,label,split\na.png,x,train\nb.png,x"y,"tr\nc.png,y,test\n'
    )
    with pytest.raises(DataError, match="is not a readable CSV"):
        open_labelled(tmp_path / "q.csv")


def test_folders_of_labels_say_nothing_of_train_and_test(tmp_path: Path) -> None:
    for label in range(4):
        (tmp_path / "tree" / f"class{label}").mkdir(parents=True)
        for shot in range(3):
            picture(label, shot).save(tmp_path / "tree" / f"class{label}" / f"{shot}.png")
    with pytest.raises(DataError, match=r"has no manifest.csv, so every second label"):
        open_labelled(tmp_path / "tree")
    rows = [
        (f"class{c}/{s}.png", f"class{c}", "test" if s else "train") for c in (0, 1) for s in (0, 1)
    ]
    write_manifest(tmp_path / "tree", rows, "manifest.csv")
    with pytest.raises(DataError, match="lacks the column"):  # of a folder, roles are needed
        open_labelled(tmp_path / "tree")
    assert len(open_labelled(tmp_path / "tree" / "manifest.csv").items) == 4


def test_columns_that_an_npz_has_itself_are_left_out_of_it(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    named = [
        replace(i, columns={**i.columns, "file": "a", "logits": "b", "id": "c"}) for i in data.items
    ]
    found = predictions_of(old, data.subset(named), file=tmp_path / "p.npz")
    assert set(found.columns) == set(read_predictions(tmp_path / "p.npz").columns) == {"shelf"}
    predictions_of(old, data.subset(named), file=tmp_path / "p.csv")
    assert set(read_predictions(tmp_path / "p.csv").columns) == {"shelf", "file", "logits"}


def test_a_training_that_runs_away_is_stopped(
    old: TaggerCheckpoint, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match=r"not finite after \d+% of the training; lower lr"):
        train_tagger(data, replace(QUICK, lr=1e30), tmp_path / "away")
    broken = TaggerCheckpoint.load(_saved(old, tmp_path / "broken"))
    with torch.no_grad():
        broken.tagger.head.bias.fill_(torch.nan)
    with pytest.raises(DataError, match="are not finite"):
        predictions_of(broken, data)
    for method in ("focal-kl", "naive"):
        with pytest.raises(DataError, match=r"the tagger .* gives logits that are not finite"):
            update_tagger(data, QUICK, UpdateConfig(method), broken, tmp_path / method)
    last = replace(SGD, epochs=1, batch_size=60, lr=3e38, weight_decay=1e3, warmup=0.0, ema=0.0)
    with pytest.raises(DivergedError, match="the last step left weights"):
        train_tagger(data, last, tmp_path / "last")


def _saved(checkpoint: TaggerCheckpoint, folder: Path) -> Path:
    checkpoint.save(folder)
    return folder


def test_a_gradient_is_clipped_where_it_is_to_be(data: Dataset, tmp_path: Path) -> None:
    free = train_tagger(data, SGD, tmp_path / "free")
    assert same(free, train_tagger(data, replace(SGD, clip=1e6), tmp_path / "loose"))
    # Steps of next to nothing: with either learning rate the weights stay where they began.
    still = replace(SGD, clip=1e-9, weight_decay=0.0)
    held = [
        train_tagger(data, replace(still, lr=lr), tmp_path / f"held{lr}").tagger.head
        for lr in (0.05, 0.01)
    ]
    torch.testing.assert_close(held[0].weight, held[1].weight, atol=1e-7, rtol=0)
    assert (held[0].weight - free.tagger.head.weight).abs().max() > 1e-3


def test_settings_out_of_range_are_named(bundles: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"out of range: epochs = 0, ema = 1\.0"):
        replace(CONFIG, epochs=0, ema=1.0)
    with pytest.raises(ConfigError, match="out of range: optimizer = 'lion', clip = -1"):
        replace(CONFIG, optimizer="lion", clip=-1)  # type: ignore[arg-type]
    for name, value in {"seed": 2**64, "split_seed": -1, "lr": math.inf, "views": 2.5}.items():
        with pytest.raises(ConfigError, match=f"that are no such numbers: {name} = "):
            replace(CONFIG, **{name: value})  # type: ignore[arg-type]
    odd = {**CONFIG.to_json(), "augmentation": {"flip": "a"}}
    with pytest.raises(ConfigError, match="an augmentation of no such numbers: flip = 'a'"):
        TaggerConfig.from_json(odd)
    with pytest.raises(ConfigError, match="unknown settings of a tagger: scale"):
        TaggerConfig.from_json({"scale": 16})
    with pytest.raises(ConfigError, match="unknown settings of what a tagger sees: sise"):
        TaggerConfig.from_json({"sees": {"backbone": "edge-xs", "sise": 16}})
    with pytest.raises(ConfigError, match="cannot be read"):
        TaggerConfig.from_json({})
    with pytest.raises(ConfigError, match="init='imagenet' is for a backbone"):
        TaggerConfig(FromVectors.of(bundles["cloud"]), init="imagenet")
    with pytest.raises(ConfigError, match="no backbone 'nothing'"):
        FromPictures("nothing", 64)
    with pytest.raises(ConfigError, match="hidden -1 and dim 8"):
        FromVectors("b", "0" * 64, 8, -1)
