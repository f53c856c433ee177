"""Does a linearised network tuned by least squares (LQF) come up to fine-tuning, and what does it
cost?

    python -m benchmarks.finetuning --data DATA --out runs/finetuning

DATA holds `grocery_store`, `clothing` and `furniture3d` (a CSV in each). The answers of every
training are kept in `--out`, so a stopped study goes on; rows of an earlier run stay until a run
makes them anew. With `--network whole` it is for a GPU, where `--processes 6` trains as many at a
time; `small` takes some hours on two cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks._result import earlier, write
from benchmarks.study._finetuning import (
    AVERAGE,
    COLUMNS,
    NOTES,
    ablation_rows,
    average_rows,
    device_note,
    main_rows,
    setting_rows,
)
from benchmarks.study._finetuning_cost import cost_rows
from benchmarks.study._finetuning_data import NETWORKS, TASKS, Material
from benchmarks.study._finetuning_jobs import Wanted, prepare
from benchmarks.study._finetuning_methods import DEVICE
from benchmarks.study._finetuning_runs import REGIMES, Bench
from benchmarks.study._pool import NotTrainedError
from samespace import Dataset

PARTS = ("full", "five", "shots", "ours", "ablation", "cost")
_OURS = "furniture3d/manifest.csv"
_OURS_FOR = ("clothing",)
_ABLATED = "clothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"))
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--sets", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument(
        "--shots",
        nargs="*",
        type=int,
        default=list(REGIMES),
        choices=list(REGIMES),
        help="of each class; 0 for all pictures",
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--network", choices=list(NETWORKS), default="small")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop training after so many")
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    torch.set_num_threads(min(2, torch.get_num_threads()))
    seeds = arguments.seeds
    sees = NETWORKS[arguments.network]
    benches = [
        Bench(Material(TASKS[name], arguments.data, arguments.out / name, sees))
        for name in arguments.sets
    ]
    some = _wanted(arguments.parts, benches, arguments.data)
    wanted = [w for w in some if w.shots in arguments.shots]
    if arguments.processes > 1:
        first = [w for w in wanted if w.part == "main" and w.shots in (0, 5) and not w.bench.ours]
        for each in (first, [w for w in wanted if w not in first]):
            prepare(each, seeds, arguments.processes, until)
    rows = earlier("finetuning")

    def keep(more: Iterable[dict[str, Any]]) -> None:
        new = list(more)
        made = {_place(row) for row in new}
        rows[:] = [r for r in rows if _place(r) not in made and r["data"] != AVERAGE] + new
        rows.extend(average_rows(rows))
        scale = "gpu" if DEVICE.type == "cuda" else "cpu"
        notes = [*NOTES, device_note(rows)]
        write("finetuning", COLUMNS, rows, seeds=seeds, scale=scale, notes=notes)

    for w in wanted:
        bench = replace(w.bench, trains=time.monotonic() < until and arguments.processes == 1)
        try:
            if w.part == "ablation":
                keep(ablation_rows(bench, w.shots, seeds))
                continue
            keep(setting_rows(bench, REGIMES[w.shots]))
            keep(main_rows(bench, w.shots, seeds))
        except NotTrainedError:
            print(f"left out: {w.part}, {bench.material.task.name}, {w.shots} shots", flush=True)
    if "cost" in arguments.parts and _ABLATED in arguments.sets and time.monotonic() < until:
        bench = benches[arguments.sets.index(_ABLATED)]
        for shots in (s for s in (5, 0) if s in arguments.shots):
            keep(cost_rows(bench, shots))


def _wanted(parts: Sequence[str], benches: Sequence[Bench], data: Path) -> Iterator[Wanted]:
    """What matters most comes first: the study can be stopped after any of these."""
    for part in (p for p in PARTS if p in parts):
        for bench in benches:
            task = bench.material.task
            if part in ("full", "five"):
                yield Wanted("main", bench, 0 if part == "full" else 5)
            elif part == "shots":
                yield from (Wanted("main", bench, shots) for shots in (1, 10, 20))
            elif part == "ablation" and task == TASKS[_ABLATED]:
                yield from (Wanted("ablation", bench, shots) for shots in (5, 0))
            elif part == "ours" and task in [TASKS[name] for name in _OURS_FOR]:
                ours = Bench(bench.material, ours=True, teaches=Dataset.open(data / _OURS))
                yield from (Wanted("main", ours, shots) for shots in (5, 0))


def _place(row: dict[str, Any]) -> tuple[str, str, str, str, int]:
    return row["part"], row["network"], row["start"], row["data"], row["shots"]


if __name__ == "__main__":
    main()
