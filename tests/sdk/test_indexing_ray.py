"""Through Ray Data, for real: the same vectors, and kill -9 of everything costs nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from samespace import Embedder, Gallery
from tests.patience import PATIENCE, until
from tests.sdk.indexing_scene import holds_exactly, make_manifest

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

PICTURES = 300


def command(folder: Path, bundle: Path, *more: str) -> list[str]:
    where = ["--gallery", str(folder / "gallery"), "--bundle", str(bundle)]
    given = ["index", str(folder / "shop" / "shop.csv"), *where, "--batch-size", "5", "--json"]
    return [sys.executable, "-m", "samespace", *given, *more]


def items(folder: Path) -> int:
    with Gallery.open(folder / "gallery") as gallery:
        return len(gallery)


def lives(process: psutil.Process) -> bool:
    """Whether a process runs. Where nobody reaps orphans, dead ones stay as zombies."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ray_makes_what_one_process_makes_and_sets_aside_the_same(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    make_manifest(tmp_path / "shop", 60, poison=True)
    Gallery.create(tmp_path / "gallery", bundles["cloud"]).close()
    start = command(tmp_path, bundles["cloud"], "--ray", "--workers", "2")
    done = subprocess.run(start, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1, done.stderr  # four are set aside
    told = json.loads(done.stdout)
    assert (told["added"], told["aside"], told["items"]) == (60, 4, 60)
    with Gallery.open(tmp_path / "gallery") as gallery:
        holds_exactly(gallery, tmp_path / "shop", range(60), Embedder(bundles["cloud"]))


def test_killed_in_the_middle_any_pool_goes_on(tmp_path: Path, bundles: dict[str, Path]) -> None:
    make_manifest(tmp_path / "shop", PICTURES)
    Gallery.create(tmp_path / "gallery", bundles["cloud"]).close()
    with_ray = command(tmp_path, bundles["cloud"], "--ray", "--workers", "2")
    process = subprocess.Popen(
        with_ray, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until(lambda: items(tmp_path) or process.poll() is not None)
    assert process.poll() is None
    started = psutil.Process(process.pid).children(recursive=True)
    ours = [p for p in started if "samespace.pool" in p.cmdline()]
    assert ours
    process.kill()
    assert process.wait() == -signal.SIGKILL
    until(lambda: not any(lives(p) for p in ours))  # they end with the one who started them
    # Agents of Ray itself may stay for a while.
    _, alive = psutil.wait_procs(started, timeout=20)
    for left in filter(lives, alive):
        left.kill()
    done = items(tmp_path)
    assert 0 < done < PICTURES
    part = subprocess.run(
        [*with_ray, "--limit", "20"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert json.loads(part.stdout)["added"] == 20
    last = subprocess.run(
        command(tmp_path, bundles["cloud"], "--workers", "2"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    told = json.loads(last.stdout)
    assert (told["added"], told["there"]) == (PICTURES - done - 20, done + 20)
    with Gallery.open(tmp_path / "gallery") as gallery:
        holds_exactly(gallery, tmp_path / "shop", range(PICTURES), Embedder(bundles["cloud"]))


def test_a_backfill_through_ray(
    tmp_path: Path, bundles: dict[str, Path], certificate: Path
) -> None:
    make_manifest(tmp_path / "shop", 60)
    with Gallery.create(tmp_path / "gallery", bundles["cloud"]) as gallery:
        gallery.admit(certificate)
    subprocess.run(
        command(tmp_path, bundles["cloud"], "--workers", "0"),
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    (tmp_path / "shop" / "photos" / "00011.png").unlink()
    where = ["--sources", str(tmp_path / "shop"), "--batch", "5", "--json"]
    start = [sys.executable, "-m", "samespace", "upgrade", "run", str(tmp_path / "gallery")]
    start += ["--bundle", str(bundles["edge"]), *where, "--ray", "--workers", "2"]
    for limit, done in ((["--limit", "20"], 20), ([], 59)):
        ran = subprocess.run([*start, *limit], capture_output=True, text=True, timeout=PATIENCE)
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        # The one that is gone may be among the first twenty that were tried.
        assert told["done"] + (len(told["unreadable"]) if limit else 0) == done
    assert list(told["unreadable"]) == ["item-11"]
    model = Embedder(bundles["edge"])
    numbers = [n for n in range(60) if n != 11]
    own = model.embed([tmp_path / "shop" / "photos" / f"{n:05}.png" for n in numbers])
    with Gallery.open(tmp_path / "gallery") as gallery:
        found = gallery.get([f"item-{n}" for n in numbers])
    assert max(np.abs(r.vector - v).max() for r, v in zip(found, own, strict=True)) < 1e-5
