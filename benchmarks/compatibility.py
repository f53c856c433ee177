"""How near to searching with the cloud model on both sides does a cheap query model come?

    python -m benchmarks.compatibility --data DATA --out runs/study [--parts ratios losses ...]

DATA holds `grocery_store` and `furniture3d` (a CSV in each). Every run is kept in `--out`, so a
stopped study goes on; `--parts` chooses what to run, and the result is written from all that is
there. About two hours on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._result import write
from benchmarks.study._collect import COLUMNS, NOTES, rows_of
from benchmarks.study._family import FAMILY_COLUMNS, family_rows
from benchmarks.study._latency import LATENCY_COLUMNS, latency_rows
from benchmarks.study._runs import (
    CLOUD_SEED,
    CLOUD_SIZE,
    Group,
    Log,
    Run,
    cloud_config,
    execute,
)
from benchmarks.study._search import (
    SEARCH_COLUMNS,
    alone,
    find,
    keep_search,
    kept_search,
    runs,
    search_rows,
)
from benchmarks.study._settings import (
    HAND_CUT,
    TABLE,
    UNANCHORED,
    alone_config,
    best_config,
    edge_config,
)
from benchmarks.study._together import TOGETHER_COLUMNS, together_rows
from samespace import Dataset
from samespace_cloud.model import ModelConfig

EPOCHS = {
    "grocery": {20: 12, 40: 16, 80: 32, 160: 32},
    "furniture": {20: 32, 40: 32, 80: 32, 160: 32},
}
"""By cost ratio. On the furniture the larger edge models need as long as the small ones."""

TABLE_EPOCHS = 8
POOL = (2500, 10000)
SEARCHES = {
    "grocery": {80: (0, 1, 2), 40: (0,), 20: (0,)},
    "furniture": {80: (0,), 40: (0,), 20: (0,)},
}
"""Seeds of the searches, by cost ratio; a training with another seed takes the first one's."""

TAU_SEEDS = {"grocery": {80: (0, 1)}, "furniture": {}}


def ratios(group: Group, seeds: list[int]) -> Iterator[Run]:
    """Alone and taught, gallery-aware and inductive, by cost ratio."""
    for ratio, model in HAND_CUT.items():
        for seed in seeds:
            name, more = f"cut by hand, {ratio}x", {"ratio": ratio}
            alone = alone_config(model, group.canvas, seed)
            yield Run("ratios", f"{name}, alone", group.name, alone, alone=True, more=more)
            best = best_config(model, group.canvas, seed, EPOCHS[group.name][ratio])
            yield Run("ratios", name, group.name, best, setting="gallery-aware", more=more)
            yield Run("ratios", name, group.name, best, more=more)


def paragon(group: Group, seeds: list[int]) -> Iterator[Run]:
    """The cloud model, trained again from other seeds than its own."""
    for seed in seeds:
        if seed != CLOUD_SEED:
            config = cloud_config(group.canvas, seed)
            yield Run(
                "paragon",
                "cloud models of other seeds, alone",
                group.name,
                config,
                alone=True,
                deploy_size=CLOUD_SIZE,
                more={"ratio": 1},
            )


def losses(group: Group, seeds: list[int]) -> Iterator[Run]:
    """Every row of the table of losses, at 80x."""
    model = HAND_CUT[80]
    for seed in seeds:
        plain = edge_config(model, group.canvas, seed, TABLE_EPOCHS)
        for name, terms in TABLE.items():
            config = replace(plain, losses=terms)
            ridge = name not in UNANCHORED
            yield Run("losses", name, group.name, config, ridge=ridge, more={"ratio": 80})


