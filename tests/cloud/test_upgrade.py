"""A new cloud model whose vectors search the gallery of the old one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from samespace import Dataset, Item, metrics, verify
from samespace_cloud.augment import Augmentation
from samespace_cloud.checkpoint import Checkpoint, reference
from samespace_cloud.cli.export import export_command
from samespace_cloud.cli.train import train
from samespace_cloud.config import TrainConfig
from samespace_cloud.frozen import frozen_rows
from samespace_cloud.frozen_network import embed_pictures
from samespace_cloud.heads import start_head
from samespace_cloud.losses import LossContext
from samespace_cloud.material import read_material
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.pictures import decoded
from samespace_cloud.students import Successor
from samespace_cloud.teacher import BundleTeacher, CheckpointTeacher, LabelledVectors
from samespace_cloud.training import train_cloud, train_edge
from samespace_cloud.upgrade import _begin, train_upgrade
from samespace_cloud.views import Views
from samespace_edge import (
    Bundle,
    CheckpointError,
    ConfigError,
    DataError,
    Embedder,
    Resize,
)
from samespace_export import export_bundle

LABELS, SHOTS, DIM = 96, 4, 16
NET, OTHER_NET = "ir-s8-1x8x1s1k3-3x24x1s2k3-f64", "edge-xs"
COMPATIBLE = (("cosface", 1.0), ("frozen-classifier", 1.0))
OLD = TrainConfig(
    model=ModelConfig(NET, 16, dim=DIM),
    losses=(("cosface", 1.0),),
    epochs=16,
    batch_size=32,
    lr=1e-2,
    views=2,
    canvas=16,
    val_share=0.0,
    ema=0.0,
    augmentation=Augmentation(degrees=3, blur=0, saturation=0.1, scale=(0.9, 1.0)),
)
NEW = replace(OLD, losses=COMPATIBLE, seed=1)
CPU = torch.device("cpu")


def quiet(stage: str, done: int, total: int) -> None:
    pass


def picture(label: int, shot: int) -> Image.Image:
    """Four colours of a label, with noise of the shot's own."""
    cells = np.random.default_rng(label).integers(20, 235, (2, 2, 3))
    noise = np.random.default_rng(1000 * label + shot + 7)
    pixels = np.kron(cells, np.ones((10, 10, 1)))
    pixels += noise.normal(0, 14, pixels.shape) + noise.normal(0, 10, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all trainings: they share what is decoded and made of views."""
    return tmp_path_factory.mktemp("upgrade")


@pytest.fixture(scope="module")
def shop_file(runs: Path) -> Path:
    """96 labels of 4 pictures: half train, half test with 2 queries and 2 gallery pictures."""
    rows = []
    for label in range(LABELS):
        for shot in range(SHOTS):
            path = f"{label:02}/{shot}.png"
            (runs / path).parent.mkdir(exist_ok=True)
            picture(label, shot).save(runs / path)
            test = label % 2 == 1
            role = ("gallery" if shot < 2 else "query") if test else "train"
            rows.append((path, f"item{label:02}", "test" if test else "train", role))
    with (runs / "catalogue.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "role"])
        writer.writerows(rows)
    return runs / "catalogue.csv"


@pytest.fixture(scope="module")
def data(shop_file: Path) -> Dataset:
    return Dataset.open(shop_file)


@pytest.fixture(scope="module")
def half(data: Dataset) -> Dataset:
    """The same test part, with half of the train labels."""
    kept = {f"item{n:02}" for n in range(LABELS // 2)}
    return data.subset([i for i in data.items if i.split == "test" or i.label in kept])


@pytest.fixture(scope="module")
def old(data: Dataset, runs: Path) -> Checkpoint:
    return train_cloud(data, OLD, runs / "old")


@pytest.fixture(scope="module")
def alone(data: Dataset, runs: Path) -> Checkpoint:
    """The new model, trained without the old one."""
    return train_cloud(data, replace(OLD, seed=1), runs / "alone")


@pytest.fixture(scope="module")
def wide(data: Dataset, old: Checkpoint, runs: Path) -> Checkpoint:
    config = replace(NEW, model=replace(NEW.model, dim=24))
    return train_upgrade(data, config, old, runs / "wide")


@pytest.fixture(scope="module")
def bundle(old: Checkpoint, runs: Path) -> Path:
    export_bundle(old.model, old.export_spec("old"), runs / "old.bundle")
    return runs / "old.bundle"


def vectors(model: Checkpoint, data: Dataset, part: str) -> NDArray[np.float32]:
    items = getattr(data, part)
    return embed_pictures(model.model, decoded(data, items, Resize(16, 16)), CPU).numpy()


def found(data: Dataset, query: Checkpoint, gallery: Checkpoint | NDArray[np.float32]) -> float:
    """mAP of the first model's test queries, of labels never trained on, in the other's gallery."""
    items = vectors(gallery, data, "gallery") if isinstance(gallery, Checkpoint) else gallery
    return searched(data.queries, vectors(query, data, "queries"), data.gallery, items)


def found_known(data: Dataset, query: Checkpoint, gallery: Checkpoint) -> float:
    """The same with the train pictures: half are searched for in the other half."""
    asked, kept = vectors(query, data, "train")[::2], vectors(gallery, data, "train")[1::2]
    return searched(data.train[::2], asked, data.train[1::2], kept)


def searched(
    queries: Sequence[Item],
    asked: NDArray[np.float32],
    gallery: Sequence[Item],
    kept: NDArray[np.float32],
) -> float:
    code = {n: i for i, n in enumerate(sorted({i.label for i in gallery}))}
    sides = [np.array([code[i.label] for i in items]) for items in (queries, gallery)]
    return metrics.rank(asked, kept, *sides).mean_average_precision


def same(a: Checkpoint, b: Checkpoint) -> bool:
    theirs = b.model.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.model.state_dict().items())


def test_without_the_old_model_its_gallery_is_noise(
    data: Dataset, old: Checkpoint, alone: Checkpoint
) -> None:
    assert found(data, old, old) > 0.7
    assert found(data, alone, alone) > 0.7
    # One in 48 labels, by chance.
    assert found(data, alone, old) < 0.15
    assert found_known(data, alone, old) < 0.15


@pytest.mark.parametrize(
    ("config", "more_labels"),
    [
        (replace(NEW, model=ModelConfig(OTHER_NET, 20, DIM), canvas=20), False),
        (replace(NEW, losses=(("arcface", 1.0), ("frozen-classifier", 1.0)), margin=0.1), False),
        (replace(NEW, losses=(*COMPATIBLE, ("regression-alleviating", 0.5))), False),
        (replace(NEW, init="cloud"), True),
    ],
    ids=["another network", "another loss", "against flips", "more labels"],
)
def test_the_old_gallery_is_found_in(
    data: Dataset,
    half: Dataset,
    old: Checkpoint,
    runs: Path,
    tmp_path: Path,
    config: TrainConfig,
    more_labels: bool,
) -> None:
    before = train_cloud(half, OLD, runs / "half") if more_labels else old
    new = train_upgrade(data, config, before, runs / tmp_path.name)
    assert (new.role, new.space, dict(new.shorter)) == ("cloud", before.fingerprint, {})
    assert new.fingerprint != before.fingerprint
    assert len(new.labels) == LABELS // 2
    assert new.classifier.shape == (LABELS // 2, DIM)
    kept = LABELS // 4 if more_labels else LABELS // 2
    rows = f"{kept} rows of its own, {LABELS // 2 - kept} synthesised, 0 labels without"
    assert new.card["old classifier"] == rows
    assert found(data, new, before) > 0.3
    assert found_known(data, new, before) > 0.6
    assert found(data, new, new) > 0.6
    if more_labels:
        assert found(data, new, new) > found(data, before, before) - 0.03


def test_a_wider_model_has_room_of_its_own(
    data: Dataset, old: Checkpoint, alone: Checkpoint, wide: Checkpoint, runs: Path
) -> None:
    assert wide.space is None
    assert dict(wide.shorter) == {DIM: old.fingerprint}
    assert wide.card["compatible with"].endswith("by its first 16 numbers")
    cut = wide.prefix(DIM)
    assert cut.space == old.fingerprint
    assert (cut.role, cut.classifier, cut.labels) == ("cloud", None, wide.labels)
    assert len({cut.fingerprint, wide.fingerprint, old.fingerprint}) == 3
    shortened = metrics.shorten(vectors(wide, data, "queries"), DIM)
    assert np.allclose(vectors(cut, data, "queries"), shortened, atol=2e-2)
    assert found(data, cut, old) > 0.3
    # The old space costs the whole vector nothing to speak of.
    independent = found(data, alone, alone)
    assert found(data, wide, wide) > independent - 0.1
    again = Checkpoint.load(runs / "wide")
    assert again.shorter == wide.shorter
    assert again.prefix(DIM).fingerprint == cut.fingerprint
    with pytest.raises(ConfigError, match=r"first 8 of 24 numbers .* widths that were: 16"):
        wide.prefix(8)
    with pytest.raises(ConfigError, match="widths that were: none"):
        old.prefix(8)


def test_the_gallerys_own_pictures_help_to_keep_the_old_space(
    data: Dataset, old: Checkpoint, tmp_path: Path
) -> None:
    """Their labels are not read: those of the test part are never trained on."""
    losses = (*COMPATIBLE, ("cosine-regression", 1.0))
    config = replace(NEW, losses=losses, model=replace(NEW.model, dim=24))
    taught = train_upgrade(data, config, old, tmp_path / "aligned")
    aware = train_upgrade(data, config, old, tmp_path / "aware", gallery_aware=True)
    without, with_them = (found(data, c.prefix(DIM), old) for c in (taught, aware))
    assert with_them > without + 0.03
    assert found(data, aware, aware) > 0.8
    assert aware.card["gallery-aware"].startswith("yes")
    with pytest.raises(ConfigError, match="gallery's pictures teach without labels"):
        train_upgrade(data, NEW, old, tmp_path / "x", gallery_aware=True)


def test_each_loss_sees_the_coordinates_that_it_is_for() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(5, 4, generator=generator))
    embedding = torch.randn(6, 7, generator=generator, requires_grad=True)
    label = torch.randint(5, (6,), generator=generator)
    taught = F.normalize(torch.randn(6, 4, generator=generator))
    own, held = LossContext(5, 7), LossContext(5, 4, cloud_classifier=rows)
    model = EmbeddingModel(replace(OLD.model, dim=7))
    losses = (("cosface", 2.0), ("frozen-classifier", 0.5), ("regression-alleviating", 1.0))
    students = Successor(model, losses, own, held)
    cosines = F.normalize(embedding) @ F.normalize(students.losses[0].classifier).T
    prefix = F.normalize(embedding[:, :4])
    total = 2 * F.cross_entropy(16 * cosines, label)
    total = total + 0.5 * F.cross_entropy(16 * prefix @ rows.T, label)
    same_label = label[:, None] == label[None]
    for i in range(6):
        own_logit = prefix[i] @ taught[i] / 0.05
        others = [
            prefix[i] @ x[k] / 0.05
            for x in (taught, prefix)
            for k in range(6)
            if not same_label[i, k]
        ]
        total = total + (torch.logsumexp(torch.stack([own_logit, *others]), 0) - own_logit) / 6
    found_loss = students._weighted(embedding, label, taught)
    assert found_loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert students.anchored
    assert students.classifier().shape == (5, 7)
    students.held(embedding[:, :4], label, taught).backward()
    assert embedding.grad[:, :4].abs().sum() > 0
    assert embedding.grad[:, 4:].abs().sum() == 0


def test_a_bundle_is_enough(
    data: Dataset, old: Checkpoint, alone: Checkpoint, bundle: Path, runs: Path
) -> None:
    teacher = BundleTeacher(bundle)
    new = train_upgrade(data, NEW, teacher, runs / "of-a-bundle")
    assert new.space == old.fingerprint
    assert new.card["old classifier"] == "0 rows of its own, 48 synthesised, 0 labels without"
    pixels = decoded(data, data.gallery, Resize(16, 16))
    shipped = Embedder(bundle).embed_pixels(pixels)
    assert found(data, new, shipped) > 0.3
    assert found(data, alone, shipped) < 0.15
    with pytest.raises(ConfigError, match="'imagenet' or 'random'"):
        train_upgrade(data, replace(NEW, init="cloud"), teacher, runs / "no-weights")


def test_vectors_and_labels_are_enough(
    data: Dataset, old: Checkpoint, runs: Path, tmp_path: Path
) -> None:
    # Of three quarters of the labels, and of one that is not trained on.
    items = [i for i in data.train if int(i.label[4:]) < 72]
    theirs = embed_pictures(old.model, decoded(data, items, Resize(16, 16)), CPU).numpy()
    labels = np.array([i.label for i in items] + ["gone"])
    given = np.concatenate([3 * theirs, theirs[:1]])
    np.savez(tmp_path / "v.npz", vectors=given, labels=labels, space=old.fingerprint.hex)
    teacher = LabelledVectors(tmp_path / "v.npz")
    assert teacher.space == old.fingerprint
    mean = theirs[labels[:-1] == "item02"].mean(0)
    row = teacher.classifier[teacher.labels.index("item02")].numpy()
    assert np.allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
    validated = replace(NEW, val_share=0.25, epochs=1)
    new = train_upgrade(data, validated, teacher, runs / "of-vectors")
    assert new.space == old.fingerprint
    assert set(new.metrics) == {"score", "recall_at_1", "map"}  # the old gallery has no pictures
    new = train_upgrade(data, NEW, teacher, runs / "of-vectors-all")
    assert new.card["old classifier"] == "36 rows of its own, 0 synthesised, 12 labels without"
    assert found(data, new, old) > 0.3
    np.savez(tmp_path / "w.npz", vectors=given, labels=labels)
    unnamed = LabelledVectors(tmp_path / "w.npz")
    assert unnamed.space == LabelledVectors(tmp_path / "w.npz").space != old.fingerprint
    assert unnamed.key != LabelledVectors(_relabelled(tmp_path / "w.npz")).key
    flips = replace(NEW, losses=(*COMPATIBLE, ("regression-alleviating", 1.0)))
    with pytest.raises(ConfigError, match="of where other pictures lie; leave it out"):
        train_upgrade(data, flips, teacher, tmp_path / "flips")
    edge = replace(OLD, losses=(("cosine-regression", 1.0),))
    with pytest.raises(ConfigError, match="say nothing of where other pictures lie; teach with"):
        train_edge(data, edge, teacher, tmp_path / "edge")
    strangers = np.array([f"sku{n}" for n in range(len(labels))])
    np.savez(tmp_path / "s.npz", vectors=given, labels=strangers)
    with pytest.raises(ConfigError, match=r"none of the 145 labels .* 'sku0'.* 'item00'"):
        train_upgrade(data, NEW, LabelledVectors(tmp_path / "s.npz"), tmp_path / "none")


def _relabelled(path: Path) -> Path:
    with np.load(path) as arrays:
        labels = arrays["labels"].copy()
        labels[0] = labels[-1]
        np.savez(path.with_name("r.npz"), vectors=arrays["vectors"], labels=labels)
    return path.with_name("r.npz")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


def test_malformed_vectors_are_refused(tmp_path: Path) -> None:
    good = {"vectors": np.eye(3, 4, dtype=np.float32), "labels": np.array(["a", "b", "b"])}
    nan, zero = good["vectors"].copy(), good["vectors"].copy()
    nan[1, 0], zero[2] = np.nan, 0
    bombs = np.array([_Bomb(), _Bomb(), _Bomb()], dtype=object)
    wrong = {
        "has no array labels": {"labels": None},
        "has no array vectors": {"vectors": None},
        r"shape \(2, 4\); expected are floats \(3, D\)": {"vectors": good["vectors"][:2]},
        r"int64 vectors of shape": {"vectors": np.ones((3, 4), np.int64)},
        r"vectors of shape \(3,\)": {"vectors": np.ones(3, np.float32)},
        "1 of 3 vectors are zero, NaN or infinite; the first is that of b": {"vectors": nan},
        "1 of 3 vectors are zero": {"vectors": zero},
        r"int64 labels of shape \(3,\); expected is text": {"labels": np.arange(3)},
        r"labels of shape \(3, 1\)": {"labels": good["labels"][:, None]},
        "Object arrays cannot be loaded": {"labels": bombs},
        "space: a fingerprint is 64": {"space": "shop"},
    }
    for number, (said, change) in enumerate(wrong.items()):
        path = tmp_path / f"{number}.npz"
        arrays = {k: v for k, v in {**good, **change}.items() if v is not None}
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=said):
            LabelledVectors(path)
    np.savez(tmp_path / "v.npz", **good)
    cut = (tmp_path / "v.npz").read_bytes()[:-40]
    (tmp_path / "cut.npz").write_bytes(cut)
    np.save(tmp_path / "one.npy", good["vectors"])
    for name, said in (("cut.npz", "no readable"), ("one.npy", "a single array")):
        with pytest.raises(DataError, match=said):
            LabelledVectors(tmp_path / name)
    with pytest.raises(DataError, match="no readable"):
        LabelledVectors(tmp_path / "missing.npz")


def test_a_checkpoint_with_a_classifier_costs_nothing(
    data: Dataset, old: Checkpoint, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the old model was asked")

    monkeypatch.setattr(CheckpointTeacher, "vectors", never)
    quick = replace(NEW, epochs=1)
    new = train_upgrade(data, quick, old, runs / "free")
    assert new.space == old.fingerprint
    # Only the influence of the old classifier: the labels' centres become the classifier.
    alone = replace(quick, losses=(("frozen-classifier", 1.0),))
    assert train_upgrade(data, alone, old, runs / "only").classifier.shape == (48, DIM)
    with pytest.raises(AssertionError):
        train_upgrade(data, quick, old, tmp_path / "means" / "m", rows="means")
    flips = replace(quick, losses=(*COMPATIBLE, ("regression-alleviating", 1.0)))
    with pytest.raises(AssertionError):
        train_upgrade(data, flips, old, tmp_path / "flips" / "f")


def test_rows_are_the_old_ones_or_means_of_old_vectors(
    data: Dataset, old: Checkpoint, tmp_path: Path
) -> None:
    labels, classifier = (*old.labels[:20], "gone"), 5 * old.classifier[:21]
    teacher = CheckpointTeacher(replace(old, labels=labels, classifier=classifier))
    material = read_material(data, NEW, tmp_path / "run", quiet)
    arguments = (material, None, NEW, tmp_path / "run", quiet)
    mixed = frozen_rows(teacher, "old", *arguments)
    assert (mixed.kept, mixed.synthesised, mixed.unknown) == (20, 28, 0)
    assert torch.allclose(mixed.classifier[:20], old.classifier[:20], atol=1e-6)
    assert torch.allclose(mixed.others, old.classifier[20:21], atol=1e-6)
    means = frozen_rows(teacher, "means", *arguments)
    assert (means.kept, means.synthesised, means.others) == (0, 48, None)
    theirs = teacher.vectors_of(material.holdout.train, material.pictures)
    for name in (0, 30):
        mean = F.normalize(theirs[material.labels == name].mean(0), dim=0)
        assert torch.allclose(means.classifier[name], mean, atol=1e-5)
    assert torch.allclose(mixed.classifier[30], means.classifier[30], atol=1e-2)
    assert means.classifier.norm(dim=1) == pytest.approx(1, abs=1e-5)


def test_a_chain_of_updates_keeps_the_first_ones_space(
    data: Dataset,
    old: Checkpoint,
    alone: Checkpoint,
    wide: Checkpoint,
    bundle: Path,
    runs: Path,
    tmp_path: Path,
) -> None:
    second = train_upgrade(data, replace(NEW, init="cloud"), old, runs / "second")
    third = train_upgrade(data, replace(NEW, seed=2, init="cloud"), second, runs / "third")
    assert second.space == third.space == old.fingerprint
    assert third.card["compatible with"].startswith(second.fingerprint.short)
    assert found(data, third, second) > 0.6
    assert found(data, third, old) > 0.5
    # What a later version says of pictures is its own, in the space of the first.
    teacher = CheckpointTeacher(second)
    assert teacher.space == old.fingerprint
    assert teacher.key == second.fingerprint.hex
    # As a bundle: a later cloud model may teach, an edge model may not.
    for role in ("cloud", "edge"):
        path = tmp_path / f"{role}.bundle"
        shutil.copytree(bundle, path)
        manifest = json.loads((path / "manifest.json").read_text())
        manifest |= {"space": wide.fingerprint.hex, "role": role}
        (path / "manifest.json").write_text(json.dumps(manifest))
    later = BundleTeacher(tmp_path / "cloud.bundle")
    assert later.space == wide.fingerprint
    assert later.key.startswith(old.fingerprint.hex)
    with pytest.raises(ConfigError, match=r"edge model in the space .* of another model; teach"):
        BundleTeacher(tmp_path / "edge.bundle")
    with pytest.raises(ConfigError, match="edge model in the space"):
        CheckpointTeacher(replace(second, role="edge"))


def test_a_warm_start_begins_where_the_old_model_is(data: Dataset, old: Checkpoint) -> None:
    pictures = decoded(data, data.gallery, Resize(16, 16))
    teacher = CheckpointTeacher(old)
    before = embed_pictures(old.model, pictures, CPU)
    for dim in (DIM, 24):
        config = replace(NEW, init="cloud", model=replace(OLD.model, dim=dim))
        begun = embed_pictures(_begin(config, teacher)[0], pictures, CPU)
        assert torch.allclose(F.normalize(begun[:, :DIM]), before, atol=2e-2)
    narrower = replace(NEW, init="cloud", model=replace(OLD.model, backbone="edge-s"))
    assert not torch.allclose(embed_pictures(_begin(narrower, teacher)[0], pictures, CPU), before)


def test_the_head_begins_in_the_old_space(
    data: Dataset, old: Checkpoint, alone: Checkpoint, tmp_path: Path
) -> None:
    """Of a model that knows nothing of the old one, by the rows of its labels alone."""
    material = read_material(data, NEW, tmp_path / "run", quiet)
    views = Views(material.pictures, NEW.augmentation, [16], NEW.views, 0)
    views.prepare(lambda done, total: None)
    told = old.classifier[material.labels].clone()
    told[material.labels >= 40] = 0  # of these labels nothing is known
    model = EmbeddingModel(replace(OLD.model, dim=24))
    model.backbone.load_state_dict(alone.model.backbone.state_dict())
    beyond = model.embed.weight[DIM:].clone()
    start_head(model, views, lambda stage, done, total: None, told)
    assert torch.equal(model.embed.weight[DIM:], beyond)
    begun = replace(alone, model=model.eval(), shorter={DIM: old.fingerprint}).prefix(DIM)
    assert found_known(data, begun, old) > 0.5
    assert found_known(data, alone, old) < 0.2


def test_a_stopped_upgrade_resumes_to_the_very_same_result(
    data: Dataset, old: Checkpoint, alone: Checkpoint, runs: Path
) -> None:
    losses = (*COMPATIBLE, ("regression-alleviating", 0.5))
    config = replace(NEW, losses=losses, epochs=3, val_share=0.2, model=replace(OLD.model, dim=20))
    whole = train_upgrade(data, config, old, runs / "whole")
    assert {"map", "old_gallery_map", "score"} <= set(whole.metrics)

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage.startswith("train") and done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_upgrade(data, config, old, runs / "broken", progress=interrupt)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train_upgrade(data, config, alone, runs / "broken")
    with pytest.raises(CheckpointError, match="other settings or data"):
        train_upgrade(data, config, old, runs / "broken", rows="means")
    resumed = train_upgrade(data, config, old, runs / "broken")
    assert same(whole, resumed)
    assert resumed.fingerprint == whole.fingerprint
    assert not (runs / "broken" / "state.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": replace(OLD.model, dim=8)}, "dim 8 is below the old one's 16.* Set dim to 16"),
        ({"losses": (("cosface", 1.0),)}, "no loss of cosface ties .* add frozen-classifier"),
        (
            {"model": replace(OLD.model, dim=20), "losses": (("frozen-classifier", 1.0),)},
            "beyond the old model's 16 would learn nothing",
        ),
        ({"mixed_views": 1}, "for losses that look at the old model's vectors"),
        ({"int8": 1.0}, "int8 is for fine-tuning an edge model"),
        ({"losses": (("hope", 1.0),)}, "there is no loss 'hope'"),
    ],
)
def test_wrong_settings_are_refused(
    data: Dataset, old: Checkpoint, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        train_upgrade(data, replace(NEW, **change), old, tmp_path / "new")


QUICK = ["--epochs", "1", "--batch-size", "32", "--views", "2", "--val-share", "0"]
SMALL = ["--backbone", NET, "--size", "16", "--canvas", "16"]


def run(*arguments: object) -> str:
    ran = CliRunner().invoke(train, [str(a) for a in arguments])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_the_command(
    data: Dataset, shop_file: Path, old: Checkpoint, wide: Checkpoint, runs: Path, tmp_path: Path
) -> None:
    base = ("cloud", shop_file, *SMALL, *QUICK)
    given = (*base, "--compatible-with", runs / "old")
    out = tmp_path / "cli" / "new"
    value = json.loads(run(*given, "--regression", 0.5, "--from-old", "--out", out, "--json"))
    assert value["space"] == old.fingerprint.hex != value["fingerprint"]
    assert value["compatible_with"] == {
        "model": old.fingerprint.hex,
        "space": old.fingerprint.hex,
        "width": DIM,
    }
    card = Checkpoint.load(out).card
    assert card["losses"] == (
        "1 cosface + 1 frozen-classifier + 8 cosine-regression + 2 contrastive"
        " + 0.5 regression-alleviating"
    )
    assert card["started"] == "from the old model's own weights"
    plain = (*given, "--alignment", 0)
    said = run(*plain, "--dim", 20, "--influence", 2, "--out", tmp_path / "cli" / "wide")
    made = Checkpoint.load(tmp_path / "cli" / "wide")
    assert made.card["losses"] == "1 cosface + 2 frozen-classifier"
    assert f"space {made.fingerprint.short}…, its own, with all 20 numbers" in said
    assert f"first 16 search the gallery of {old.fingerprint.short}…" in said
    assert "wide-16.bundle --width 16" in said
    np.savez(
        tmp_path / "v.npz",
        vectors=vectors(old, data, "train"),
        labels=[i.label for i in data.train],
        space=old.fingerprint.hex,
    )
    said = run(*base, "--compatible-with", tmp_path / "v.npz", "--out", tmp_path / "cli" / "v")
    assert f"space {old.fingerprint.short}…: its vectors search the gallery of" in said


def test_a_wide_checkpoint_is_exported_at_the_old_width(
    data: Dataset, old: Checkpoint, wide: Checkpoint, bundle: Path, runs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.bundle"
    ran = CliRunner().invoke(
        export_command, [str(runs / "wide"), str(path), "--width", str(DIM), "--json"]
    )
    assert ran.exit_code == 0, ran.output
    made = Bundle.open(path)
    assert made.manifest.space == old.fingerprint
    assert made.manifest.fingerprint == wide.prefix(DIM).fingerprint
    assert (made.manifest.dim, made.manifest.role) == (DIM, "cloud")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    ours = reference(runs / "wide", made)(pixels)
    assert np.allclose(ours, Embedder(made).embed_pixels(pixels), atol=1e-4)
    # Both claim the old model's space, so the rule for upgrades is stated for the pair.
    report = verify([path], [bundle], data, baseline=bundle)
    (decides,) = [c for c in report.criteria if c.decides]
    assert (decides.query, decides.gallery, decides.reference) == ("wide", "old", "old")
    ran = CliRunner().invoke(export_command, [str(runs / "wide"), str(path), "--width", "8"])
    assert isinstance(ran.exception, ConfigError)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--compatible-with", "x", "--lda-head"], "--lda-head fits a new head"),
        (["--compatible-with", "x", "--lda-prior", "0.1", "--deploy-size", "20"], "--deploy-size"),
        (["--compatible-with", "x", "--role", "edge"], "samespace train edge"),
        (["--influence", "1", "--from-old"], "--influence, --from-old needs --compatible-with"),
        (["--compatible-with", "OLD", "--pretrained", "--from-old"], "name one"),
    ],
)
def test_options_that_do_not_go_together(
    shop_file: Path, old: Checkpoint, runs: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    given = [str(runs / "old") if o == "OLD" else o for o in options]
    ran = CliRunner().invoke(
        train, ["cloud", str(shop_file), *SMALL, "--out", str(tmp_path / "n"), *given]
    )
    assert ran.exit_code == 2
    assert said in ran.output
