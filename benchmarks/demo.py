"""What does the quick start give? Several seeds of `samespace demo`, each in a folder of its own.

    python -m benchmarks.demo --seeds 0 1 2 [--data manifest.csv] [--name demo] [--out runs/bench]

Ten to twenty minutes a seed on two cores; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks._result import RESULTS, write
from samespace import Report

COLUMNS = {
    "task": "dataset",
    "setting": "inductive, or gallery-aware: taught with the gallery's pictures, unlabelled",
    "query": "model that embeds the queries",
    "gallery": "model that embeds the gallery",
    "recall_at_1": "share of test queries whose first hit is right",
    "recall_at_1_ci": "95 % interval, cluster-robust over labels",
    "map": "mean average precision",
    "mmacs_query": "millions of multiply-accumulates for one query",
    "cost_ratio": "MACs of the cloud model over those of the query model",
    "above_alone": "R@1 above the edge model trained alone, paired; edge to cloud only",
    "above_alone_ci": "its 95 % interval",
    "seconds": "of the whole run; null where an earlier call had begun it",
    "seed": "of weights, order and views",
}


def run(seed: int, data: str | None, out: Path, inductive: bool) -> dict[str, Any]:
    command = [sys.executable, "-c", "from samespace.cli import main; main()", "demo", "--json"]
    command += ["--seed", str(seed), "--out", str(out)]
    command += ["--data", data] if data else []
    command += ["--inductive"] if inductive else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows_of(report: Report, seed: int, setting: str, seconds: float | None) -> list[dict[str, Any]]:
    cloud = next(m for m in report.models if "gallery" in m.declared)
    rows = []
    for cell in report.matrix:
        estimate = cell.estimates["recall_at_1"]
        macs = report.model(cell.query).macs
        criterion = next(
            (
                c
                for c in report.criteria
                if c.decides and (c.query, c.gallery) == (cell.query, cell.gallery)
            ),
            None,
        )
        above = criterion.difference if criterion else None
        rows.append(
            {
                "task": report.dataset["name"],
                "setting": setting,
                "query": cell.query,
                "gallery": cell.gallery,
                "recall_at_1": estimate.value,
                "recall_at_1_ci": [estimate.low, estimate.high],
                "map": cell.estimates["map"].value,
                "mmacs_query": macs / 1e6,
                "cost_ratio": cloud.macs / macs,
                "above_alone": above.value if above else None,
                "above_alone_ci": [above.low, above.high] if above else None,
                "seconds": seconds,
                "seed": seed,
            }
        )
    return rows


def other_seeds(name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Rows of an earlier result that these seeds do not make anew."""
    value = json.loads((RESULTS / f"{name}.json").read_text())
    return [row for row in value["rows"] if row["seed"] not in seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", help="a dataset other than the one that is shipped")
    parser.add_argument("--name", default="demo", help="name of the result")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--inductive", action="store_true")
    parser.add_argument("--append", action="store_true", help="keep the other seeds' rows")
    arguments = parser.parse_args()
    setting = "inductive" if arguments.inductive else "gallery-aware"
    rows = other_seeds(arguments.name, arguments.seeds) if arguments.append else []
    for seed in arguments.seeds:
        folder = arguments.out / f"{arguments.name}-{seed}"
        is_new = not folder.exists()
        found = run(seed, arguments.data, folder, arguments.inductive)
        seconds = found["seconds"] if is_new else None
        rows += rows_of(Report.from_json(found["report"]), seed, setting, seconds)
    notes = list(Report.from_json(found["report"]).notes)
    seeds = sorted({row["seed"] for row in rows})
    write(arguments.name, COLUMNS, rows, seeds=seeds, notes=notes)


if __name__ == "__main__":
    main()
