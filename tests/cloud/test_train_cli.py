"""`samespace train edge` and `train family`: every kind of teacher, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from samespace import Dataset
from samespace_cloud.augment import Augmentation
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.cli.train import train
from samespace_cloud.config import TrainConfig
from samespace_cloud.model import ModelConfig
from samespace_cloud.training import train_cloud
from samespace_edge import SamespaceError
from samespace_export import export_bundle

QUICK = ["--epochs", "1", "--batch-size", "8", "--views", "2", "--val-share", "0", "--json"]
SMALL = ["--backbone", "edge-xs", "--size", "16", "--canvas", "32"]


@pytest.fixture(scope="module")
def cloud(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        model=ModelConfig("edge-xs", 32, dim=16),
        losses=(("cosface", 1.0),),
        epochs=2,
        batch_size=8,
        views=2,
        canvas=32,
        val_share=0.0,
        augmentation=Augmentation(blur=0),
    )
    folder = tmp_path_factory.mktemp("cli") / "cloud"
    train_cloud(shop, config, folder, lda_head=True)
    return folder


def run(*arguments: object) -> dict[str, object]:
    ran = CliRunner().invoke(train, [str(a) for a in arguments])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def test_every_kind_of_teacher(shop: Dataset, shop_csv: Path, cloud: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(cloud)
    spec = checkpoint.export_spec("cloud")
    export_bundle(checkpoint.model, spec, tmp_path / "cloud.bundle")
    vectors = np.random.default_rng(0).standard_normal((len(shop.train), 16)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    base = ("edge", shop_csv, *SMALL, *QUICK)
    ours = run(*base, "--cloud", cloud, "--out", tmp_path / "a")
    theirs = run(
        *base, "--cloud", tmp_path / "cloud.bundle", "--init", "random", "--out", tmp_path / "b"
    )
    assert ours["space"] == theirs["space"] == checkpoint.fingerprint.hex
    given = run(
        *base, "--cloud-vectors", tmp_path / "v.npy", "--init", "random", "--out", tmp_path / "c"
    )
    assert given["space"] != ours["space"]
    further = run(
        *("edge", shop_csv, "--canvas", 32, *QUICK, "--cloud", cloud, "--out", tmp_path / "d"),
        *("--start", tmp_path / "a", "--nested", 4, "--pool", shop_csv),
    )
    assert further["fingerprint"] != ours["fingerprint"]
    card = Checkpoint.load(tmp_path / "d").card
    assert card["went on from"].startswith(ours["fingerprint"][:8])
    assert card["nested widths"] == "4"
    assert card["unlabelled pool"] == f"{len(shop.items)} pictures of shop"


def test_a_teacher_has_to_be_named_once(shop_csv: Path, cloud: Path, tmp_path: Path) -> None:
    base = ["edge", str(shop_csv), "--out", str(tmp_path / "e")]
    for more in ([], ["--cloud", str(cloud), "--cloud-vectors", "v.npy"]):
        ran = CliRunner().invoke(train, [*base, *more])
        assert ran.exit_code == 2
        assert "name the cloud model with --cloud" in ran.output


def test_a_family_is_trained_and_certified(shop_csv: Path, cloud: Path, tmp_path: Path) -> None:
    base = ("family", shop_csv, "--cloud", cloud, "--out", tmp_path, "--canvas", 32, *QUICK)
    # The cloud itself stands in for a network trained alone.
    found = run(
        *base,
        "--member",
        "phone=edge-xs@24",
        "--member",
        "watch=edge-xs@16",
        "--alone",
        f"phone={cloud}",
    )
    assert (tmp_path / "phone-report" / "report.html").exists()
    assert set(found["certificates"]) <= {"phone", "watch"}
    assert set(found["members"]) == {"phone", "watch"}
    pairs = {(c["query"], c["gallery"]) for c in found["report"]["matrix"]}
    assert ("watch", "phone") in pairs
    assert len(pairs) == 9
    assert (tmp_path / "watch.bundle" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (["phone"], "is not NAME=BACKBONE@SIZE"),
        (["phone=edge-xs"], "is not NAME=BACKBONE@SIZE"),
        (["a=edge-xs@16", "a=edge-xs@24"], "the name 'a' is taken"),
        (["cloud=edge-xs@16"], "the name 'cloud' is taken"),
    ],
)
def test_wrong_members_are_refused(
    shop_csv: Path, cloud: Path, tmp_path: Path, members: list[str], said: str
) -> None:
    options = [x for m in members for x in ("--member", m)]
    ran = CliRunner().invoke(
        train, ["family", str(shop_csv), "--cloud", str(cloud), "--out", str(tmp_path), *options]
    )
    assert ran.exit_code == 2
    assert said in ran.output


def test_a_baseline_belongs_to_a_member(shop_csv: Path, cloud: Path, tmp_path: Path) -> None:
    base = ["family", str(shop_csv), "--cloud", str(cloud), "--out", str(tmp_path)]
    options = ["--member", "phone=edge-xs@16", "--alone", "watch=x"]
    ran = CliRunner().invoke(train, [*base, *options])
    assert ran.exit_code == 2
    assert "is not NAME=CHECKPOINT of a member" in ran.output


def test_an_unknown_backbone_is_named(shop_csv: Path, cloud: Path, tmp_path: Path) -> None:
    with pytest.raises(SamespaceError, match="no backbone 'nothing'"):
        run("edge", shop_csv, "--cloud", cloud, "--out", tmp_path, "--backbone", "nothing")
