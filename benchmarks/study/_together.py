"""Co-training beside two steps: what the cloud model pays for an edge model that it moves with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._ends import share_ends
from benchmarks.study._runs import Group, macs_of
from benchmarks.study._search import seconds
from benchmarks.study._settings import TABLE, cut, edge_config
from samespace import metrics
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.model import ModelConfig
from samespace_cloud.recipes import demo_recipe
from samespace_cloud.training import train_cloud, train_edge, train_together

_EPOCHS = 8

TOGETHER_COLUMNS = {
    "how": "two steps: the edge model follows a finished cloud model; co-training: both move under"
    " one classifier and a pull towards each other, of which the cloud model is spared a share",
    "spared": "share of the pull that the cloud model does not feel; 1 in two steps",
    "task": "queries and gallery",
    "paragon": "R@1 with the cloud model on both sides",
    "paragon_ci": "95 % interval, cluster-robust over labels",
    "cross": "R@1 with the edge model's queries in the cloud model's gallery",
    "cross_ci": "95 % interval, cluster-robust over labels",
    "edge": "R@1 with the edge model on both sides",
    "mmacs_query": "millions of multiply-accumulates of the edge model for one query",
    "mmacs_cloud": "of the cloud model",
    "seconds": "of the epochs",
}


def together_rows(group: Group, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Both ways on the quick start's cloud model, which is cheap enough to be moved three times."""
    cloud = replace(demo_recipe(seed, canvas=group.canvas).cloud, epochs=_EPOCHS)
    small = ModelConfig(cut((1, 1, 1, 2, 1, 1), of="lite0-trunk"), 32)
    edge = replace(
        edge_config(small, group.canvas, seed, _EPOCHS), losses=TABLE["cosine regression"]
    )
    folder = group.out / group.name / "together" / str(seed)
    yield from _measured(group, "two steps", 1.0, *_two_steps(group, cloud, edge, folder))
    for spared in (0.9, 0.0):
        config = replace(cloud, protect=spared)
        both = _both(group, config, edge, folder / f"spared-{spared:g}")
        yield from _measured(group, "co-training", spared, *both)


def _two_steps(
    group: Group, cloud: TrainConfig, edge: TrainConfig, folder: Path
) -> tuple[Checkpoint, Checkpoint, float]:
    one, two = folder / "cloud", folder / "edge"
    anchor = _done(one) or train_cloud(group.train_data, cloud, one)
    follower = _done(two) or train_edge(group.train_data, edge, anchor, two, ridge_head=True)
    return anchor, follower, seconds(one) + seconds(two)


def _both(
    group: Group, cloud: TrainConfig, edge: TrainConfig, folder: Path
) -> tuple[Checkpoint, Checkpoint, float]:
    anchor, follower = _done(folder / "cloud"), _done(folder / "edge")
    if not (anchor and follower):
        anchor, follower = train_together(group.train_data, cloud, edge, folder)
    return anchor, follower, seconds(folder)


def _done(folder: Path) -> Checkpoint | None:
    return Checkpoint.load(folder) if (folder / "checkpoint.json").exists() else None


def _measured(
    group: Group, how: str, spared: float, cloud: Checkpoint, edge: Checkpoint, took: float
) -> Iterator[dict[str, Any]]:
    for task in group.tasks:
        paragon = group.measure(cloud.model, cloud.model, task)
        cross = group.measure(edge.model, cloud.model, task)
        intervals = metrics.ClusterRobust(group.labels(task))
        yield {
            "how": how,
            "spared": spared,
            "task": task.name,
            "paragon": float(paragon.hits.mean()),
            "paragon_ci": share_ends(intervals, paragon.hits),
            "cross": float(cross.hits.mean()),
            "cross_ci": share_ends(intervals, cross.hits),
            "edge": float(group.measure(edge.model, edge.model, task).hits.mean()),
            "mmacs_query": macs_of(edge.model) / 1e6,
            "mmacs_cloud": macs_of(cloud.model) / 1e6,
            "seconds": took,
        }
