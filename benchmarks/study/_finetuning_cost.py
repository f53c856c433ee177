"""What a fine-tuning costs: time and memory of one training with nothing beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.study._finetuning import METHODS, blank_row
from benchmarks.study._finetuning_methods import DEVICE, Method, device_name
from benchmarks.study._finetuning_runs import Bench


def cost_rows(bench: Bench, shots: int) -> Iterator[dict[str, Any]]:
    """A row for every method, with the settings that were chosen for it."""
    for name in METHODS:
        method = bench.chosen(name, shots)
        with get_context("spawn").Pool(1) as pool:
            seconds, peak = pool.apply(_measured, (replace(bench), method, shots))
        yield blank_row(bench, "cost", shots, name) | {
            "settings": method.text,
            "seconds": seconds,
            "peak_mib": peak,
            "seeds": 1,
            "device": device_name(),
        }


def _measured(bench: Bench, method: Method, shots: int) -> tuple[float, float]:
    """Seconds, and the peak in MiB: of the GPU, or of this process less what it began with."""
    drawn, start = bench.material.drawn(shots, 0), bench.start
    drawn.views()
    with tempfile.TemporaryDirectory() as folder:
        method.run(bench.material.drawn(1, 0), 0, start, Path(folder) / "warm")
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        before = 0.0 if DEVICE.type == "cuda" else _resident("VmRSS")
        seconds = method.run(drawn, 0, start, Path(folder) / "run").seconds
    if DEVICE.type == "cuda":
        return seconds, torch.cuda.max_memory_allocated() / 2**20
    return seconds, _resident("VmHWM") - before


def _resident(which: str) -> float:
    """Memory of this process, MiB: `VmRSS` now, `VmHWM` the most so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) / 1024
