"""`samespace tune`, from a manifest to forgotten, merged and explained tunings."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from samespace.cli._root import run as samespace
from samespace.regressions import compare, read_predictions
from samespace_cloud.linear._linearized import flatten
from samespace_cloud.tagging import open_labelled
from samespace_cloud.tuning import TunedCheckpoint
from samespace_edge import DataError
from tests.cloud._customers import (
    CLASSES,
    EXACT,
    NETWORK,
    Row,
    manifest,
    run,
    text,
    write_pictures,
)


@dataclass(frozen=True)
class Runs:
    """Tunings that the tests start from.

    Attributes:
        folder: where all of it is.
        rows: of the customers' manifest, test pictures included.
        data: that manifest.
        base: of our own pictures.
        all: tuned on both customers' pictures, to rounding.
    """

    folder: Path
    rows: list[Row]
    data: Path
    base: Path
    all: Path

    def without(self, name: str, *gone: str) -> Path:
        """The manifest without these customers, or pictures."""
        rows = [r for r in self.rows if r[3] not in gone and r[0] not in gone]
        return manifest(self.folder, name, rows)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("tunings")
    rows = write_pictures(folder)
    ours = manifest(folder, "ours.csv", [r for r in rows if r[3] == "us"])
    theirs = [r for r in rows if r[3] != "us"]
    data = manifest(folder, "customers.csv", theirs)
    made = run("base", ours, "--out", folder / "base", *NETWORK, "--json")
    assert (made["pictures"], made["classes"]) == (0, list(CLASSES))
    found = run("run", data, "--out", folder / "all", "--base", folder / "base", *EXACT)
    assert found["pictures"] == 18
    assert found["start"] == made["start"]
    return Runs(folder, theirs, data, folder / "base", folder / "all")


def tangent(folder: Path) -> torch.Tensor:
    return flatten(TunedCheckpoint.load(folder).model.tangents()).detach()


def off(one: Path, other: Path, before: Path) -> float:
    """|one - other| as a share of |before - other|."""
    return float((tangent(one) - tangent(other)).norm() / (tangent(before) - tangent(other)).norm())


def test_its_predictions_go_where_a_taggers_do(runs: Runs, tmp_path: Path) -> None:
    found = run(
        *("run", runs.data, "--out", tmp_path / "own", *NETWORK, "--iterations", "3", "--json"),
        *("--predictions", tmp_path / "own.npz", "--split", "test"),
    )
    assert found["metrics"]["residual"] < 1
    assert len((tmp_path / "own" / "log.jsonl").read_text().splitlines()) == 3
    run("predict", runs.all, runs.data, "--out", tmp_path / "all.csv", "--json")
    report = compare(read_predictions(tmp_path / "own.npz"), read_predictions(tmp_path / "all.csv"))
    assert report.pictures == 9
    with np.load(tmp_path / "own.npz") as arrays:
        assert set(arrays.files) == {"ids", "labels", "classes", "logits", "customer"}
        told = torch.from_numpy(arrays["logits"])
    data = open_labelled(runs.data)
    items = [i for i in data.items if i.split == "test"]
    assert torch.equal(TunedCheckpoint.load(tmp_path / "own").predict(data, items), told)
    said = text("predict", runs.all, runs.data, "--out", tmp_path / "t.csv", "--split", "train")
    assert said.strip() == f"predictions: {tmp_path / 't.csv'}"
    with pytest.raises(DataError, match=r"t\.csv are not of the same pictures.*'blue3\.png'"):
        compare(read_predictions(tmp_path / "own.npz"), read_predictions(tmp_path / "t.csv"))


def test_forgetting_a_customer_is_tuning_without_it(runs: Runs, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    run("run", runs.without("bob.csv", "acme"), "--out", alone, "--base", runs.base, *EXACT)
    forgotten = tmp_path / "forgotten"
    # Nothing of the forgotten pictures is needed: the manifest does not list them.
    told = run(
        *("forget", runs.all, runs.folder / "bob.csv", "--where", "customer=acme"),
        *("--out", forgotten, "--retrain", "--json"),
    )
    assert (told["forgotten"], told["pictures"], told["in_start"]) == (9, 9, 0)
    assert told["moved"] > 0.1
    assert off(forgotten, alone, runs.all) < 1e-5
    assert told["retrained"] < 0.05  # by conjugate gradients, in float32
    assert told["distance"] < 1e-5 * tangent(alone).norm()
    (tmp_path / "ids").write_text("".join(f"{r[0]}\n" for r in runs.rows if r[3] == "acme"
                                          and r[2] == "train"))  # fmt: skip
    said = text("forget", runs.all, runs.data, "--ids", tmp_path / "ids", "--out", tmp_path / "i",
                "--solver", "cg")  # fmt: skip
    assert "9 pictures forgotten; the tangent moved by" in said
    assert off(tmp_path / "i", alone, runs.all) < 0.05
    record = (forgotten / "tuned.json").read_text()
    assert "acme" not in record
    assert "red3.png" not in record


def test_a_base_does_not_forget_and_says_so(runs: Runs, tmp_path: Path) -> None:
    run("run", runs.data, "--out", tmp_path / "own", *NETWORK, *EXACT)
    gone = ("--where", "customer=acme", "--out", tmp_path / "less")
    said = text("forget", tmp_path / "own", runs.data, *gone)
    assert "the base was made of 9 of them, and still knows them" in said


def test_a_member_is_merged_and_taken_away_again(runs: Runs, tmp_path: Path) -> None:
    for name in ("acme", "bob"):
        data = runs.without(f"only-{name}.csv", "acme" if name == "bob" else "bob")
        run("run", data, "--out", tmp_path / name, "--base", runs.base, *EXACT)
    first = run("merge", tmp_path / "acme", tmp_path / "bob", "--out", tmp_path / "both", "--json")
    assert first["members"] == ["acme", "bob"]
    mean = (tangent(tmp_path / "acme") + tangent(tmp_path / "bob")) / 2
    assert (tangent(tmp_path / "both") - mean).norm() < 1e-6 * mean.norm()
    named = (f"bob={tmp_path / 'bob'}", f"acme={tmp_path / 'acme'}")
    again = run("merge", *named, "--out", tmp_path / "other", "--json")
    assert again["fingerprint"] == first["fingerprint"]
    left = text("remove", tmp_path / "both", "bob", "--out", tmp_path / "left")
    assert "average of acme" in left
    assert torch.equal(tangent(tmp_path / "left"), tangent(tmp_path / "acme"))
    sums = run("merge", *named, "--how", "sum", "--out", tmp_path / "sum", "--json")
    assert sums["metrics"]["norm"] == pytest.approx(2 * float(mean.norm()), rel=1e-5)


def test_no_order_moves_the_model(runs: Runs, tmp_path: Path) -> None:
    shuffled = list(runs.rows)
    random.Random(1).shuffle(shuffled)
    data = manifest(runs.folder, "shuffled.csv", shuffled)
    run("run", data, "--out", tmp_path / "shuffled", "--base", runs.base, *EXACT)
    assert off(tmp_path / "shuffled", runs.all, runs.base) < 1e-5
    steps = [runs.without(f"{n}.csv", *gone) for n, gone in (("a", ("bob",)), ("b", ("acme",)))]
    for name, order in (("ab", steps), ("ba", steps[::-1])):
        run("run", order[0], "--out", tmp_path / name, "--base", runs.base, *EXACT)
        for more in (order[1], runs.data):
            run("update", tmp_path / name, more, "--out", tmp_path / name, "--json")
    assert off(tmp_path / "ab", tmp_path / "ba", runs.base) < 1e-5
    assert off(tmp_path / "ab", runs.all, runs.base) < 1e-5


def test_influence_is_what_tuning_without_a_picture_changes(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "influence.npz"
    told = run("influence", runs.all, runs.data, "--out", file, "--top", "3", "--json")
    changes = [p["loss_change"] for p in told["pictures"]]
    assert changes == sorted(changes)
    assert len(changes) == 3
    with np.load(file) as arrays:
        found = dict(arrays)
    assert found["change"].shape == (18, 9, 3)
    data = open_labelled(runs.data)
    test = [i for i in data.items if i.split == "test"]
    now = TunedCheckpoint.load(runs.all).predict(data, test).numpy()
    targets = 15.0 * np.eye(3)[[CLASSES.index(i.label) for i in test]]
    mine, real, losses = [], [], []
    for place in (0, 4, 8, 12, 17):
        gone = str(found["ids"][place])
        less = runs.without("less.csv", gone)
        run("run", less, "--out", tmp_path / "less", "--base", runs.base, *EXACT)
        then = TunedCheckpoint.load(tmp_path / "less").predict(data, test).numpy()
        mine.append(found["change"][place])
        real.append(then - now)
        loss = ((then - targets) ** 2 - (now - targets) ** 2).mean()
        losses.append((found["loss_change"][place], loss))
        left = [i for i in data.items if i.path == gone]
        out = TunedCheckpoint.load(tmp_path / "less").predict(data, left).numpy()
        assert np.abs(found["without"][place] - out).max() < 1e-2
    assert np.corrcoef(np.ravel(mine), np.ravel(real))[0, 1] > 0.95
    assert np.allclose(*zip(*losses, strict=True), rtol=0.02, atol=1e-3)
    said = text("influence", runs.all, runs.data, "--out", tmp_path / "influence.csv")
    assert "each picture answered by the tuning without it" in said
    with (tmp_path / "influence.csv").open() as table:
        assert [row["id"] for row in csv.DictReader(table)] == found["ids"].tolist()


def test_it_is_less_sure_of_what_it_has_not_seen(runs: Runs, tmp_path: Path) -> None:
    far = [("white.png", "red", "test", "us")]
    from PIL import Image

    Image.new("RGB", (20, 20), "white").save(runs.folder / "white.png")
    data = manifest(runs.folder, "far.csv", [*runs.rows, *far])
    file = tmp_path / "confidence.csv"
    told = run("confidence", runs.all, data, "--out", file, "--json")
    assert [p["ahead"] for p in told["pictures"]] == sorted(p["ahead"] for p in told["pictures"])
    with file.open() as table:
        rows = {row["id"]: row for row in csv.DictReader(table)}
    assert list(rows["white.png"]) == ["id", "label", "prediction", "output", "std", "ahead"]
    others = [float(row["std"]) for name, row in rows.items() if name != "white.png"]
    assert float(rows["white.png"]["std"]) > 2 * max(others)
    seen = run("confidence", runs.all, data, "--split", "train", "--json")
    assert np.mean([p["std"] for p in seen["pictures"]]) < np.mean(others)
    assert "prediction\tstd\tahead" in text("confidence", runs.all, data)
    # A tuning that stopped early has answers of its own, and they are told.
    few = ("--solver", "sgd", "--epochs", "1", "--penalty", "0.001", "--json")
    early, said = tmp_path / "early", tmp_path / "early.npz"
    run("run", data, "--out", early, "--base", runs.base, *few, "--predictions", said)
    run("confidence", early, data, "--out", file, "--json")
    with file.open() as table:
        answers = {row["id"]: row["prediction"] for row in csv.DictReader(table)}
    predictions = read_predictions(said)
    assert answers == dict(zip(predictions.ids, predictions.predicted, strict=True))


def test_the_command_line_finds_it(runs: Runs) -> None:
    assert samespace(["tune", "--help"]) == 0
    assert json.loads((runs.all / "tuned.json").read_text())["schema"] == 1
