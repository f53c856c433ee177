"""kill -9 at any instant of adding, backfilling, committing and rolling back.

`pytest -m slow tests/sdk/test_upgrade_kill.py --kill-rounds 100` does it a hundred times.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from samespace import Dataset, Embedder, Gallery
from samespace.verification import verify, write_certificates
from tests.patience import until
from tests.sdk.test_gallery import DIM

AT_ONCE = 20
MOST_ACTS = 40

WORKER = """
    import random, sys
    from samespace import Embedder, Gallery
    from samespace.gallery import GivenVectors
    from tests.sdk.test_upgrade_kill import AT_ONCE, vector, table
    path, old, new, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    old, new = Embedder(old).identity, Embedder(new).identity
    chance = random.Random(seed)

    def say(*words):
        print(*words, flush=True)

    class ByName(GivenVectors):
        def make(self, items):
            return [vector(id_, "edge") for id_, _ in items]

    with Gallery.open(path) as gallery:
        upgrade = gallery.upgrade
        originals = ByName(new, [], table([], "edge"))
        for n in range(1_000_000):
            status = upgrade.status()
            act = chance.choice(["add", "add", "run", "run", "end", "end", "back"])
            if act == "add":
                ids = [f"{seed}-{n}-{i}" for i in range(AT_ONCE)]
                gallery.add(ids, vectors=table(ids, "cloud"), model=old)
                say("added", seed, n)
            elif act == "run" and (status is None or status.state == "running"):
                upgrade.run(originals, limit=chance.choice([7, 40, None]), batch=5)
                say("ran")
            elif act == "end" and status and status.state == "running":
                say("committing", status.kept)
                upgrade.commit(partial=True)
                say("committed")
            elif act == "end" and status:
                say("discarding", status.kept)
                upgrade.discard()
                say("discarded")
            elif act == "back" and status:
                say("rolling", status.kept)
                upgrade.rollback()
                say("rolled")
"""


def vector(id_: str, model: str) -> np.ndarray:
    """The vector that a model makes of an item: of any, without a picture."""
    x = np.random.default_rng(zlib.crc32(f"{model} {id_}".encode())).standard_normal(DIM)
    return (x / np.linalg.norm(x)).astype(np.float32)


def table(ids: list[str], model: str) -> np.ndarray:
    return np.array([vector(i, model) for i in ids], np.float32).reshape(-1, DIM)


def found(gallery: Gallery, model: Embedder) -> list[str]:
    """The ids that a search for everything finds."""
    return gallery.search(vectors=vector("query", "cloud")[None], model=model, k=10**6).ids[0]


@dataclass
class Known:
    """What processes that were killed had acknowledged."""

    ids: set[str] = field(default_factory=set)
    settled: int = 0
    said: list[list[str]] = field(default_factory=list)
    acts: set[str] = field(default_factory=set)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_or_doubled(
    tmp_path: Path,
    bundles: dict[str, Path],
    shop: Dataset,
    request: pytest.FixtureRequest,
) -> None:
    old, new = bundles["cloud"], bundles["edge"]
    report = verify([new], [old], shop, baseline=bundles["poor"])
    path = tmp_path / "shop"
    with Gallery.create(path, old) as gallery:
        gallery.admit(next(iter(write_certificates(report, tmp_path).values())))
    known = Known()
    chance = random.Random(0)
    for round_ in range(request.config.getoption("--kill-rounds")):
        worked(path, old, new, round_, chance.randint(1, MOST_ACTS), chance.uniform(0, 0.05), known)
        looked_through(path, old, known)
    assert known.acts >= {"added", "ran", "committed", "rolled", "discarded"}


def worked(
    path: Path, old: Path, new: Path, seed: int, acts: int, seconds: float, known: Known
) -> None:
    """Let a process do so many acts, search meanwhile, and kill it some seconds later."""
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(path), str(old), str(new)]
    lines: list[str] = []
    with subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True) as process:

        def listen() -> None:
            assert process.stdout
            for line in process.stdout:
                lines.append(line)
                if len(lines) == acts:
                    threading.Timer(seconds, process.kill).start()

        listener = threading.Thread(target=listen)
        listener.start()
        until(lambda: lines)
        model = Embedder(old)
        with Gallery.open(path) as gallery:
            while process.poll() is None:
                ids = gallery.search(vectors=vector("q", "cloud")[None], model=model, k=10**6).ids[
                    0
                ]
                assert len(ids) == len(set(ids)), "an item was searched twice"
                assert known.ids <= set(ids), "an acknowledged item was not searched"
        assert process.wait() == -signal.SIGKILL
        listener.join()
    known.said = [line.split() for line in lines if line.endswith("\n")]
    known.acts |= {words[0] for words in known.said}
    for words in known.said:
        if words[0] == "added":
            known.ids |= {f"{words[1]}-{words[2]}-{i}" for i in range(AT_ONCE)}


def looked_through(path: Path, old: Path, known: Known) -> None:
    """What was acknowledged is there, once, whole, by one of its two vectors."""
    with Gallery.open(path) as gallery:
        ids = gallery.search(vectors=vector("q", "cloud")[None], model=Embedder(old), k=10**6).ids[
            0
        ]
        assert len(ids) == len(set(ids)) == len(gallery)
        assert known.ids <= set(ids)
        assert len(set(ids) - known.ids) in (0, AT_ONCE), "a call is stored whole or not at all"
        known.ids |= set(ids)
        records = gallery.get(ids)
        for record in records:
            assert (record.vector == vector(record.id, record.model.name)).all(), record.id
        status = gallery.upgrade.status()
        kept = status.kept if status else 0
        settled = sum(r.model.name == "edge" for r in records) - kept
        last = known.said[-1]
        allowed = {known.settled}
        for words in known.said:  # only a discard settles what was upgraded
            if words[0] == "discarding":
                allowed = {max(allowed), max(allowed) + int(words[1])}
            elif words[0] == "discarded":
                allowed = {max(allowed)}
        assert settled in allowed
        known.settled = settled
        if last[0] == "rolling":
            assert (status is None and kept == 0) or kept == int(last[1]), "half rolled back"
        if last[0] == "committing":
            assert status is not None
            assert kept == int(last[1])
