"""Does a linearised network tuned by least squares (LQF) come up to fine-tuning, and what does it
cost?

    python -m benchmarks.finetuning --data DATA --out runs/finetuning

DATA holds `grocery_store`, `clothing` and `furniture3d` (a CSV in each). The answers of every
training are kept in `--out`, so a stopped study goes on; rows of an earlier run stay until a run
makes them anew. Some hours on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
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
    main_rows,
    setting_rows,
)
from benchmarks.study._finetuning_data import TASKS, Material
from benchmarks.study._finetuning_runs import REGIMES, Bench
from samespace import Dataset

PARTS = ("full", "five", "shots", "rest", "ablation", "ours")
_FIRST = ("clothing", "grocery-coarse")
_OURS = "furniture3d/manifest.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"))
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--sets", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    seeds = arguments.seeds
    materials = {n: Material(TASKS[n], arguments.data, arguments.out / n) for n in arguments.sets}
    rows = earlier("finetuning")

    def keep(more: Iterable[dict[str, Any]]) -> None:
        new = list(more)
        made = {_place(row) for row in new}
        rows[:] = [r for r in rows if _place(r) not in made and r["data"] != AVERAGE] + new
        rows.extend(average_rows(rows))
        write("finetuning", COLUMNS, rows, seeds=seeds, notes=NOTES)

    def tune(bench: Bench, shots: int) -> None:
        keep(setting_rows(bench, REGIMES[shots]))
        keep(main_rows(bench, shots, seeds))

    # What matters most comes first: the study can be stopped after any of these.
    benches = {name: Bench(material) for name, material in materials.items()}
    for part in (p for p in PARTS if p in arguments.parts):
        print(f"part {part}", flush=True)
        for name, bench in benches.items():
            if part == "full" and name in _FIRST:
                tune(bench, 0)
            elif part == "five":
                tune(bench, 5)
            elif part == "shots":
                for shots in (1, 10, 20):
                    tune(bench, shots)
            elif part == "rest" and name not in _FIRST:
                tune(bench, 0)
            elif part == "ablation" and name == _FIRST[0]:
                for shots in (5, 0):
                    keep(ablation_rows(bench, shots, seeds))
            elif part == "ours" and name in _FIRST:
                teaches = Dataset.open(arguments.data / _OURS)
                ours = Bench(bench.material, ours=True, teaches=teaches)
                for shots in (5, 0):
                    tune(ours, shots)


def _place(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["part"], row["start"], row["data"], row["shots"]


if __name__ == "__main__":
    main()
