"""Tunings as files that run elsewhere: classifiers as graphs, embeddings as bundles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from numpy.typing import NDArray

from samespace import Dataset
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.cli.export import export_command
from samespace_cloud.linear import LinearConfig
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.tagging import FromPictures, FromVectors, TaggerCheckpoint, TaggerConfig
from samespace_cloud.tagging.model import new_tagger
from samespace_cloud.teacher import CheckpointTeacher
from samespace_cloud.tuning import (
    TuneConfig,
    TunedCheckpoint,
    export_classifier,
    forget_pictures,
    merge_tuned,
    remove_tuned,
    tune_embedding,
    tune_tagger,
)
from samespace_cloud.tuning.pictures import normalised
from samespace_edge import ConfigError, Embedder, Fingerprint
from samespace_edge._runtimes import load_runtime
from tests.cloud._customers import NETWORK, refused, text

SEES = FromPictures(NETWORK[1], 16, "squash")
EXACT = LinearConfig(solver="exact", penalty=0.5)


def pixels(count: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def planes(of: NDArray[np.uint8]) -> torch.Tensor:
    return normalised(torch.from_numpy(of).permute(0, 3, 1, 2))


def export(*arguments: object) -> str:
    ran = CliRunner().invoke(export_command, [str(a) for a in arguments])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.fixture(scope="module")
def tuned(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the shop's eight train labels."""
    folder = tmp_path_factory.mktemp("ships") / "tuned"
    tune_tagger(shop, TuneConfig(SEES, "random", EXACT), folder)
    return folder


def parity(tuned: Path, out: Path, target: str, runtime: str) -> float:
    """Largest difference of a logit, as a share of the largest one."""
    format_, precision = target.split("-")
    export(tuned, out, "--to", format_, "--precision", precision)
    checkpoint = TunedCheckpoint.load(tuned)
    value = json.loads((out / "classifier.json").read_text())
    assert value["classes"] == list(checkpoint.classes)
    assert value["fingerprint"] == checkpoint.fingerprint.hex
    ((file, _),) = value["files"][0]["files"].items()
    found = load_runtime(runtime, (out / file).read_bytes(), 1, ()).run(pixels())
    expected = checkpoint.logits(planes(pixels())).numpy()
    with torch.no_grad():
        plain = checkpoint.model.base(planes(pixels())).numpy()
    assert np.abs(expected - plain).max() > 0.05 * np.abs(expected).max()  # the tangent counts
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_a_tuned_classifier_runs_as_onnx(tuned: Path, tmp_path: Path) -> None:
    assert parity(tuned, tmp_path / "c", "onnx-fp32", "onnxruntime") < 1e-5
    with pytest.raises(ConfigError, match="c is already there; remove it, or overwrite"):
        export(tuned, tmp_path / "c")
    said = export(tuned, tmp_path / "c", "--overwrite", "--precision", "fp16", "--json")
    # Of noise through untrained weights; of photographs and trained ones it is above 0.999.
    assert json.loads(said)["parity"][0]["min_cosine"] > 0.99
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.slow
def test_a_tuned_classifier_runs_as_tflite(tuned: Path, tmp_path: Path) -> None:
    assert parity(tuned, tmp_path / "c", "tflite-fp32", "ai_edge_litert") < 1e-5


def test_a_trained_tagger_ships_the_same_way(tmp_path: Path) -> None:
    tagger = new_tagger(TaggerConfig(SEES), ("a", "b")).eval()
    TaggerCheckpoint((tagger,), ("a", "b")).save(tmp_path / "tagger")
    assert "2 classes" in export(tmp_path / "tagger", tmp_path / "out")
    graph = (tmp_path / "out" / "model.onnx").read_bytes()
    found = load_runtime("onnxruntime", graph, 1, ()).run(pixels())
    with torch.no_grad():
        expected = tagger(torch.from_numpy(pixels()).permute(0, 3, 1, 2)).numpy()
    assert np.abs(found - expected).max() < 1e-5
    ran = CliRunner().invoke(export_command, [str(tmp_path / "tagger"), "x", "--width", "2"])
    assert "--calibrate and --width are of models that embed" in ran.output


