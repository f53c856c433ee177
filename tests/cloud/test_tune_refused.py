"""What `samespace tune` refuses: the message names the culprit and the fix, and nothing is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samespace_cloud.checkpoint import write_tensors
from samespace_cloud.linear import LinearConfig, Linearized
from samespace_cloud.tagging import FromPictures, TaggerCheckpoint, TaggerConfig, open_labelled
from samespace_cloud.tagging.model import new_tagger
from samespace_cloud.tuning import TuneConfig, TunedCheckpoint, forget_pictures, tune_tagger
from samespace_cloud.tuning import training as module
from samespace_cloud.tuning.pictures import select
from samespace_edge import CheckpointError, ConfigError, DataError
from tests.cloud._customers import EXACT, NETWORK, Row, manifest, refused, run, write_pictures

Place = tuple[Path, list[Row], Path, Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder, its rows, a base and a tuning."""
    folder = tmp_path_factory.mktemp("refused")
    rows = write_pictures(folder)
    data = manifest(folder, "all.csv", rows)
    run("base", data, "--out", folder / "base", *NETWORK, "--json")
    run("run", data, "--out", folder / "tuned", "--base", folder / "base", *EXACT)
    return folder, rows, folder / "base", folder / "tuned"


@pytest.fixture(autouse=True)
def _nothing_left(place: Place, tmp_path: Path) -> Iterator[None]:
    before = sorted(place[0].iterdir())
    yield
    there = sorted(place[0].iterdir())
    assert [p for p in there if p.suffix != ".csv"] == [p for p in before if p.suffix != ".csv"]
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".csv", ".txt", ".json")]


def test_classes_that_do_not_match(place: Place, tmp_path: Path) -> None:
    folder, rows, base, tuned = place
    out = tmp_path / "out"
    other = manifest(folder, "o.csv", [("red0.png", "pink", "train", "us"), *rows[1:]])
    for command in (("run", other, "--base", base, *EXACT), ("update", tuned, other)):
        with pytest.raises(ConfigError, match=r"1 class\(es\) that .*… does not have, such as 'pi"):
            run(*command, "--out", out)
    few = manifest(folder, "f.csv", [r for r in rows if r[1] != "blue"])
    for command in (("run", few, "--base", base, *EXACT), ("update", tuned, few)):
        with pytest.raises(ConfigError, match=r"no train picture of 1 .*'blue'.*--allow"):
            run(*command, "--out", out)
    one = manifest(folder, "one.csv", [r for r in rows if r[1] == "red"])
    with pytest.raises(DataError, match="has 1 class in train; a tagger needs two"):
        run("run", one, "--out", out, *NETWORK, *EXACT)
    test = manifest(folder, "t.csv", [*rows[:-1], (rows[-1][0], "pink", "test", "us")])
    with pytest.raises(ConfigError, match=r"1 class\(es\) of the pictures, such as 'pink'"):
        run("influence", tuned, test)


def test_tunings_that_cannot_be_merged(place: Place, tmp_path: Path) -> None:
    folder, _, _, tuned = place
    with pytest.raises(ConfigError, match="was not merged from others, so there is nothing to rem"):
        run("remove", tuned, "bob", "--out", tmp_path / "out")
    assert "two tunings are called 'tuned'" in refused("merge", tuned, tuned, "--out", tmp_path)
    with pytest.raises(CheckpointError, match=r"is not a tuning: it has no tuned\.json"):
        run("merge", folder, "--out", tmp_path / "out")


