"""`samespace train tagger` and `samespace update`, from a manifest to a report of flips."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from samespace.cli._root import run as samespace
from samespace.regressions import compare, read_predictions
from samespace_cloud.cli.train import train
from samespace_cloud.cli.update import update
from samespace_cloud.tagging import TaggerCheckpoint, TaggerConfig
from samespace_edge import DataError, SamespaceError

SMALL = ["--backbone", "edge-xs", "--size", "16", "--views", "2", "--epochs", "3", "--lr", "0.01"]
SMALL += ["--batch-size", "8", "--json"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, 6 train and 4 test pictures each."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    rows = []
    for i, name in enumerate(("red", "green", "blue")):
        for shot in range(10):
            pixels = noise.normal(90, 40, (20, 20, 3))
            pixels[..., i] += 60
            path = f"{name}{shot}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path)
            rows.append((path, name, "train" if shot < 6 else "test"))
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "photos.csv"


@pytest.fixture(scope="module")
def old(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "old"
    files = ("--predictions", folder.parent / "train.npz", "--split", "train")
    found = run("train", "tagger", photos, "--out", folder, *SMALL, *files)
    assert found["classes"] == ["blue", "green", "red"]
    assert set(found["validation"]) == {"accuracy"}
    return folder


def run(command: str, *arguments: object) -> dict[str, object]:
    group = {"train": train, "update": update}[command]
    ran = CliRunner().invoke(group, [str(a) for a in arguments])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def refused(*arguments: object) -> str:
    ran = CliRunner().invoke(update, [str(a) for a in arguments])
    assert ran.exit_code == 2, ran.output
    return ran.output


def test_from_a_manifest_to_flips(photos: Path, old: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "old.csv", tmp_path / "new.csv"
    run("train", "tagger", photos, "--out", old, *SMALL, "--predictions", before)
    found = run(
        *("update", "tagger", photos, "--old", old, "--out", tmp_path / "new", *SMALL),
        *("--method", "focal-kl", "--beta", "2", "--seed", "1", "--predictions", after),
    )
    assert found["predictions"] == str(after)
    assert set(found["validation"]) >= {"accuracy", "negative_flips", "old_accuracy"}
    settings = TaggerCheckpoint.load(tmp_path / "new").settings
    assert (settings["update"]["beta"], settings["update"]["alpha"]) == (2.0, 1.0)
    report = compare(read_predictions(before), read_predictions(after))
    assert report.pictures == 12
    assert report.negative_rate.value <= report.error_new
    mixed = run(
        *("update", "interpolate", old, tmp_path / "new", "--share", "0.5"),
        *("--data", photos, "--out", tmp_path / "mixed", "--json"),
        *("--predictions", tmp_path / "mixed.csv"),
    )
    assert len(read_predictions(tmp_path / "mixed.csv")) == 12
    assert mixed["fingerprint"] == TaggerCheckpoint.load(tmp_path / "mixed").fingerprint.hex


def test_saved_logits_are_an_old_tagger(photos: Path, old: Path, tmp_path: Path) -> None:
    saved = old.parent / "train.npz"
    with np.load(saved) as arrays:
        assert set(arrays.files) == {"ids", "labels", "classes", "logits"}
    run(
        *("update", "tagger", photos, "--old", saved, "--out", tmp_path / "new", *SMALL),
        *("--method", "ldi", "--top-k", "2", "--skip-truth"),
    )
    assert "the logits in train.npz" in TaggerCheckpoint.load(tmp_path / "new").card["replaces"]


def test_an_ensemble_and_a_readable_line(photos: Path, old: Path, tmp_path: Path) -> None:
    arguments = ["tagger", photos, "--old", old, "--out", tmp_path / "e", *SMALL[:-1]]
    arguments += ["--method", "ensemble", "--members", "2", "--predictions", tmp_path / "e.npz"]
    ran = CliRunner().invoke(update, [str(a) for a in arguments])
    assert ran.exit_code == 0, ran.output
    assert "e: 2 x edge-xs-16px, 3 classes, validation: accuracy" in ran.output
    assert "e.npz" in ran.output
    assert len(read_predictions(tmp_path / "e.npz")) == 12


def test_vectors_starts_and_files_of_settings(
    photos: Path, old: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    quick = ["--epochs", "2", "--batch-size", "8", "--json"]
    head = run(
        *("train", "tagger", photos, "--out", tmp_path / "head", *quick),
        *("--embeddings", bundles["cloud"], "--hidden", "8"),
    )
    assert TaggerCheckpoint.load(str(head["tagger"])).sees.architecture == "vectors-24d-8h"
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"sees": {"backbone": "edge-xs", "input_size": 24}, "epochs": 9}))
    run(
        *("train", "tagger", photos, "--out", tmp_path / "file", *quick, "--config", file),
        *("--start", old, "--input-size", "16"),
    )
    found = TaggerConfig.from_json(TaggerCheckpoint.load(tmp_path / "file").settings["tagger"])
    assert (found.epochs, found.sees.architecture) == (2, "edge-xs-16px")
    assert found.init == "checkpoint"


def test_what_is_refused(photos: Path, old: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    base = ("tagger", photos, "--old", old, "--out", tmp_path / "n")
    said = refused(*base, "--method", "focal-logit", "--temperature", "3")
    assert "--temperature says nothing to focal-logit; it is for focal-kl" in said
    said = refused(*base, "--skip-truth")
    assert "--skip-truth says nothing to focal-logit; it is for elodi, ldi" in said
    assert "name two starts" in refused(*base, "--pretrained", "--start", old)
    assert "--hidden goes with --embeddings" in refused(*base, "--hidden", "8")
    both = ("--embeddings", bundles["cloud"], "--size", "16")
    assert "go with pictures" in refused(*base, *both)
    said = refused("interpolate", old, old, "--out", tmp_path / "m", "--predictions", "p.csv")
    assert "of the dataset that --data names" in said
    assert "are both" in refused("tagger", photos, "--old", old, "--out", old)
    assert "is a file" in refused("tagger", photos, "--old", old, "--out", photos)
    (tmp_path / "p.csv").mkdir()
    assert "is a directory" in refused(*base, "--predictions", tmp_path / "p.csv")
    (tmp_path / "p.csv").rmdir()
    with pytest.raises(SamespaceError, match="no method 'nothing' to update a tagger"):
        run("update", *base, "--method", "nothing")
    (tmp_path / "s.json").write_text("[]")
    with pytest.raises(SamespaceError, match="have to be a JSON object"):
        run("update", *base, "--config", tmp_path / "s.json")
    with pytest.raises(SamespaceError, match="cannot read the settings"):
        run("update", *base, "--config", tmp_path / "t.json")
    with pytest.raises(DataError, match="has no val pictures"):
        run("update", *base, "--predictions", tmp_path / "p.csv", "--split", "val")


def test_pictures_that_cannot_be_read_are_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "m.csv").write_text("path,label,split\na.png,x,train\nb.png,y,train\n")
    with pytest.raises(DataError) as raised:
        run("train", "tagger", tmp_path / "m.csv", "--out", tmp_path / "t", *SMALL)
    assert len(raised.value.problems) == 2
    assert "b.png: there is no such file" in raised.value.problems
    twice = "red0.png,x,train\nred0.png,y,train\n"
    (photos.parent / "m.csv").write_text(f"path,label,split\n{twice}")
    with pytest.raises(DataError, match=r"red0\.png: listed more than once"):
        run("train", "tagger", photos.parent / "m.csv", "--out", tmp_path / "t", *SMALL)


def test_the_command_line_finds_both() -> None:
    assert samespace(["train", "tagger", "--help"]) == 0
    assert samespace(["update", "tagger", "--help"]) == 0
