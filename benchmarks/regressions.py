"""How many answers of a classifier turn wrong when it is updated, and which method keeps them?

    python -m benchmarks.regressions --data DATA --out runs/regressions

DATA holds `grocery_store` and `clothing` (a CSV in each). Every training is kept in `--out`, so a
stopped study goes on; rows of an earlier run stay until a run makes them anew. Some 250 trainings
of a minute on two cores; `--processes 9` does as many at a time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks._result import earlier, write
from benchmarks.study._pool import NotTrainedError, run_jobs
from benchmarks.study._regression_sweep import (
    chosen_rate,
    chosen_sgd_weight,
    rate_rows,
    sgd_weight_rows,
    sweep_rows,
)
from benchmarks.study._regressions import (
    COLUMNS,
    NOTES,
    choosing_rows,
    chosen_weights,
    method_rows,
    training_rounds,
    weight_rows,
)
from benchmarks.study._taggers import SCENARIOS, Scenario, Shelf, by_sgd

MANIFESTS = {"grocery": "grocery_store/classify.csv", "clothing": "clothing/manifest.csv"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--out", type=Path, default=Path("runs/regressions"))
    # choosing: of methods, what trains no more
    parts = ["weights", "methods", "choosing", "sweep", "sgd"]
    parser.add_argument(
        "--parts",
        nargs="*",
        default=parts,
        choices=parts,
        help="without 'weights' the methods take those that an earlier run has chosen; 'sgd' is the"
        " sweep by that optimiser",
    )
    names = [s.name for s in SCENARIOS]
    parser.add_argument("--scenarios", nargs="*", default=names, choices=names)
    parser.add_argument("--sets", nargs="*", default=list(MANIFESTS), choices=list(MANIFESTS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop training after so many")
    arguments = parser.parse_args()
    seeds = arguments.seeds
    until = time.monotonic() + 60 * arguments.minutes
    torch.set_num_threads(min(2, torch.get_num_threads()))
    shelves = [Shelf(n, arguments.data / MANIFESTS[n], arguments.out) for n in arguments.sets]
    rows = [dict.fromkeys(COLUMNS) | row for row in earlier("regressions")]

    def keep(more: Iterable[dict[str, Any]], what: str) -> None:
        for shelf in shelves:
            shelf.trains = time.monotonic() < until
        try:
            new = list(more)
        except NotTrainedError:
            print(f"left out: {what}", flush=True)
            return
        made = {_place(row) for row in new}
        rows[:] = [row for row in rows if _place(row) not in made] + new
        write("regressions", COLUMNS, rows, seeds=seeds, notes=NOTES)

    def add_choosing(shelf: Shelf, scenario: Scenario) -> None:
        new = list(choosing_rows(shelf, scenario, seeds))
        place = _place(new[0])
        by = {row["method"]: row for row in rows if _place(row) == place}
        untreated = new[0]["method"]
        if untreated in by and by[untreated]["nfr"] != new[0]["nfr"]:
            parser.error(f"the rows of {place} are of other taggers: add 'methods' to --parts")
        keep([*(by | {row["method"]: row for row in new}).values()], f"choosing, {place}")

    # What matters most comes first: the study can be stopped after any of these.
    scenarios = [s for s in SCENARIOS if s.name in arguments.scenarios]
    if "weights" in arguments.parts:
        keep(weight_rows(shelves[0]), "weights")
    weights = dict[str, float]()
    if "methods" in arguments.parts:
        searched = [row for row in rows if row["part"] == "weights"]
        if not searched:
            parser.error("no run has chosen weights yet: add 'weights' to --parts")
        weights = chosen_weights(searched)
        print("weights:", weights, flush=True)
        if arguments.processes > 1:
            of = [training_rounds(s, c, seeds, weights) for c in scenarios for s in shelves]
            for rounds in zip(*of, strict=True):
                jobs = list(dict.fromkeys(job for some in rounds for job in some))
                run_jobs(jobs, arguments.processes, until)

    def methods(some: Iterable[Scenario]) -> None:
        for scenario in some:
            for shelf in shelves:
                what = f"methods, {shelf.name}, {scenario.name}"
                keep(method_rows(shelf, scenario, seeds, weights), what)

    def by_the_papers_optimiser(shelf: Shelf) -> None:
        keep(rate_rows(shelf), f"rates, {shelf.name}")
        rates = [row for row in rows if _place(row) == ("rates", shelf.name, SCENARIOS[0].name)]
        if not rates:
            return
        scenario = by_sgd(chosen_rate(rates))
        keep(sgd_weight_rows(shelf, scenario), f"weights, {shelf.name}, {scenario.name}")
        tried = [row for row in rows if _place(row) == ("rates", shelf.name, scenario.name)]
        if tried:
            weight = chosen_sgd_weight(tried)
            print(f"{scenario.name}, weight {weight:g}", flush=True)
            sweep = sweep_rows(shelf, seeds, scenario, weight)
            keep(sweep, f"sweep, {shelf.name}, {scenario.name}")

    if "methods" in arguments.parts:
        methods(scenarios[:1])
    if "sweep" in arguments.parts:
        keep(sweep_rows(shelves[-1], seeds), f"sweep, {shelves[-1].name}")
    if "sgd" in arguments.parts:
        by_the_papers_optimiser(shelves[-1])
    if "methods" in arguments.parts:
        methods(scenarios[1:])
    elif "choosing" in arguments.parts:
        for scenario in scenarios:
            for shelf in shelves:
                add_choosing(shelf, scenario)


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["part"], row["data"], row["scenario"]


if __name__ == "__main__":
    main()
