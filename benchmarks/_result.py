"""How a benchmark writes down what it found (schema: benchmarks/result.schema.json)."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from samespace.verification import machine

RESULTS = Path(__file__).parent / "results"

OTHER_WORK = f"The machine's load was {os.getloadavg()[1]:.1f} when it began."
"""A note for results that other work would change: the mean of five minutes before."""
_PACKAGES = (
    "samespace",
    "numpy",
    "pillow",
    "onnxruntime",
    "ai-edge-litert",
    "torch",
    "faiss-cpu",
    "pymilvus",
    "hnswlib",
    "usearch",
    "opencv-python-headless",
    "openvino",
    "ncnn",
    "pnnx",
)


def write(
    name: str,
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    seeds: Sequence[int] = (0,),
    scale: str = "cpu",
    notes: Sequence[str] = (),
) -> None:
    """Write `results/NAME.json` and print it as a table.

    Args:
        columns: what every column means, with its unit.
        rows: one mapping per row, with the keys of `columns`.
        scale: `cpu` or `gpu`, for what was trained.
    """
    command = Path(sys.argv[0]).stem
    arguments = " ".join([f"python -m benchmarks.{command}", *map(_shown, sys.argv[1:])])
    value = {
        "schema": 1,
        "name": name,
        "command": arguments,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine() | (_accelerator() if scale == "gpu" else {}),
        "versions": _versions(),
        "seeds": list(seeds),
        "scale": scale,
        "notes": list(notes),
        "columns": dict(columns),
        "rows": [dict(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
    where = value["machine"]
    print(f"\n{name}: {where['processor']}, {where['cores']} cores, seeds {list(seeds)}")
    for row in rows:
        print("  " + ", ".join(f"{k} {_short(v)}" for k, v in row.items()))


def earlier(name: str) -> list[dict[str, Any]]:
    """The rows of `results/NAME.json`, none where it was never written."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def _shown(argument: str) -> str:
    """An argument without the part of its paths that only this machine has."""
    path = Path(argument)
    if (path.is_absolute() or ".." in path.parts) and path.is_dir():
        return shlex.quote(path.name)
    if ".." in path.parts and path.exists():
        return shlex.quote("/".join(path.parts[-2:]))
    return shlex.quote(re.sub(r"(?<![\w.-])/(?:[\w.-]+/)*([\w.-]+/[\w.-]+)", r"\1", argument))


def _accelerator() -> dict[str, str]:
    import torch

    return {"accelerator": torch.cuda.get_device_name()}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def seconds_side_by_side(
    runs: Mapping[str, Callable[[], Any]], rounds: int, warm: int = 1
) -> dict[str, float]:
    """Median seconds of each run, taking turns, so that a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(warm + rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_ >= warm:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(t)) for name, t in times.items()}


def ratio_side_by_side(
    a: Callable[[], Any], b: Callable[[], Any], rounds: int, warm: int = 2
) -> tuple[float, float, float]:
    """Median of a's time over b's time, round by round; and the median seconds of each."""
    ratios, ours, theirs = [], [], []
    for round_ in range(warm + rounds):
        first, second = (a, b) if round_ % 2 else (b, a)
        t0 = time.perf_counter()
        first()
        t1 = time.perf_counter()
        second()
        t2 = time.perf_counter()
        x, y = (t1 - t0, t2 - t1) if first is a else (t2 - t1, t1 - t0)
        if round_ >= warm:
            ratios.append(x / y)
            ours.append(x)
            theirs.append(y)
    return float(np.median(ratios)), float(np.median(ours)), float(np.median(theirs))
