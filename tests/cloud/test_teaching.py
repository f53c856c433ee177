"""Who teaches and with what: bundles, vectors in a file, pools, families, nested widths."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samespace import Dataset, Report
from samespace_cloud.augment import Augmentation
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.family import certify_family, train_family
from samespace_cloud.frozen_network import embed_pictures
from samespace_cloud.losses import LossContext
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.students import Solo
from samespace_cloud.teacher import BundleTeacher, CheckpointTeacher, VectorTeacher
from samespace_cloud.teaching import learn_codebook, prepare_teaching
from samespace_cloud.trainer import best_device
from samespace_cloud.training import train_cloud, train_edge
from samespace_cloud.views import JoinedViews, Views, normalised
from samespace_edge import ConfigError, DataError, Fingerprint
from samespace_export import export_bundle

CLOUD = TrainConfig(
    model=ModelConfig("edge-xs", 32, dim=16),
    losses=(("cosface", 1.0),),
    epochs=4,
    batch_size=8,
    lr=5e-3,
    views=2,
    canvas=32,
    val_share=0.25,
    ema=0.0,
    augmentation=Augmentation(degrees=5, blur=0, saturation=0.1),
)
EDGE = replace(
    CLOUD,
    model=ModelConfig("edge-xs", 24, dim=16),
    losses=(("cosine-regression", 1.0),),
    init="cloud",
    epochs=2,
)


def quiet(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def cloud(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return train_cloud(shop, CLOUD, tmp_path_factory.mktemp("cloud") / "cloud", lda_head=True)


@pytest.fixture(scope="module")
def bundle(cloud: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "cloud.bundle"
    export_bundle(cloud.model, cloud.export_spec("cloud"), path)
    return path


def test_a_bundle_teaches_what_its_checkpoint_teaches(
    shop: Dataset, cloud: Checkpoint, bundle: Path, tmp_path: Path
) -> None:
    ours = prepare_teaching(shop, EDGE, cloud, tmp_path / "a" / "e", progress=quiet)
    theirs = prepare_teaching(
        shop, EDGE, BundleTeacher(bundle), tmp_path / "b" / "e", progress=quiet
    )
    images = theirs.views.make(1, 0)
    with torch.no_grad():
        exact = F.normalize(cloud.model(normalised(images, cloud.model, torch.device("cpu"))))
    assert torch.allclose(theirs.views.taught[1], exact, atol=1e-4)
    assert (ours.views.taught * theirs.views.taught).sum(-1).mean() > 0.9
    if best_device().type == "cpu":  # a GPU computes in bfloat16, which this small network feels
        assert torch.allclose(ours.views.taught, theirs.views.taught, atol=1e-4)
    assert torch.equal(ours.labels, theirs.labels)
    assert theirs.context.cloud_classifier is None
    assert theirs.views.taught.norm(dim=-1) == pytest.approx(1, abs=1e-5)


def test_a_bundle_teaches_without_labels_and_without_its_weights(
    shop: Dataset, cloud: Checkpoint, bundle: Path, tmp_path: Path
) -> None:
    teacher = BundleTeacher(bundle)
    with pytest.raises(ConfigError, match="'imagenet' or 'random'"):
        train_edge(shop, EDGE, teacher, tmp_path / "edge")
    edge = train_edge(shop, replace(EDGE, init="random"), teacher, tmp_path / "edge")
    assert edge.space == cloud.fingerprint
    assert "the bundle cloud" in edge.card["taught by"]
    spec = edge.export_spec("edge")
    follower = export_bundle(edge.model, spec, tmp_path / "edge.bundle").bundle
    with pytest.raises(ConfigError, match="of another model; teach"):
        BundleTeacher(follower.path)


def test_vectors_in_a_file_teach(shop: Dataset, cloud: Checkpoint, tmp_path: Path) -> None:
    material = prepare_teaching(shop, EDGE, cloud, tmp_path / "m" / "e", progress=quiet).material
    items = [*material.holdout.train, *material.holdout.gallery]
    pictures = np.concatenate([material.pictures, material.val_gallery])
    vectors = 3 * embed_pictures(cloud.model, pictures, torch.device("cpu")).numpy()
    np.savez(tmp_path / "v.npz", paths=[i.path for i in items], vectors=vectors)
    teacher = VectorTeacher(tmp_path / "v.npz", shop.train, cloud.fingerprint)
    teaching = prepare_teaching(shop, EDGE, teacher, tmp_path / "t" / "e", progress=quiet)
    # Every view is taught what the picture was given, as a unit vector.
    for number in range(EDGE.views):
        assert np.allclose(
            teaching.views.taught[number].numpy(), vectors[: len(material.pictures)] / 3, atol=1e-5
        )
    assert np.allclose(
        teaching.val_gallery.numpy(), vectors[len(material.pictures) :] / 3, atol=1e-5
    )
    edge = train_edge(shop, replace(EDGE, init="random"), teacher, tmp_path / "edge")
    assert edge.space == cloud.fingerprint
    blends = replace(EDGE, mixed_views=1, init="random")
    with pytest.raises(ConfigError, match="say nothing of blends"):
        train_edge(shop, blends, teacher, tmp_path / "blends")


def test_vectors_that_do_not_fit_are_refused(shop: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = rng.standard_normal((len(shop.train), 16)).astype(np.float32)
    np.save(tmp_path / "v.npy", good)
    teacher = VectorTeacher(tmp_path / "v.npy", shop.train)
    assert teacher.space == VectorTeacher(tmp_path / "v.npy", shop.train).space
    assert isinstance(teacher.space, Fingerprint)
    np.save(tmp_path / "short.npy", good[:-1])
    with pytest.raises(DataError, match=rf"expected are floats \({len(shop.train)}, D\)"):
        VectorTeacher(tmp_path / "short.npy", shop.train)
    bad = good.copy()
    bad[3] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(DataError, match=f"1 of {len(good)} vectors.*{shop.train[3].path}"):
        VectorTeacher(tmp_path / "bad.npy", shop.train)
    np.savez(tmp_path / "some.npz", vectors=good)
    with pytest.raises(DataError, match="has no array paths"):
        VectorTeacher(tmp_path / "some.npz", shop.train)
    np.savez(tmp_path / "few.npz", paths=[shop.train[0].path], vectors=good[:1])
    few = VectorTeacher(tmp_path / "few.npz", shop.train)
    with pytest.raises(DataError, match="has no vectors for"):
        train_edge(shop, replace(EDGE, init="random"), few, tmp_path / "edge")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(DataError, match="no readable"):
        VectorTeacher(tmp_path / "text.npy", shop.train)


def test_a_clean_view_teacher_sees_the_picture(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path
) -> None:
    same = prepare_teaching(shop, EDGE, cloud, tmp_path / "a" / "e", progress=quiet)
    config = replace(EDGE, teacher_view="clean")
    clean = prepare_teaching(shop, config, cloud, tmp_path / "a" / "e", progress=quiet)
    assert torch.equal(clean.views.taught[0], same.views.taught[0])
    assert torch.equal(clean.views.taught[1], same.views.taught[0])
    assert not torch.equal(same.views.taught[1], same.views.taught[0])
    with pytest.raises(ConfigError, match="says nothing of blends: set mixed_views to 0"):
        replace(config, mixed_views=1)


def test_the_cloud_model_embeds_a_plan_of_views_once(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_teaching(shop, EDGE, cloud, tmp_path / "one", progress=quiet)

    def never(*arguments: object) -> None:
        raise AssertionError("embedded again")

    kept = CheckpointTeacher(cloud)
    monkeypatch.setattr(CheckpointTeacher, "vectors", never)
    held = replace(EDGE, val_share=0.0)
    with pytest.raises(AssertionError):
        prepare_teaching(shop, replace(EDGE, views=3), kept, tmp_path / "two", progress=quiet)
    monkeypatch.setattr(
        kept, "vectors_of", lambda items, pictures: torch.empty(len(items), 16), raising=True
    )
    smaller = replace(EDGE, model=ModelConfig("edge-xs", 20, dim=16))
    second = prepare_teaching(shop, smaller, kept, tmp_path / "two", progress=quiet)
    assert torch.equal(first.views.taught, second.views.taught)
    assert list(second.views.inputs) == [20]
    assert held != EDGE


def test_a_pool_teaches_without_labels(shop: Dataset, cloud: Checkpoint, tmp_path: Path) -> None:
    pool = shop.subset(shop.queries)
    config = replace(EDGE, pool_views=1)
    teaching = prepare_teaching(
        shop, config, cloud, tmp_path / "p" / "e", pool=pool, progress=quiet
    )
    count = len(teaching.views)
    assert len(teaching.everything) == count + len(pool.items)
    assert (teaching.labels[count:] == -1).all()
    assert torch.equal(teaching.labels[:count], teaching.material.labels)
    with_pool = train_edge(shop, config, cloud, tmp_path / "p" / "edge", pool=pool)
    without = train_edge(shop, config, cloud, tmp_path / "p" / "none")
    assert with_pool.fingerprint != without.fingerprint
    assert with_pool.card["unlabelled pool"] == f"{len(pool.items)} pictures of {pool.name}"


def test_joined_views_are_their_parts() -> None:
    rng = np.random.default_rng(0)
    how = Augmentation(blur=0)
    parts = [
        Views(rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8), how, [16, 8], views, 0, mixed)
        for n, views, mixed in ((5, 3, 1), (4, 1, 0))
    ]
    for number, part in enumerate(parts):
        part.prepare()
        part.taught = torch.full((part.count, len(part), 2), float(number))
    joined = JoinedViews(parts)
    assert len(joined) == 9
    shown = joined.assign(2)
    assert torch.equal(shown[:5], parts[0].assign(2))
    assert torch.equal(shown[5:], torch.zeros(4, dtype=torch.long))
    assert torch.equal(joined.blended(shown)[:5], shown[:5] == 2)
    assert not joined.blended(shown)[5:].any()
    index = torch.tensor([7, 0, 4, 5, 2])
    inputs, taught = joined.take(shown, index)
    assert taught[:, 0].tolist() == [1, 0, 0, 1, 0]
    for size in (16, 8):
        for row, i in enumerate(index.tolist()):
            part, place = (parts[0], i) if i < 5 else (parts[1], i - 5)
            assert torch.equal(inputs[size][row], part.inputs[size][shown[i], place])
    assert set(inputs) == {16, 8}
    with pytest.raises(KeyError):
        inputs[24]


def test_a_family_shares_its_views_and_is_certified_pair_by_pair(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path
) -> None:
    members = {
        "larger": EDGE,
        "smaller": replace(EDGE, model=ModelConfig("edge-xs", 16, dim=16)),
    }
    trained = train_family(shop, members, cloud, tmp_path)
    assert list(trained) == ["larger", "smaller"]
    alone = train_cloud(shop, replace(CLOUD, model=EDGE.model, epochs=1), tmp_path / "alone")
    report, certificates = certify_family(
        shop, trained, cloud, tmp_path, baselines={"larger": alone}
    )
    assert set(certificates) <= {"larger", "smaller"}
    own = Report.read(tmp_path / "larger-report" / "report.json")
    assert {c.reference for c in own.criteria if c.decides} == {"larger-alone"}
    assert ("larger" in certificates) == own.passed
    with pytest.raises(ConfigError, match="'other' has a baseline and is no member"):
        certify_family(shop, trained, cloud, tmp_path, baselines={"other": alone})
    pairs = {(c.query, c.gallery) for c in report.matrix}
    names = {"larger", "smaller", "cloud"}
    assert pairs == {(a, b) for a in names for b in names}
    assert (tmp_path / "report.html").exists()
    # What is there already is kept, and nothing else is taken for it.
    again = train_family(shop, members, cloud, tmp_path)
    assert again["smaller"].fingerprint == trained["smaller"].fingerprint
    with pytest.raises(ConfigError, match="a model of another family"):
        train_family(shop, {"larger": members["smaller"]}, cloud, tmp_path)
    with pytest.raises(ConfigError, match="smaller has views = 3"):
        train_family(
            shop, {**members, "smaller": replace(members["smaller"], views=3)}, cloud, tmp_path
        )
    with pytest.raises(ConfigError, match="at least one member"):
        train_family(shop, {}, cloud, tmp_path)


def test_nested_widths_are_taught_each_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    taught = F.normalize(torch.randn(6, 16, generator=generator))
    embedding = torch.randn(6, 16, generator=generator)
    label = torch.zeros(6, dtype=torch.long)
    model = EmbeddingModel(EDGE.model)
    context = LossContext(3, 16, anchors=F.normalize(torch.randn(4, 16, generator=generator)))
    nested = Solo(model, (("cosine-regression", 1.0),), context, (4, 8))
    expected = sum(
        (1 - F.cosine_similarity(embedding[:, :d], taught[:, :d])).mean() for d in (16, 4, 8)
    )
    found = nested.terms(embedding, label, taught)
    assert found.item() == pytest.approx(expected.item() / 3, rel=1e-5)
    with pytest.raises(ConfigError, match="nested"):
        replace(EDGE, nested=(16,))


def test_nested_training_keeps_its_settings(
    shop: Dataset, cloud: Checkpoint, tmp_path: Path
) -> None:
    config = replace(EDGE, nested=(4, 8), losses=(("cosine-regression", 1.0), ("cosface", 0.1)))
    assert TrainConfig.from_json(config.to_json()) == config
    edge = train_edge(shop, config, cloud, tmp_path / "edge")
    assert edge.card["nested widths"] == "4, 8"
    assert edge.classifier.shape == (6, 16)


def test_a_codebook_is_of_the_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(4, 16, generator=generator))
    vectors = F.normalize(
        centres.repeat_interleave(100, 0) + 0.01 * torch.randn(400, 16, generator=generator)
    )
    book = learn_codebook(vectors, 0)
    assert book.shape == (2, 8, 8)
    assert torch.equal(book, learn_codebook(vectors, 0))
    for piece in range(2):
        part = centres[:, piece * 8 : piece * 8 + 8]
        assert torch.cdist(part, book[piece]).min(1).values.max() < 0.05
    with pytest.raises(ConfigError, match="pieces of 8"):
        learn_codebook(vectors[:, :12], 0)


def test_unanchored_losses_warn(shop: Dataset, cloud: Checkpoint, tmp_path: Path) -> None:
    for name in ("relational-kd", "logit-kd"):
        config = replace(EDGE, losses=((name, 1.0),), epochs=1)
        with pytest.warns(UserWarning, match=f"no loss of {name} ties"):
            train_edge(shop, config, cloud, tmp_path / name)
    both = replace(EDGE, losses=(("relational-kd", 1.0), ("cosine-regression", 1.0)), epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_edge(shop, both, cloud, tmp_path / "both")
