"""What does an upgrade cost, and does a search notice that it is half done?

    python -m benchmarks.upgrade_scale [--n 1000000]

A gallery is planned, half backfilled from vectors that are given, searched, and rolled back; beside
it lies a gallery of the same items by one model only.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import DIM, anchor, clustered
from benchmarks._result import seconds_side_by_side, write
from benchmarks.overhead import _gallery
from samespace import Certificate, Gallery, ModelIdentity
from samespace.gallery import GivenVectors
from samespace_edge import Fingerprint

COLUMNS = {
    "items": "vectors in the gallery",
    "plan_s": "to plan, s",
    "backfill_rate": "items a second: half of them replaced durably, old vectors kept, index made",
    "rollback_s": "to put that half back in one transaction, s",
    "mixed_ms": "one query, half upgraded, ms",
    "single_ms": "one query in a gallery of one version, ms",
    "ratio": "of the two, median of rounds in turn",
    "recall": "recall@10 of the half-upgraded gallery's approximate search against its exact one",
    "start_mib": "resident memory before the plan, both galleries open, MiB",
    "peak_mib": "largest of the process after the rollback, MiB",
    "disk_before_mib": "folder before, MiB",
    "disk_half_mib": "folder half upgraded, with the old vectors, MiB",
}

_QUERIES = 200


def newer() -> ModelIdentity:
    """A later model of the anchor's space."""
    return replace(anchor(), name="newer", fingerprint=Fingerprint("ef" * 32))


def admitted(gallery: Gallery) -> None:
    """Admit the later model; its certificate is made up, for only vectors matter here."""
    criterion = {
        "metric": "recall_at_1",
        "value": 0.6,
        "reference": "bench",
        "reference_value": 0.5,
        "difference_low": 0.05,
        "difference_high": 0.15,
    }
    proof = Certificate(newer(), anchor(), {}, criterion, {}, "0" * 64, "2026-01-01", "0")
    gallery.admit(proof)


def measure(n: int, folder: Path) -> dict[str, Any]:
    """One size."""
    before = clustered(n, 1)
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((DIM, DIM)))[0]
    after = (before + 0.2 * before @ turn.astype(np.float32)).astype(np.float32)
    after /= np.linalg.norm(after, axis=1, keepdims=True)
    queries = [clustered(_QUERIES, 2)[i : i + 1] for i in range(_QUERIES)]
    with (
        _gallery(folder / f"single-{n}", before, 50_000) as single,
        _gallery(folder / f"mixed-{n}", before, 50_000) as mixed,
    ):
        disk_before = _disk(mixed.path)
        admitted(mixed)
        given = GivenVectors(newer(), [f"item-{i}" for i in range(n)], after)
        start_mib = _memory("VmRSS")
        plan_s, _ = _timed(lambda: mixed.upgrade.plan(given))
        backfill_s, _ = _timed(lambda: mixed.upgrade.run(given, limit=n // 2, batch=1000))
        disk_half = _disk(mixed.path)
        model = anchor()

        def ask(gallery: Gallery) -> Callable[[], object]:
            return lambda: [gallery.search(vectors=q, model=model, k=10) for q in queries]

        times = seconds_side_by_side({"mixed": ask(mixed), "single": ask(single)}, rounds=15)
        batch = np.concatenate(queries)
        near = mixed.search(vectors=batch, model=model, k=10).ids
        exact = mixed.search(vectors=batch, model=model, k=10, exact=True).ids
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near, exact, strict=True)])
        rollback_s, _ = _timed(mixed.upgrade.rollback)
        ratio = times["mixed"] / times["single"]
        return {
            "items": n,
            "plan_s": plan_s,
            "backfill_rate": n // 2 / backfill_s,
            "rollback_s": rollback_s,
            "mixed_ms": times["mixed"] / _QUERIES * 1e3,
            "single_ms": times["single"] / _QUERIES * 1e3,
            "ratio": ratio,
            "recall": float(recall),
            "start_mib": start_mib,
            "peak_mib": _memory("VmHWM"),
            "disk_before_mib": disk_before,
            "disk_half_mib": disk_half,
        }


def _timed(act: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = act()
    return time.perf_counter() - start, result


def _disk(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**20


def _memory(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000, help="largest size")
    largest = parser.parse_args().n
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(n, Path(folder)) for n in (100_000, 1_000_000) if n < largest]
        rows.append(measure(largest, Path(folder)))
    notes = [
        f"{DIM}-d unit vectors; no pictures: embedding is not in these times.",
        "Memory holds both galleries' indexes and, for the benchmark itself, both sets of vectors.",
    ]
    write("upgrade_scale", COLUMNS, rows, notes=notes)


if __name__ == "__main__":
    main()