def test_of_two_bases_or_parts(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, rows, base, tuned = place
    aside, out = tmp_path_factory.mktemp("aside"), place[0].parent / "never"
    data = folder / "all.csv"
    run("run", data, "--out", aside / "two", *NETWORK, "--seed", "1", *EXACT)
    with pytest.raises(ConfigError, match=r"'tuned' belongs to the weights .*that of 'two' to"):
        run("merge", tuned, aside / "two", "--out", out)
    run("run", data, "--out", aside / "head", "--base", base, "--only", "head", *EXACT)
    with pytest.raises(ConfigError, match=r"not of the same parameters: backbone\..*'only'"):
        run("merge", tuned, aside / "head", "--out", out)
    few = manifest(folder, "two.csv", [r for r in rows if r[1] != "blue"])
    run("run", few, "--out", aside / "few", *NETWORK, *EXACT)
    with pytest.raises(ConfigError, match=r"merged \(tuned, few\) need the same classes.*'blue'"):
        run("merge", tuned, aside / "few", "--out", out)
    run("merge", tuned, "--out", aside / "merged", "--json")
    for command in (("forget", aside / "merged", data, "--where", "customer=acme", "--out", out),
                    ("influence", aside / "merged", data), ("confidence", base, data)):  # fmt: skip
        with pytest.raises(ConfigError, match="it was fitted to no pictures itself"):
            run(*command)
    with pytest.raises(ConfigError, match="'tuned' is the only member; without it, use the base"):
        run("remove", aside / "merged", "tuned", "--out", out)
    assert not out.exists()


def test_pictures_that_are_not_there(place: Place, tmp_path: Path) -> None:
    folder, rows, _, tuned = place
    data, ids, out = folder / "all.csv", tmp_path / "ids.txt", ("--out", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"has customer=eve; it has: acme, bob, us"):
        run("forget", tuned, data, "--where", "customer=eve", *out)
    with pytest.raises(ConfigError, match=r"has a column 'owner'; columns: customer"):
        run("forget", tuned, data, "--where", "owner=acme", *out)
    ids.write_text("red3.png\nnone.png\n")
    with pytest.raises(ConfigError, match=r"1 of 2 ids are not among the 27 pictures.*'none.png'"):
        run("forget", tuned, data, "--ids", ids, *out)
    ids.write_text("".join(f"{r[0]}\n" for r in rows if r[2] == "train"))
    with pytest.raises(ConfigError, match=r"all 27 pictures .* would be forgotten.*delete"):
        run("forget", tuned, data, "--ids", ids, *out)
    both = ("--where", "customer=acme", "--where", "customer=bob")
    told = refused("forget", tuned, data, *both, *out)
    assert "--where customer= is given twice, and a picture has one value" in told
    pictures = TunedCheckpoint.load(tuned).pictures
    turned = [replace(p, columns={**p.columns, "of": p.label}) for p in pictures]
    mine = [p for p in turned if p.columns["customer"] == "acme" and p.label == "red"]
    assert select(turned, {"customer": "acme", "of": "red"}, (), "it") == tuple(mine)
    fewer = [p for p in turned if p not in mine]
    with pytest.raises(ConfigError, match="was tuned on has all of customer=acme, of=red"):
        select(fewer, {"customer": "acme", "of": "red"}, (), "it")
    with pytest.raises(ConfigError, match="say which pictures"):
        run("forget", tuned, data, *out)
    assert "'acme' is not COLUMN=VALUE" in refused("forget", tuned, data, "--where", "acme", *out)
    few = manifest(folder, "few.csv", [r for r in rows if r[0] != "red0.png"])
    with pytest.raises(DataError, match=r"few\.csv lacks 1 of the \d+ pictures .*red0\.png"):
        run("forget", tuned, few, "--where", "customer=acme", *out)
    swapped = [("red0.png", "blue", *r[2:]) if r[0] == "red0.png" else r for r in rows]
    with pytest.raises(DataError, match=r"red0\.png .* has another label than when"):
        run("influence", tuned, manifest(folder, "s.csv", swapped))  # type: ignore[arg-type]
    twice = manifest(folder, "twice.csv", [*rows, rows[0]])
    with pytest.raises(DataError, match=r"red0\.png: listed more than once"):
        run("run", twice, *NETWORK, *EXACT, *out)


def test_settings_that_contradict_each_other(place: Place, tmp_path: Path) -> None:
    folder, _, base, tuned = place
    data, out = folder / "all.csv", ("--out", tmp_path / "out")
    for option in (("--size", "32"), ("--start", "x"), ("--keep-statistics",)):
        said = refused("run", data, "--base", base, *option, *out)
        name = "--recalibrate" if len(option) == 1 else option[0]
        assert f"{name} is decided by --base" in said
    start = ("--init", "random", "--start", tuned)
    assert "--init and --start name two starts" in refused("run", data, *start, *out)
    assert "has to end in .csv or .npz" in refused("predict", tuned, data, "--out", "p.txt")
    with pytest.raises(ConfigError, match=r"confidence\.npz has to end in \.csv"):
        run("confidence", tuned, data, "--out", tmp_path / "confidence.npz")
    with pytest.raises(ConfigError, match="cg needs a curvature that is constant"):
        run("run", data, "--base", base, "--loss", "cross-entropy", *out)
    with pytest.raises(ConfigError, match="out of range: penalty = -1"):
        run("run", data, "--base", base, "--penalty", "-1", *out)
    (tmp_path / "s.json").write_text(json.dumps({"linear": {"rank": 3}}))
    with pytest.raises(ConfigError, match="unknown settings of a linear fine-tuning: rank"):
        run("run", data, "--base", base, "--config", tmp_path / "s.json", *out)
    with pytest.raises(ConfigError, match="is there and is no tuning, so it is not"):
        run("run", data, "--base", base, *EXACT, "--out", folder)
    with pytest.raises(ConfigError, match="no pretrained weights for 'edge-xs'"):
        run("run", data, "--backbone", "edge-xs", *out)


class _Forward(torch.autograd.Function):
    """Has no forward-mode derivative."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class _Stubborn(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Forward.apply(super().forward(x))
        return y


def test_an_operation_without_a_forward_derivative(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stubborn(*given: Any) -> nn.Module:
        tagger = new_tagger(*given)
        tagger.backbone.stem.conv.__class__ = _Stubborn  # type: ignore[union-attr]
        return tagger

    monkeypatch.setattr(module, "new_tagger", stubborn)
    out = ("--out", tmp_path / "out", "--slope", "0")
    for solver in ("cg", "adam"):
        with pytest.raises(
            ConfigError, match=r"backbone\.stem\.conv \(_Stubborn\) has no forward-mode deriv"
        ):
            run("run", place[0] / "all.csv", *NETWORK, "--solver", solver, *out)


def test_outputs_that_are_not_finite(place: Place, tmp_path: Path) -> None:
    folder, _, _, tuned = place
    data = open_labelled(folder / "all.csv")
    sees = FromPictures(NETWORK[1], 16)
    tagger = new_tagger(TaggerConfig(sees), ("blue", "green", "red"))
    with torch.no_grad():
        tagger.backbone.stem.conv.weight[0] = torch.nan  # type: ignore[union-attr, index]
    config = TuneConfig(sees, "checkpoint", LinearConfig(solver="exact"))
    start = TaggerCheckpoint((tagger,), ("blue", "green", "red"))
    with pytest.raises(ConfigError, match=r"outputs for 27 pictures.*not finite: look at its wei"):
        tune_tagger(data, config, tmp_path / "out", start=start)
    found = TunedCheckpoint.load(tuned)
    with torch.no_grad():
        found.model.tangent["head/bias"][0] = torch.inf
    with pytest.raises(ConfigError, match="not finite"):
        found.predict(data, data.items[:2])


def test_what_is_no_least_squares_problem_is_not_forgotten(place: Place, tmp_path: Path) -> None:
    folder, _, _, tuned = place
    found = TunedCheckpoint.load(tuned)
    settings = json.loads(json.dumps(found.settings))
    settings["tune"]["linear"] |= {"loss": "cross-entropy", "solver": "adam"}
    with pytest.raises(ConfigError, match="tuned by cross-entropy, which has no closed form: tune"):
        forget_pictures(
            replace(found, settings=settings),
            open_labelled(folder / "all.csv"),
            found.chosen({"customer": "acme"}),
            tmp_path / "out",
        )


def test_files_that_were_changed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("files") / "copy"
    found = TunedCheckpoint.load(place[3])
    found.save(folder)
    assert repr(TunedCheckpoint.load(folder)) == repr(found)
    assert "27 pictures" in repr(found)
    moved = Linearized(found.start())
    vector = replace(found, model=moved).vector
    vector.save(folder / "tangent.safetensors")
    with pytest.raises(CheckpointError, match="weights are not those of its fingerprint"):
        TunedCheckpoint.load(folder)
    value = json.loads((folder / "tuned.json").read_text())
    (folder / "tuned.json").write_text(json.dumps({**value, "schema": 2}))
    with pytest.raises(CheckpointError, match="schema 2; this version reads 1"):
        TunedCheckpoint.load(folder)
    (folder / "tuned.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TunedCheckpoint.load(folder)
    write_tensors(folder / "start.safetensors", {"x": torch.zeros(1)}, {})
    (folder / "tuned.json").write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="cannot be read"):
        TunedCheckpoint.load(folder)