def test_classifiers_that_do_not_ship(tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no classifier comes as onnx-int8; there are onnx-fp32"):
        export(tuned, tmp_path / "c", "--precision", "int8")
    head = FromVectors("x.bundle", "0" * 64, 4)
    vectors = TaggerCheckpoint((new_tagger(TaggerConfig(head), ("a", "b")),), ("a", "b"))
    with pytest.raises(ConfigError, match="a tagger on a bundle's vectors sees no pictures"):
        export_classifier(vectors, tmp_path / "c", "c")
    assert not list(tmp_path.iterdir())


def model(seed: int, dim: int = 8) -> EmbeddingModel:
    torch.manual_seed(seed)
    return EmbeddingModel(ModelConfig(NETWORK[1], 16, dim, "squash")).eval()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An edge and a cloud model of one space."""
    folder = tmp_path_factory.mktemp("pair")
    cloud = Checkpoint(model(1), "cloud")
    cloud.save(folder / "cloud")
    Checkpoint(model(2), "edge", cloud.fingerprint).save(folder / "edge")
    return folder / "edge", folder / "cloud"


def test_a_tuned_edge_model_is_a_bundle_like_any_other(
    pair: tuple[Path, Path], shop_csv: Path, shop: Dataset, tmp_path: Path
) -> None:
    edge, cloud = pair
    said = text(
        *("embedding", shop_csv, edge, "--cloud", cloud, "--out", tmp_path / "tuned"),
        *("--solver", "exact", "--penalty", "0.01", "--canvas", "32"),
    )
    assert "an embedding, 48 pictures" in said
    export(tmp_path / "tuned", tmp_path / "tuned.bundle")
    embedder = Embedder(tmp_path / "tuned.bundle")
    anchor = Checkpoint.load(cloud).fingerprint
    assert embedder.identity.space == anchor
    manifest = embedder.bundle.manifest
    assert (manifest.role, manifest.dim) == ("edge", 8)
    checkpoint = TunedCheckpoint.load(tmp_path / "tuned")
    x = planes(pixels())
    with torch.no_grad():
        expected = F.normalize(checkpoint.model(x)).numpy()
    assert np.abs(embedder.embed_pixels(pixels()) - expected).max() < 1e-4

    teacher = Embedder(_bundle(cloud, tmp_path / "cloud.bundle"))
    given = [shop.read(i) for i in shop.train]
    aim, plain = teacher.embed(given), Embedder(_bundle(edge, tmp_path / "edge.bundle"))
    before = (plain.embed(given) * aim).sum(1).mean()
    assert (embedder.embed(given) * aim).sum(1).mean() > before + 0.1


def _bundle(checkpoint: Path, out: Path) -> Path:
    export(checkpoint, out)
    return out


def tune_part(pair: tuple[Path, Path], data: Dataset, folder: Path, **more: Any) -> TunedCheckpoint:
    edge, cloud = (Checkpoint.load(p) for p in pair)
    return tune_embedding(data, edge, CheckpointTeacher(cloud), EXACT, folder, **more)


def test_embeddings_are_merged_and_forgotten_as_classifiers_are(
    pair: tuple[Path, Path], shop: Dataset, tmp_path: Path
) -> None:
    parts = [shop.subset([i for i in shop.train if i.columns["aisle"] == a]) for a in ("0", "1")]
    first, second = (tune_part(pair, d, tmp_path / n) for d, n in zip(parts, "ab", strict=True))
    both = merge_tuned({"a": first, "b": second}, tmp_path / "both")
    left = remove_tuned(both, "b", tmp_path / "left")
    assert left.fingerprint == first.fingerprint

    whole = tune_part(pair, shop.subset([*parts[0].items, *parts[1].items]), tmp_path / "whole")
    told = forget_pictures(whole, parts[0], whole.chosen({"aisle": "1"}), tmp_path / "less")
    assert (told.checkpoint.vector - first.vector).norm < 1e-5 * first.vector.norm
    assert told.in_start == 0
    assert TunedCheckpoint.load(tmp_path / "less").fingerprint == told.checkpoint.fingerprint


def test_models_that_do_not_fit(
    pair: tuple[Path, Path], shop: Dataset, shop_csv: Path, tuned: Path, tmp_path: Path
) -> None:
    edge, cloud = pair
    other = CheckpointTeacher(Checkpoint(model(3), "cloud"))
    own = Checkpoint.load(edge)
    with pytest.raises(ConfigError, match=r"the edge model lives in the space .*of its own space"):
        tune_embedding(shop, own, other, EXACT, tmp_path / "x")
    narrow, teacher = Checkpoint(model(4, 4), "edge"), CheckpointTeacher(Checkpoint.load(cloud))
    with pytest.raises(ConfigError, match="makes 4 numbers, the cloud model 8"):
        tune_embedding(shop, narrow, teacher, EXACT, tmp_path)
    done = tune_part(pair, shop, tmp_path / "done", only=["head"])
    with pytest.raises(ConfigError, match="is a tuned embedding, and this is for classifiers"):
        text("predict", tmp_path / "done", shop_csv, "--out", tmp_path / "p.csv")
    classifier = TunedCheckpoint.load(tuned)
    with pytest.raises(ConfigError, match="need the same classes"):
        merge_tuned({"c": classifier, "e": done}, tmp_path / "m")
    away = replace(done, space=Fingerprint("0" * 64))
    with pytest.raises(ConfigError, match="e and f are tuned towards cloud models of different sp"):
        merge_tuned({"e": done, "f": away}, tmp_path / "m")
    padded = replace(classifier, sees=replace(classifier.sees, policy="pad"))
    with pytest.raises(ConfigError, match=r"c sees .*'squash'.*, p .*'pad'.*; merge"):
        merge_tuned({"c": classifier, "p": padded}, tmp_path / "m")
    wrong = replace(EXACT, solver="adam", loss="cross-entropy")
    with pytest.raises(ConfigError, match=r"least squares .* vectors, not by cross-entropy"):
        tune_embedding(shop, own, teacher, wrong, tmp_path / "x")
    said = refused("embedding", shop_csv, edge, "--out", tmp_path / "y")
    assert "name the cloud model with --cloud" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done"]