def teaching(group: Group, seeds: list[int]) -> Iterator[Run]:
    """One setting of the best recipe changed at a time, at 80x, gallery-aware."""
    model = HAND_CUT[80]
    for seed in seeds[:1]:
        best = best_config(model, group.canvas, seed, EPOCHS[group.name][80])
        changes = {
            "the same network at 48 px": replace(best, model=replace(model, input_size=48)),
            "the cloud's network at 32 px": replace(best, model=ModelConfig("lite2-trunk", 32)),
            "half as long": replace(best, epochs=EPOCHS[group.name][80] // 2),
            "from ImageNet weights": replace(best, init="imagenet"),
            "targets as they are": replace(best, steady=0.0),
            "twice as long": replace(best, epochs=EPOCHS[group.name][80] * 2),
            "nested widths 32 and 64": replace(best, nested=(32, 64)),
        }
        for name, config in changes.items():
            more = {"ratio": 80}
            yield Run("teaching", name, group.name, config, setting="gallery-aware", more=more)


def pool(group: Group, seeds: list[int]) -> Iterator[Run]:
    """The gap against the number of unlabelled teaching pictures, at 80x."""
    for seed in seeds[:1]:
        config = best_config(HAND_CUT[80], group.canvas, seed, EPOCHS[group.name][80])
        for count in POOL:
            yield Run(
                "pool",
                f"{count} unlabelled pictures",
                group.name,
                config,
                setting="inductive + pool",
                pool=count,
                more={"ratio": 80},
            )


def architectures(group: Group, seeds: list[int]) -> Iterator[Run]:
    """What searches found, beside networks made by hand, all trained from every seed."""
    rows: list[dict[str, Any]] = []
    for ratio, some in SEARCHES[group.name].items():
        searched = {}
        for seed in some:
            found, other, seconds = find(group, ratio, seed)
            searched[seed] = found
            taus = seed in TAU_SEEDS[group.name].get(ratio, ())
            trained = alone(group, ratio, seed, found) if taus else []
            rows += search_rows(group, ratio, seed, found, other, seconds, trained)
        yield from runs(group, ratio, searched, seeds)
    keep_search(group, rows)


PARTS = {
    "paragon": paragon,
    "ratios": ratios,
    "losses": losses,
    "teaching": teaching,
    "pool": pool,
    "architectures": architectures,
}


@lru_cache
def _pool(path: Path, count: int) -> Dataset:
    """The first pictures of the pool, in an order that is fixed."""
    whole = Dataset.open(path)
    order = np.random.default_rng(0).permutation(len(whole.items))[:count]
    return whole.subset([whole.items[int(i)] for i in order])


def latency(log: Log) -> None:
    """How long a query takes on every network of the study."""
    models = {"cloud": ModelConfig("lite2-trunk", CLOUD_SIZE)}
    for row in log.rows:
        if row["part"] in ("ratios", "architectures") and not row["name"].endswith(", alone"):
            models.setdefault(row["name"], ModelConfig(row["backbone"], row["input_size"]))
    notes = ["Each round runs every network once, so that a busy moment hits all alike."]
    write("study_latency", LATENCY_COLUMNS, latency_rows(models), notes=notes)


def family(group: Group) -> None:
    """The matrix of the gallery-aware members of every ratio, first seed."""
    every = list(ratios(group, [0]))
    members = {f"{r.more['ratio']}x": r for r in every if r.setting == "gallery-aware"}
    alone = {f"{r.more['ratio']}x": r for r in every if r.alone}
    notes = [f"{group.tasks[0].name}, gallery-aware, seed 0; through the exported bundles."]
    write("family", FAMILY_COLUMNS, family_rows(group, members, alone), notes=notes)


def together(group: Group) -> None:
    """Co-training beside two steps."""
    notes = [
        "The quick start's cloud model (EfficientNet-Lite0 without its last stage, 80 px, trained"
        " head), so its paragon is not the tables' above; the edge model is cut from it by hand.",
        "All take eight epochs, inductively.",
    ]
    write("together", TOGETHER_COLUMNS, list(together_rows(group)), notes=notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of the runs")
    parts = [*PARTS, "together", "family", "latency", "none"]
    parser.add_argument("--parts", nargs="*", default=parts[:-1], choices=parts)
    parser.add_argument("--groups", nargs="*", default=["grocery", "furniture"])
    parser.add_argument("--ratios", nargs="*", type=int, default=[1, *HAND_CUT])
    settings = ["inductive", "gallery-aware", "inductive + pool"]
    parser.add_argument("--settings", nargs="*", default=settings, choices=settings)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    log = Log(arguments.out)
    groups = {n: Group(n, arguments.data, arguments.out) for n in arguments.groups}
    pictures = partial(_pool, arguments.data / "unlabelled_64px.zip")
    for part in arguments.parts:
        for group in groups.values() if part in PARTS else ():
            for run in PARTS[part](group, arguments.seeds):
                wanted = run.alone or run.setting in arguments.settings
                if wanted and run.more["ratio"] in arguments.ratios:
                    execute(run, group, log, pictures)
    everything = {n: Group(n, arguments.data, arguments.out) for n in ("grocery", "furniture")}
    if "architectures" in arguments.parts:
        found = [row for group in everything.values() for row in kept_search(group)]
        notes = ["Budgets: 1/80, 1/40 and 1/20 of the cloud model's multiply-accumulates."]
        write("search", SEARCH_COLUMNS, found, seeds=arguments.seeds, notes=notes)
    if "together" in arguments.parts:
        together(groups["grocery"])
    if "family" in arguments.parts:
        family(groups["grocery"])
    if "latency" in arguments.parts:
        latency(log)
    rows = rows_of(log, everything)
    write("compatibility", COLUMNS, rows, seeds=arguments.seeds, notes=NOTES)


if __name__ == "__main__":
    main()
