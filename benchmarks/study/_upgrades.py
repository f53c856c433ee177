"""Old and new cloud models: compatible by training, by an adapter, by both, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._ends import difference_ends, share_ends
from benchmarks.study._runs import Group, Measured, Task
from benchmarks.study._side import SideModel
from samespace import Dataset, metrics
from samespace.adapters import fit_adapter
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.frozen_network import embed_pictures
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.pictures import decoded
from samespace_cloud.recipes import demo_recipe
from samespace_cloud.training import train_cloud
from samespace_cloud.upgrade import train_upgrade
from samespace_edge import Adapter

Vectors = NDArray[np.float32]

SMALL, LARGE = ModelConfig("lite0-edge", 48), ModelConfig("lite0-trunk", 64)
_SMALL_EPOCHS, _LARGE_EPOCHS = 8, 4

_BCT = (("cosface", 1.0), ("frozen-classifier", 1.0))
_ALIGNED = (*_BCT, ("cosine-regression", 8.0), ("contrastive", 2.0))


@dataclass(frozen=True)
class Training:
    """How the new model is trained to search the old one's gallery.

    Attributes:
        losses: names and weights.
        gallery_aware: whether the gallery's pictures teach too, without labels.
        dim: numbers of its vectors.
        blends: whether blends of two pictures are taught.
        every_seed: or the first only.
    """

    losses: tuple[tuple[str, float], ...]
    gallery_aware: bool = False
    dim: int = 128
    blends: bool = True
    every_seed: bool = True

    def config(self, plain: TrainConfig) -> TrainConfig:
        """The settings, from those of an independent training."""
        blended = {"views": plain.views + 1, "mixed_views": 1} if self.blends else {}
        return replace(
            plain, losses=self.losses, model=replace(plain.model, dim=self.dim), **blended
        )


AWARE = Training(_ALIGNED, gallery_aware=True)

TRAININGS: Mapping[str, Training] = {
    "BCT": Training(_BCT, blends=False),
    "BCT, aligned": Training(_ALIGNED),
    "BCT, aligned, gallery-aware": AWARE,
    "L2 alone": Training((("cosine-regression", 1.0),), every_seed=False),
    "gallery-aware, against flips": replace(
        AWARE, losses=(*_ALIGNED, ("regression-alleviating", 0.5)), every_seed=False
    ),
    "gallery-aware, 192 numbers": replace(AWARE, dim=192, every_seed=False),
}
"""Trainings of the new model that look at the old one, by name."""

_LIFTED = "BCT, aligned, gallery-aware"

UPGRADE_COLUMNS = {
    "task": "queries and gallery",
    "method": "how the new model came to search the old gallery; independent: not at all; backward:"
    " new queries adapted to the old gallery; forward: old vectors lifted to the new one",
    "old_old": "R@1 of the old model on both sides, mean over seeds, like all below",
    "new_old": "R@1 of new queries in the gallery of old vectors, or of what was made of them",
    "new_old_ci": "95 % interval, cluster-robust over labels",
    "above": "new_old less old_old, paired by query and seed",
    "above_ci": "its 95 % interval",
    "new_new": "R@1 of the new model on both sides; asked with both: of the mean of old and new"
    " query vectors, in the new model's gallery",
    "paragon": "R@1 on both sides of the new model trained independently",
    "against_paragon": "new_new less paragon, paired",
    "against_paragon_ci": "its 95 % interval",
    "gain": "update gain in R@1: (new_old - old_old) / (paragon - old_old)",
    "map_old_old": "mAP of the old model on both sides",
    "map_new_old": "mAP of new_old",
    "map_new_new": "mAP of new_new",
    "map_paragon": "mAP of paragon",
    "gain_map": "update gain in mAP",
    "negative_flips": "share of the queries right with old_old and wrong with new_old",
    "backfilled_flips": "the same with the new model on both sides: all embedded again",
    "reindex_flips": "the same with the independent model on both sides: a full re-index",
    "seeds": "how many",
}

_PAIRS = ("old_old", "new_old", "new_new", "paragon")
Found = dict[str, Measured]


@dataclass(frozen=True)
class Sides:
    """A task's vectors by one model: queries (Q, D) and gallery (G, D)."""

    queries: Vectors
    gallery: Vectors


