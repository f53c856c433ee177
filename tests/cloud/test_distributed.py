"""Several processes, started by torch's launcher, train what one process trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from samespace_cloud import trainer as training_loop
from samespace_cloud._distributed import _WholeBatchNorm, leads, own, synchronise, world
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.students import CoTraining, Solo, Students
from samespace_edge import ConfigError
from tests.patience import PATIENCE, until

SMALL = ["--backbone", "edge-xs", "--size", "32", "--canvas", "32", "--dim", "16"]
QUICK = ["--epochs", "3", "--batch-size", "9", "--views", "2", "--json"]

# As stated in docs/scale.md: the sum over a batch is taken in another order, and 3 epochs follow.
VECTORS, COSINE = 5e-3, 0.9999


def quiet() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(processes: int, *arguments: object) -> list[str]:
    start = [sys.executable, "-m", "samespace"]
    if processes > 1:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start += ["--nproc-per-node", str(processes), "-m", "samespace"]
    return [*start, *map(str, arguments)]


def launch(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    start = command(processes, *arguments)
    return subprocess.run(start, env=quiet(), capture_output=True, text=True, timeout=PATIENCE)


def made(folder: Path) -> torch.Tensor:
    """Unit vectors (32, D) of noise."""
    model = Checkpoint.load(folder).model.eval()
    size = model.config.input_size
    noise = torch.randn((32, 3, size, size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return F.normalize(model(noise))


def differ(one: Path, other: Path) -> tuple[float, float]:
    """Largest difference of a coordinate, and the least cosine."""
    a, b = made(one), made(other)
    return float((a - b).abs().max()), float((a * b).sum(1).min())


@pytest.mark.slow
def test_two_processes_train_what_one_trains(shop_csv: Path, tmp_path: Path) -> None:
    clouds, edges = [tmp_path / "cloud1", tmp_path / "cloud2"], [tmp_path / "e1", tmp_path / "e2"]
    for processes, out in enumerate(clouds, start=1):  # 9 pictures are 5 and 4
        ran = launch(processes, "train", "cloud", shop_csv, *SMALL, *QUICK, "--out", out)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout), "the first process alone tells"
        assert (out / "log.jsonl").read_text().count("\n") == 3
    furthest, least = differ(*clouds)
    print(f"cloud: largest difference {furthest:.1e}, least cosine {least:.7f}")
    assert furthest < VECTORS
    assert least > COSINE
    for processes, out in enumerate(edges, start=1):
        given = ("train", "edge", shop_csv, *SMALL[:-2], *QUICK, "--cloud", clouds[0])
        ran = launch(processes, *given, "--out", out)
        assert ran.returncode == 0, ran.stderr
    furthest, least = differ(*edges)
    print(f"edge: largest difference {furthest:.1e}, least cosine {least:.7f}")
    assert furthest < VECTORS
    assert least > COSINE


@pytest.mark.slow
def test_stopped_the_same_command_goes_on_to_the_same_weights(
    shop_csv: Path, tmp_path: Path
) -> None:
    given = ("train", "cloud", shop_csv, *SMALL, "--batch-size", "9", "--views", "2", "--json")
    given = (*given, "--val-share", "0", "--epochs", "60")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert launch(2, *given, "--out", whole).returncode == 0
    log = parts / "log.jsonl"

    def is_under_way() -> bool:
        return log.exists() and log.read_text().count("\n") > 2

    with subprocess.Popen(command(2, *given, "--out", parts), env=quiet()) as process:
        until(lambda: process.poll() is not None or is_under_way())
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) != 0
    assert (parts / "state.safetensors").exists(), "it was done before it was stopped"
    ran = launch(2, *given, "--out", parts)
    assert ran.returncode == 0, ran.stderr
    assert log.read_text().count("\n") == 60
    furthest, least = differ(whole, parts)
    print(f"stopped: largest difference {furthest:.1e}, least cosine {least:.7f}")
    assert furthest < 1e-5


@pytest.mark.slow
def test_what_is_for_one_process_says_so(shop_csv: Path, tmp_path: Path) -> None:
    ran = launch(2, "train", "tagger", shop_csv, "--out", tmp_path / "t", "--epochs", "1")
    assert ran.returncode != 0
    assert "start it without torchrun" in ran.stderr
    given = ("train", "cloud", shop_csv, *SMALL, "--epochs", "1", "--batch-size", "2")
    ran = launch(3, *given, "--out", tmp_path / "c")
    assert ran.returncode != 0
    assert "has nothing for each of 3 processes" in ran.stderr


def test_alone_nothing_of_it_does_anything() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3))
    synchronise(module)
    assert type(module[0]) is nn.BatchNorm2d
    batch = torch.zeros(4, 2)
    assert own(batch) is batch
    assert world() == 1
    assert leads()


def test_who_may_train_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    from samespace_cloud.nas.supernet import SuperStudent
    from samespace_cloud.quantized import Int8Student
    from samespace_cloud.tagging.fitting import Tagging

    assert [c.in_parts for c in (Solo, CoTraining)] == [True, True]
    assert not any(c.in_parts for c in (Students, Int8Student, SuperStudent, Tagging))
    monkeypatch.setattr(training_loop, "world", lambda: 2)
    with pytest.raises(ConfigError, match="measures its ranges in one process: start it without"):
        training_loop._check_processes(8, Int8Student.__new__(Int8Student))


def test_batch_norm_of_the_whole_batch_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    from samespace_cloud import _distributed

    monkeypatch.setattr(_distributed.dist, "all_reduce", lambda tensor: None)  # one process
    torch.manual_seed(0)
    ours, theirs = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    ours.__class__ = _WholeBatchNorm
    x = torch.randn(6, 5, 4, 4) * 3 + 1
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn_like(x)
    for module, seen in ((ours, one), (theirs, other)):
        (module(seen) * weights).sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
