"""From runs to rows: means over seeds, intervals, and the criterion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study._runs import Group, Log, Task
from samespace import metrics

COLUMNS = {
    "part": "of the study: paragon, ratios, losses, teaching, pool, architectures",
    "name": "of the edge model or of what was changed",
    "task": "queries and gallery",
    "setting": "inductive; + pool: other pictures taught, without labels; gallery-aware: the "
    "gallery's pictures taught, without labels",
    "query": "model that embeds the queries",
    "gallery": "model that embeds the gallery",
    "recall_at_1": "share of the queries whose first hit is right, mean over seeds",
    "recall_at_1_ci": "95 % interval, cluster-robust over labels",
    "spread": "standard deviation over seeds",
    "map": "mean average precision, mean over seeds",
    "homogeneous": "R@1 with the query model on both sides, mean over seeds",
    "naive": "of a network trained alone: R@1 of its queries in the cloud's gallery all the same",
    "corrected": "R@1 with hub correction from a bank of train pictures, mean over seeds",
    "at_64": "R@1 of the first 64 of 128 coordinates, mean over seeds",
    "at_32": "R@1 of the first 32 of 128 coordinates, mean over seeds",
    "gap": "R@1 below the cloud model on both sides, in points of a hundred",
    "above_alone": "R@1 above the same network trained alone on both sides, paired",
    "above_alone_ci": "its 95 % interval",
    "mmacs_query": "millions of multiply-accumulates for one query",
    "cost_ratio": "MACs of the cloud model over those of the query model",
    "parameters": "of the query model",
    "input_size": "side of the query model's input, in pixels",
    "backbone": "of the query model, as text",
    "seconds": "of the training's epochs, mean over seeds; views are made before",
    "network_share": "of these seconds, spent in the network's own forward and backward",
    "seeds": "how many",
}

NOTES = [
    "furniture3d is RENDERED; grocery pictures are photographs.",
    "Cloud model: EfficientNet-Lite2 without its last stage, from ImageNet weights, one seed a data"
    " set; the seeds are the edge models'.",
    "photo_to_shop shares its models with photo_to_photo: its gallery-aware models were taught with"
    " that task's gallery, other photographs of the same products, not with the shop's pictures.",
    "Parts were run one after another with --parts and --seeds; other work shared the two cores at"
    " times, so seconds are rough.",
]


def rows_of(log: Log, groups: Mapping[str, Group]) -> list[dict[str, Any]]:
    """The rows of the result: the paragon of every task, then every kind of run."""
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in log.rows:
        kinds[row["part"], row["name"], row["setting"], row["task"]].append(row)
    rows = [
        _paragon(group, task)
        for group in groups.values()
        for task in group.tasks
        if any(r["task"] == task.name for r in log.rows)
    ]
    paragons = {r["task"]: r["recall_at_1"] for r in rows}
    for (part, name, setting, task_name), found in kinds.items():
        group = next(g for g in groups.values() if any(t.name == task_name for t in g.tasks))
        task = next(t for t in group.tasks if t.name == task_name)
        rows.append(_row(part, name, setting, task, found, group, log, paragons[task_name]))
    return rows


def _paragon(group: Group, task: Task) -> dict[str, Any]:
    cloud = group.cloud.model
    measured = group.measure(cloud, cloud, task)
    interval = metrics.ClusterRobust(group.labels(task)).share(measured.hits)
    value = measured.recall_at_1
    return {
        **dict.fromkeys(COLUMNS),
        "part": "paragon",
        "name": "cloud model",
        "task": task.name,
        "setting": "inductive",
        "query": "cloud",
        "gallery": "cloud",
        "recall_at_1": value,
        "recall_at_1_ci": [interval.low, interval.high],
        "map": float(measured.precision.mean()),
        "homogeneous": value,
        "at_64": group.recall(cloud, cloud, task, width=64),
        "at_32": group.recall(cloud, cloud, task, width=32),
        "gap": 0.0,
        "mmacs_query": group.cloud_macs / 1e6,
        "cost_ratio": 1.0,
        "parameters": sum(p.numel() for p in cloud.parameters()),
        "input_size": cloud.config.input_size,
        "backbone": cloud.config.backbone,
        "seeds": 1,
    }


def _row(
    part: str,
    name: str,
    setting: str,
    task: Task,
    found: list[dict[str, Any]],
    group: Group,
    log: Log,
    paragon: float,
) -> dict[str, Any]:
    alone = name.endswith(", alone")
    hits = _mean_hits(log, [r["key"] for r in found], task)
    intervals = metrics.ClusterRobust(group.labels(task))
    interval = intervals.share(hits)
    partner = [
        r["key"]
        for r in log.rows
        if r["task"] == task.name
        and r["name"] == f"{_network(log, found[0])}, alone"
        and r["seed"] in {x["seed"] for x in found}
    ]
    above, margin = None, None
    if partner and not alone:
        difference = hits - _mean_hits(log, partner, task)
        above, margin = float(difference.mean()), intervals.difference(difference)
    recalls = [r["recall_at_1"] for r in found]

    def mean(column: str) -> float:
        return float(np.mean([r[column] for r in found]))

    return {
        "part": part,
        "name": name,
        "task": task.name,
        "setting": setting,
        "query": "edge alone" if alone else "edge",
        "gallery": "edge alone" if alone else "cloud",
        "recall_at_1": float(hits.mean()),
        "recall_at_1_ci": [interval.low, interval.high],
        "spread": float(np.std(recalls)),
        "map": mean("map"),
        "homogeneous": mean("homogeneous"),
        "naive": mean("naive") if alone else None,
        "corrected": None if alone else mean("corrected"),
        "at_64": mean("at_64"),
        "at_32": mean("at_32"),
        "gap": 100 * (paragon - float(hits.mean())),
        "above_alone": above,
        "above_alone_ci": [margin.low, margin.high] if margin else None,
        "mmacs_query": mean("mmacs_query"),
        "cost_ratio": mean("cost_ratio"),
        "parameters": found[0]["parameters"],
        "input_size": found[0]["input_size"],
        "backbone": found[0]["backbone"],
        "seconds": mean("seconds"),
        "network_share": found[0].get("network_share"),
        "seeds": len(found),
    }


def _network(log: Log, row: Mapping[str, Any]) -> str:
    """What the same network is called in the part that trained it alone."""
    for other in log.rows:
        if (
            other["name"].endswith(", alone")
            and other["backbone"] == row["backbone"]
            and other["input_size"] == row["input_size"]
        ):
            return str(other["name"]).removesuffix(", alone")
    return str(row["name"])


def _mean_hits(log: Log, keys: list[str], task: Task) -> NDArray[np.float64]:
    """How often, over the seeds, every query was answered rightly (Q,)."""
    found = [log.hits(f"{k.replace('/', '~').replace(' ', '_')}~{task.name}~cross") for k in keys]
    return np.mean([h for h in found if h is not None], axis=0)
