"""kill -9 of the run or of its processes at any instant: every picture once, none lost.

`pytest -m slow tests/sdk/test_indexing_kill.py --kill-rounds 50` does it fifty times.
"""

from __future__ import annotations

import json
import os
import pty
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from samespace import Embedder, Gallery
from samespace.indexing import read_failures
from tests.patience import PATIENCE
from tests.sdk.indexing_scene import MISSING, holds_exactly, make_manifest

PICTURES = 400


def command(folder: Path, bundle: Path, *more: str) -> list[str]:
    # What these tests run under may ignore Ctrl-C, as jobs in the background do.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = heard + "from samespace.cli import main; main()"
    where = ["--gallery", str(folder / "gallery"), "--bundle", str(bundle)]
    given = ["index", str(folder / "shop" / "shop.csv"), *where, "--batch-size", "5"]
    return [sys.executable, "-c", code, *given, *more]


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    with suppress(psutil.Error):  # gone meanwhile
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.Error):
                found += [child] if "samespace.pool" in child.cmdline() else []
    return found


def there(folder: Path) -> int:
    """How many items are stored at this moment, of a gallery that another process writes to."""
    with closing(sqlite3.connect(f"file:{folder}/gallery/gallery.db?mode=ro", uri=True)) as db:
        (count,) = db.execute("SELECT count(*) FROM items").fetchone()
    return int(count)


def wait_for(folder: Path, process: subprocess.Popen[Any], count: int) -> None:
    """Until so many items are there, or the process has ended."""
    while process.poll() is None and there(folder) < count:
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_any_instant_every_picture_is_there_once(
    tmp_path: Path, bundles: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    manifest = make_manifest(tmp_path / "shop", PICTURES, poison=True)
    model = Embedder(bundles["cloud"])
    chance = random.Random(0)
    kills = workers_killed = galleries = 0
    acknowledged: set[str] = set()
    for _ in range(request.config.getoption("--kill-rounds")):
        if len(acknowledged) == PICTURES or not galleries:  # all of them: begin anew
            shutil.rmtree(tmp_path / "gallery", ignore_errors=True)
            Path(f"{manifest}.failed.csv").unlink(missing_ok=True)
            Gallery.create(tmp_path / "gallery", model).close()
            acknowledged, galleries = set(), galleries + 1
        start = command(tmp_path, bundles["cloud"], "--workers", "2")
        with subprocess.Popen(start, stdout=subprocess.DEVNULL, text=True) as process:
            count = len(acknowledged)
            for _ in range(chance.randint(0, 2)):
                wait_for(tmp_path, process, count := count + chance.randint(1, 40))
                for child in children(process)[:1] if process.poll() is None else []:
                    with suppress(psutil.Error):
                        child.kill()
                    workers_killed += 1
            wait_for(tmp_path, process, count + chance.randint(0, 40))
            time.sleep(chance.uniform(0, 0.02))
            left = children(process) if process.poll() is None else []
            process.kill()
            if process.wait() == -signal.SIGKILL:
                kills += 1
        _, alive = psutil.wait_procs(left, timeout=PATIENCE)
        assert not alive, "a process outlives the one who started it"
        with Gallery.open(tmp_path / "gallery") as gallery:
            found = gallery.search(vectors=np.eye(model.dim)[:1], model=model, k=10**6).ids[0]
        assert len(found) == len(set(found))
        assert acknowledged <= set(found), "what was there is gone"
        acknowledged = set(found)
    rounds = request.config.getoption("--kill-rounds")
    assert kills >= rounds / 2
    assert workers_killed >= rounds / 4
    print(f"{kills} runs and {workers_killed} processes killed, {galleries} galleries")
    last = subprocess.run(
        [*command(tmp_path, bundles["cloud"], "--retry-failed", "--json")],
        capture_output=True,
        text=True,
    )
    assert last.returncode == 1, last.stderr  # four are set aside
    told = json.loads(last.stdout)
    assert told["aside"] == 4
    assert told["added"] + told["there"] == PICTURES
    assert len(list(read_failures(f"{manifest}.failed.csv"))) == 4
    with Gallery.open(tmp_path / "gallery") as gallery:
        holds_exactly(gallery, tmp_path / "shop", range(PICTURES), model)
    again = subprocess.run(
        command(tmp_path, bundles["cloud"], "--json"), capture_output=True, text=True
    )
    told = json.loads(again.stdout)
    assert (told["added"], told["again"], told["there"]) == (0, 0, PICTURES)


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_ends_cleanly_and_says_how_to_go_on(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    pictures = 2000  # one at a time: seconds, of which the first fraction is waited for
    make_manifest(tmp_path / "shop", pictures)
    Gallery.create(tmp_path / "gallery", bundles["cloud"]).close()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(tmp_path, bundles["cloud"], "--batch-size", "1"),
        stderr=theirs,
        stdout=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    wait_for(tmp_path, process, 1)
    os.killpg(process.pid, signal.SIGINT)
    shown = b""
    while select.select([ours], [], [], PATIENCE)[0]:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the terminal was closed
            break
    os.close(ours)
    assert process.wait(PATIENCE) == 130, shown
    text = shown.decode()
    assert "the same command goes on" in text
    assert "Traceback" not in text
    with Gallery.open(tmp_path / "gallery") as gallery:
        done = len(gallery)
    assert 0 < done < pictures
    last = subprocess.run(
        command(tmp_path, bundles["cloud"]), capture_output=True, text=True, check=True
    )
    told = f"{pictures - done:,} added, 0 embedded again, 0 new payloads, {done:,} were"
    assert told in last.stdout


def test_the_command_tells_what_it_set_aside(tmp_path: Path, bundles: dict[str, Path]) -> None:
    make_manifest(tmp_path / "shop", 3, poison=True)
    Gallery.create(tmp_path / "gallery", bundles["cloud"]).close()
    start = command(tmp_path, bundles["cloud"], "--workers", "0", "--number", "price")
    done = subprocess.run(start, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "3 added, 0 embedded again, 0 new payloads, 0 were there" in done.stdout
    assert f"{MISSING}: there is no file" in done.stdout
    assert "--retry-failed" in done.stdout
    wrong = subprocess.run([*start, "--ray-address", "auto"], capture_output=True, text=True)
    assert wrong.returncode == 3
    assert "(--ray)" in wrong.stderr
