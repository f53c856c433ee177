"""Old and new cloud models: compatible by training, by an adapter, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.study._runs import Group, Task
from samespace import Dataset, metrics
from samespace.adapters import fit_adapter
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.pictures import decoded
from samespace_cloud.recipes import demo_recipe
from samespace_cloud.training import train_cloud
from samespace_cloud.upgrade import train_upgrade
from samespace_cloud.views import embed_pictures

Vectors = NDArray[np.float32]

_OLD = ModelConfig("lite0-edge", 48)
_OLD_EPOCHS, _EPOCHS = 12, 6
_WIDER = 192
_REGRESSION = 0.5

LOSSES: Mapping[str, tuple[tuple[str, float], ...]] = {
    "L2 alone": (("cosine-regression", 1.0),),
    "BCT": (("cosface", 1.0), ("frozen-classifier", 1.0)),
    "BCT against flips": (
        ("cosface", 1.0),
        ("frozen-classifier", 1.0),
        ("regression-alleviating", _REGRESSION),
    ),
    f"BCT, {_WIDER} numbers": (("cosface", 1.0), ("frozen-classifier", 1.0)),
    f"BCT, {_WIDER} numbers, gallery-aware": (
        ("cosface", 1.0),
        ("frozen-classifier", 1.0),
        ("cosine-regression", 4.0),
    ),
}
"""Trainings of the new model that look at the old one, by name."""

ADAPTERS = ("procrustes", "affine", "mlp")

UPGRADE_COLUMNS = {
    "task": "queries and gallery",
    "seed": "of the trainings, and of which labels the old model knows",
    "method": "how the new model was made to search the old gallery; independent: not at all;"
    " backward: new queries adapted to the old gallery; forward: old vectors lifted to the new one",
    "old_old": "R@1 of the old model on both sides",
    "new_old": "R@1 of new queries in the old gallery",
    "new_old_ci": "95 % bootstrap interval",
    "above": "new_old less old_old, paired by query",
    "above_ci": "its 95 % interval",
    "new_new": "R@1 of the new model on both sides",
    "paragon": "R@1 on both sides of the new model trained independently",
    "gain": "update gain: (new_old - old_old) / (paragon - old_old); null where that is 0 or less",
    "negative_flips": "share of the queries right with old_old and wrong with new_old",
    "reindex_flips": "the same with the independent model on both sides: a full re-index",
}


@dataclass(frozen=True)
class _Sides:
    """A task's vectors by one model: queries (Q, D) and gallery (G, D)."""

    queries: Vectors
    gallery: Vectors


def upgrade_rows(group: Group, seed: int) -> Iterator[dict[str, Any]]:
    """Train, adapt and measure: a row for every method on every task of the group."""
    folder = group.out / group.name / f"upgrades-{seed}"
    whole = group.train_data
    config = replace(demo_recipe(seed, canvas=group.canvas).cloud, epochs=_EPOCHS)
    before = replace(config, model=_OLD, epochs=_OLD_EPOCHS, batch_size=128)
    old = _kept(folder / "old", lambda to: train_cloud(_half(whole, seed), before, to))
    new = _kept(folder / "independent", lambda to: train_cloud(whole, config, to))
    trained = {name: _trained(whole, config, name, old, folder) for name in LOSSES}
    pairs = [_train_vectors(group, c.model) for c in (old, new)]
    for task in group.tasks:
        a, b = _sides(group, old.model, task), _sides(group, new.model, task)
        report = _Report(group, task, seed, a, b)
        yield report.row("independent", b.queries, a.gallery, b)
        for name, checkpoint in trained.items():
            c = _sides(group, checkpoint.model, task)
            first = metrics.shorten(c.queries, a.gallery.shape[1])
            yield report.row(name, first, a.gallery, c)
        for kind in ADAPTERS:
            back = fit_adapter(
                pairs[1], pairs[0], source=new.fingerprint, target=old.fingerprint, kind=kind
            ).adapter
            yield report.row(f"{kind}, backward", back.apply(b.queries), a.gallery, b)
            lift = fit_adapter(
                pairs[0], pairs[1], source=old.fingerprint, target=new.fingerprint, kind=kind
            ).adapter
            yield report.row(f"{kind}, forward", b.queries, lift.apply(a.gallery), b)


@dataclass(frozen=True)
class _Report:
    """Rows of one task and seed: `a` is the old model's vectors, `b` the independent one's."""

    group: Group
    task: Task
    seed: int
    a: _Sides
    b: _Sides

    def row(self, method: str, queries: Vectors, gallery: Vectors, new: _Sides) -> dict[str, Any]:
        """A method's queries in the gallery that they search; `new` is its model's vectors."""
        old, cross, own, paragon = (
            self._hits(q, g)
            for q, g in (
                (self.a.queries, self.a.gallery),
                (queries, gallery),
                (new.queries, new.gallery),
                (self.b.queries, self.b.gallery),
            )
        )
        bootstrap = metrics.Bootstrap(self.group.labels(self.task))
        difference = cross.astype(np.float64) - old
        inside, above = bootstrap.interval(cross), bootstrap.interval(difference)
        gain = metrics.update_gain(*(float(x.mean()) for x in (cross, old, paragon)))
        return {
            "task": self.task.name,
            "seed": self.seed,
            "method": method,
            "old_old": float(old.mean()),
            "new_old": float(cross.mean()),
            "new_old_ci": [inside.low, inside.high],
            "above": float(difference.mean()),
            "above_ci": [above.low, above.high],
            "new_new": float(own.mean()),
            "paragon": float(paragon.mean()),
            "gain": None if np.isnan(gain) else gain,
            "negative_flips": metrics.flips(old, cross).negative_rate,
            "reindex_flips": metrics.flips(old, paragon).negative_rate,
        }

    def _hits(self, queries: Vectors, gallery: Vectors) -> NDArray[np.bool_]:
        return metrics.rank(queries, gallery, *self.group.codes(self.task)).hits(1)


def _half(data: Dataset, seed: int) -> Dataset:
    """The train pictures of half of the labels."""
    names = sorted({i.label for i in data.train})
    known = set(np.random.default_rng(seed).permutation(names)[: len(names) // 2].tolist())
    return data.subset([i for i in data.train if i.label in known])


def _trained(
    data: Dataset, config: TrainConfig, name: str, old: Checkpoint, folder: Path
) -> Checkpoint:
    dim = _WIDER if str(_WIDER) in name else config.model.dim
    how = replace(config, losses=LOSSES[name], model=replace(config.model, dim=dim))
    safe = name.replace(",", "").replace(" ", "-")
    aware = "gallery-aware" in name
    return _kept(folder / safe, lambda to: train_upgrade(data, how, old, to, gallery_aware=aware))


def _kept(folder: Path, train: Callable[[Path], Checkpoint]) -> Checkpoint:
    done = (folder / "checkpoint.json").exists()
    return Checkpoint.load(folder) if done else train(folder)


def _sides(group: Group, model: EmbeddingModel, task: Task) -> _Sides:
    return _Sides(group.embedded(model, task, "query"), group.embedded(model, task, "gallery"))


def _train_vectors(group: Group, model: EmbeddingModel) -> Vectors:
    """A model's vectors of the train pictures, from which adapters are fitted."""
    data = group.train_data
    pictures = decoded(data, data.train, model.config.resize, group.out / group.name / "pairs")
    vectors: Vectors = embed_pictures(model, pictures, torch.device("cpu")).numpy()
    return vectors
