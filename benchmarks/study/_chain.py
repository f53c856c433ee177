"""Three updates in a row, each trained against the version before it: all pairs of versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._ends import difference_ends, share_ends
from benchmarks.study._runs import Group, Measured
from benchmarks.study._upgrades import AWARE, LARGE, SMALL, kept, part, plain_config, sides
from samespace import Dataset, metrics
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.model import ModelConfig
from samespace_cloud.training import train_cloud
from samespace_cloud.upgrade import train_upgrade

VERSIONS = (
    (SMALL, 0.25),
    (ModelConfig("lite0-edge", 64), 0.5),
    (LARGE, 0.75),
    (LARGE, 1.0),
)
"""Network and share of the train labels of every version; the first is trained alone."""

CHAIN_COLUMNS = {
    "task": "queries and gallery",
    "query": "version whose vectors search",
    "gallery": "version that made the gallery",
    "recall_at_1": "R@1, mean over seeds",
    "recall_at_1_ci": "95 % interval, cluster-robust over labels",
    "above": "above the gallery's own version on both sides, paired by query and seed",
    "above_ci": "its 95 % interval",
    "seeds": "how many",
}


def chain_rows(group: Group, seeds: Iterable[int]) -> Iterator[dict[str, Any]]:
    """A row for every version in its own gallery and in those of all versions before it."""
    found: dict[tuple[str, int, int], list[Measured]] = {}
    for seed in seeds:
        versions = _versions(group, seed)
        for task in group.tasks:
            made = [sides(group, v.model, task) for v in versions]
            for i, query in enumerate(made):
                for j, gallery in enumerate(made[: i + 1]):
                    ranking = metrics.rank(query.queries, gallery.gallery, *group.codes(task))
                    measured = Measured(ranking.hits(1), ranking.average_precision)
                    found.setdefault((task.name, i, j), []).append(measured)
    hits = {key: np.mean([m.hits for m in some], axis=0) for key, some in found.items()}
    for (name, i, j), values in hits.items():
        task = next(t for t in group.tasks if t.name == name)
        intervals = metrics.ClusterRobust(group.labels(task))
        inside = share_ends(intervals, values)
        difference = values - hits[name, j, j]
        above = difference_ends(intervals, difference)
        yield {
            "task": name,
            "query": i + 1,
            "gallery": j + 1,
            "recall_at_1": float(values.mean()),
            "recall_at_1_ci": inside,
            "above": None if i == j else float(difference.mean()),
            "above_ci": None if i == j else above,
            "seeds": len(found[name, i, j]),
        }


def _versions(group: Group, seed: int) -> list[Checkpoint]:
    folder = group.out / group.name / f"chain-{seed}"
    versions: list[Checkpoint] = []
    for number, (model, share) in enumerate(VERSIONS, 1):
        size = LARGE if model.backbone == LARGE.backbone else SMALL
        plain = replace(plain_config(group, seed, size), model=model)
        data = part(group.train_data, seed, share)
        before = versions[-1] if versions else None
        train = partial(_train, data, plain, before)
        versions.append(kept(folder / str(number), train))
    return versions


def _train(data: Dataset, plain: TrainConfig, before: Checkpoint | None, to: Path) -> Checkpoint:
    if before is None:
        return train_cloud(data, plain, to)
    return train_upgrade(data, AWARE.config(plain), before, to, gallery_aware=True)
