"""The main job from end to end, stopped by Ctrl-C and by kill -9 on its way; and the README."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from samespace import Embedder, Gallery, Report
from samespace_edge import check_bundle
from tests.patience import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "from samespace.cli import main; main()"]
SMOKE = [*COMMAND, "demo", "--smoke", "--out", "demo-out"]


def stopped_at(stage: str, how: signal.Signals, folder: Path, there: str) -> int:
    """Start the demo, stop it once it has come to `stage` and a file is there; its exit code."""
    with subprocess.Popen(SMOKE, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith(stage):
                until((folder / "demo-out" / there).exists)
                os.kill(process.pid, how)
                break
        process.stderr.read()
        return process.wait()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    state = "runs/cloud/state.safetensors"
    assert stopped_at("train cloud", signal.SIGINT, folder, state) == 130
    assert (folder / "demo-out" / state).exists()
    assert stopped_at("export", signal.SIGKILL, folder, "cloud.bundle") == -signal.SIGKILL
    done = subprocess.run(SMOKE, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train cloud" not in done.stderr  # what was done is not done again
    for part in ("M(edge, cloud)", "report.html", "gallery search", "holds"):
        assert part in done.stdout
    return folder / "demo-out"


def test_everything_is_there_and_runs(finished: Path) -> None:
    for name in ("cloud", "edge", "edge-alone"):
        assert check_bundle(finished / f"{name}.bundle").ok
    report = Report.read(finished / "report.json")
    assert {m.label for m in report.models} == {"cloud", "edge", "edge-alone"}
    assert report.cell("edge-alone", "cloud").estimates["recall_at_1"].value < 0.15
    assert any("RENDERED" in note for note in report.notes)
    assert "ImageNet weights" in (finished / "report.html").read_text()
    assert report.passed
    with Gallery.open(finished / "gallery") as gallery:
        assert len(gallery) == report.dataset["gallery"]
        edge = Embedder(finished / "edge.bundle")
        assert gallery.search(images=[finished / "query.webp"], model=edge, k=3).ids[0]


def test_a_second_run_starts_where_the_first_ended(finished: Path) -> None:
    done = subprocess.run(
        [*SMOKE, "--json"], cwd=finished.parent, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["admitted"]
    assert "train" not in done.stderr
    other = subprocess.run(
        [*SMOKE, "--seed", "1"], cwd=finished.parent, capture_output=True, text=True
    )
    assert other.returncode == 3
    assert "holds a run with other settings or data" in other.stderr


def test_the_readmes_python_runs(finished: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert blocks
    for block in blocks:
        assert len(block.strip().splitlines()) <= 8
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            cwd=finished.parent,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        # The README's own output is of the whole demo; the smoke run finds other pictures.
        shown = re.findall(r"^\d\.\d{3}  images/\S+$", done.stdout, re.MULTILINE)
        assert len(shown) == len(done.stdout.splitlines()) == 3


def test_training_from_the_command_line(finished: Path, tmp_path: Path) -> None:
    """`train` and `export` make by hand what the demo makes."""
    from samespace_cloud.demo import quickstart

    quick = quickstart()
    labels = (
        sorted({i.label for i in quick.train})[:8] + sorted({i.label for i in quick.gallery})[:4]
    )
    rows = ["path,label,split,role"]
    for item in quick.items:
        if item.label in labels:
            target = tmp_path / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(quick.read(item))
            rows.append(f"{item.path},{item.label},{item.split},{item.role}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    small = ["--size", "32", "--epochs", "1", "--canvas", "40", "--batch-size", "16", "--json"]

    def run(*arguments: str) -> dict:
        done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    cloud = run("train", "cloud", "m.csv", "--out", "c", "--backbone", "edge-s", *small)
    edge = run(
        *("train", "edge", "m.csv", "--cloud", "c", "--out", "e", "--backbone", "edge-xs"),
        *("--loss", "frozen-classifier", "--loss", "cosine-regression=2", "--init", "random"),
        *small,
    )
    assert edge["space"] == cloud["fingerprint"]
    (tmp_path / "settings.json").write_text('{"epochs": 1, "lr": 0.002}')
    run(
        *("train", "together", "m.csv", "--out", "both", "--backbone", "edge-s"),
        *("--edge-backbone", "edge-xs", "--edge-size", "32", "--config", "settings.json"),
        *small,
    )
    run("export", "e", "e.bundle", "--json")
    assert check_bundle(tmp_path / "e.bundle").ok