def upgrade_rows(group: Group, seeds: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Train, adapt and measure: a row for every method on every task of the group."""
    by_seed = [_measured(group, seed, first=not place) for place, seed in enumerate(seeds)]
    for task, method in dict.fromkeys(key for found in by_seed for key in found):
        there = [found[task, method] for found in by_seed if (task, method) in found]
        yield _row(group, task, method, there)


def plain_config(group: Group, seed: int, model: ModelConfig) -> TrainConfig:
    """An independent training of a small or a large model."""
    config = demo_recipe(seed, canvas=group.canvas).cloud
    if model == LARGE:
        return replace(config, model=model, epochs=_LARGE_EPOCHS)
    return replace(config, model=model, epochs=_SMALL_EPOCHS, batch_size=128)


def part(data: Dataset, seed: int, share: float) -> Dataset:
    """The dataset with the train pictures of a share of the labels; shares are nested."""
    names = sorted({i.label for i in data.train})
    count = round(share * len(names))
    known = set(np.random.default_rng(seed).permutation(names)[:count].tolist())
    return data.subset([i for i in data.items if i.split != "train" or i.label in known])


def kept(folder: Path, train: Callable[[Path], Checkpoint]) -> Checkpoint:
    """What is in the folder, or else trained into it."""
    done = (folder / "checkpoint.json").exists()
    return Checkpoint.load(folder) if done else train(folder)


def sides(group: Group, model: EmbeddingModel, task: Task) -> Sides:
    """A task's vectors by a model."""
    return Sides(group.embedded(model, task, "query"), group.embedded(model, task, "gallery"))


def _measured(group: Group, seed: int, first: bool) -> dict[tuple[str, str], Found]:
    """What every method finds, by task and method; kept, so that it is measured once."""
    folder = group.out / group.name / f"upgrades-{seed}"
    file = folder / "measured.npz"
    if file.exists():
        return _read(file)
    whole, large = group.train_data, plain_config(group, seed, LARGE)
    half, small = part(whole, seed, 0.5), plain_config(group, seed, SMALL)
    old = kept(folder / "old", lambda to: train_cloud(half, small, to))
    new = kept(folder / "independent", lambda to: train_cloud(whole, large, to))
    trained = {}
    for name, training in TRAININGS.items():
        if first or training.every_seed:
            trained[name] = _trained(whole, training, large, old, folder / _safe(name))
    side = SideModel(whole, group.out / group.name)
    pairs = {name: _train_vectors(group, c.model) for name, c in (("old", old), ("new", new))}
    pairs[_LIFTED] = _train_vectors(group, trained[_LIFTED].model)
    lifts = {
        method: (queries, adapter)
        for queries, target, checkpoint in (("independent", "new", new), (_LIFTED, _LIFTED, None))
        for method, adapter in _lifts(
            queries, pairs["old"], pairs[target], old, checkpoint or trained[_LIFTED], side
        )
    }
    back = {
        f"{kind}, backward": _adapter(pairs["new"], pairs["old"], new, old, kind)
        for kind in ("procrustes", "affine", "mlp")
    }
    found = {}
    for task in group.tasks:
        a, b = sides(group, old.model, task), sides(group, new.model, task)
        compare = _Comparison(group, task, a, b)
        found[task.name, "independent"] = compare(b.queries, a.gallery, b)
        own = {"independent": b}
        for name, checkpoint in trained.items():
            own[name] = sides(group, checkpoint.model, task)
            prefix = metrics.shorten(own[name].queries, a.gallery.shape[1])
            found[task.name, name] = compare(prefix, a.gallery, own[name])
            if name == _LIFTED:
                both = metrics.joint(a.queries, prefix)
                named = Sides(both, own[name].gallery)
                found[task.name, f"{name}, asked with both"] = compare(both, a.gallery, named)
        for name, adapter in back.items():
            found[task.name, name] = compare(adapter.apply(b.queries), a.gallery, b)
        beside = side.vectors(group.dataset(task.name), "gallery", task.name)
        for name, (model, adapter) in lifts.items():
            lifted = adapter.apply(a.gallery, beside if adapter.side_dim else None)
            found[task.name, name] = compare(own[model].queries, lifted, own[model])
    _write(file, found)
    return found


def _lifts(
    name: str, old: Vectors, new: Vectors, source: Checkpoint, target: Checkpoint, side: SideModel
) -> Iterator[tuple[str, Adapter]]:
    """Adapters from old vectors to those of a new model, without and with side information."""
    prefix = "" if name == "independent" else f"{name}, "
    for kind in ("procrustes", "affine", "mlp"):
        yield f"{prefix}{kind}, forward", _adapter(old, new, source, target, kind)
        if kind != "procrustes":
            lift = _adapter(old, new, source, target, kind, side.train)
            yield f"{prefix}{kind}, forward with side information", lift


def _adapter(
    x: Vectors,
    y: Vectors,
    source: Checkpoint,
    target: Checkpoint,
    kind: str,
    side: Vectors | None = None,
) -> Adapter:
    prints = {"source": source.fingerprint, "target": target.fingerprint}
    return fit_adapter(x, y, kind=kind, side=side, **prints).adapter


@dataclass(frozen=True)
class _Comparison:
    """A task's four pairs: `a` is the old model's vectors, `b` the independent one's."""

    group: Group
    task: Task
    a: Sides
    b: Sides

    def __call__(self, queries: Vectors, gallery: Vectors, new: Sides) -> Found:
        """A method's queries in the gallery that they search; `new` is its model's vectors."""
        pairs = (
            (self.a.queries, self.a.gallery),
            (queries, gallery),
            (new.queries, new.gallery),
            (self.b.queries, self.b.gallery),
        )
        codes = self.group.codes(self.task)
        found = (metrics.rank(q, g, *codes) for q, g in pairs)
        return {
            name: Measured(r.hits(1), r.average_precision)
            for name, r in zip(_PAIRS, found, strict=True)
        }


def _row(group: Group, task_name: str, method: str, seeds: list[Found]) -> dict[str, Any]:
    """The means over seeds, query by query for the intervals."""
    task = next(t for t in group.tasks if t.name == task_name)
    intervals = metrics.ClusterRobust(group.labels(task))
    hits = {p: np.mean([s[p].hits for s in seeds], axis=0) for p in _PAIRS}
    recall = {p: float(h.mean()) for p, h in hits.items()}
    precision = {p: float(np.mean([s[p].precision for s in seeds])) for p in _PAIRS}

    def gain(of: Mapping[str, float]) -> float | None:
        value = metrics.update_gain(of["new_old"], of["old_old"], of["paragon"])
        return None if np.isnan(value) else value

    def flips(after: str) -> float:
        rates = [metrics.flips(s["old_old"].hits, s[after].hits).negative_rate for s in seeds]
        return float(np.mean(rates))

    above, below = hits["new_old"] - hits["old_old"], hits["new_new"] - hits["paragon"]
    return {
        "task": task_name,
        "method": method,
        "old_old": recall["old_old"],
        "new_old": recall["new_old"],
        "new_old_ci": share_ends(intervals, hits["new_old"]),
        "above": float(above.mean()),
        "above_ci": difference_ends(intervals, above),
        "new_new": recall["new_new"],
        "paragon": recall["paragon"],
        "against_paragon": float(below.mean()),
        "against_paragon_ci": difference_ends(intervals, below),
        "gain": gain(recall),
        **{f"map_{p}": precision[p] for p in _PAIRS},
        "gain_map": gain(precision),
        "negative_flips": flips("new_old"),
        "backfilled_flips": flips("new_new"),
        "reindex_flips": flips("paragon"),
        "seeds": len(seeds),
    }


def _trained(
    data: Dataset, training: Training, plain: TrainConfig, old: Checkpoint, folder: Path
) -> Checkpoint:
    how, aware = training.config(plain), training.gallery_aware
    return kept(folder, lambda to: train_upgrade(data, how, old, to, gallery_aware=aware))


def _safe(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def _train_vectors(group: Group, model: EmbeddingModel) -> Vectors:
    """A model's vectors of the train pictures, from which adapters are fitted."""
    data = group.train_data
    pictures = decoded(data, data.train, model.config.resize, group.out / group.name / "pairs")
    vectors: Vectors = embed_pictures(model, pictures, torch.device("cpu")).numpy()
    return vectors


def _write(file: Path, found: Mapping[tuple[str, str], Found]) -> None:
    arrays = {}
    for (task, method), pairs in found.items():
        for pair, measured in pairs.items():
            arrays[f"{task}|{method}|{pair}|hits"] = measured.hits
            arrays[f"{task}|{method}|{pair}|precision"] = measured.precision
    np.savez(file, **arrays)


def _read(file: Path) -> dict[tuple[str, str], Found]:
    found: dict[tuple[str, str], Found] = {}
    with np.load(file) as arrays:
        for name in arrays:
            task, method, pair, what = name.split("|")
            if what == "hits":
                precision = arrays[f"{task}|{method}|{pair}|precision"]
                found.setdefault((task, method), {})[pair] = Measured(arrays[name], precision)
    return found
