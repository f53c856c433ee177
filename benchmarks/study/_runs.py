"""Runs of the study: each is trained once, measured on every task of its data, and written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samespace import Dataset, metrics
from samespace_cloud.backbones import macs
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.demo import canvas_for
from samespace_cloud.frozen_network import embed_pictures
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.pictures import decoded
from samespace_cloud.training import train_cloud, train_edge

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """Queries and a gallery.

    Attributes:
        name: of the row.
        manifest: under the data folder.
        group: tasks of one group share the train part, and so their models.
    """

    name: str
    manifest: str
    group: str


TASKS = (
    Task("photo_to_photo", "grocery_store/photo_to_photo.csv", "grocery"),
    Task("photo_to_shop", "grocery_store/photo_to_shop.csv", "grocery"),
    Task("furniture3d (rendered)", "furniture3d/manifest.csv", "furniture"),
)


@dataclass
class Measured:
    """One pair of models on one task, query by query.

    Attributes:
        hits: bool (Q,): whether the first hit is right.
        precision: float64 (Q,): average precision.
    """

    hits: NDArray[np.bool_]
    precision: NDArray[np.float64]

    @property
    def recall_at_1(self) -> float:
        """The share of hits."""
        return float(self.hits.mean())


@dataclass(eq=False)
class Group:
    """Tasks with one train part, their cloud model, and what was found of it.

    Attributes:
        name: `grocery` or `furniture`.
        data: the data folder.
        out: where runs are kept.
    """

    name: str
    data: Path
    out: Path
    _datasets: dict[str, Dataset] = field(default_factory=dict)
    _vectors: dict[tuple[str, str, int], tuple[EmbeddingModel, Vectors]] = field(
        default_factory=dict
    )

    @property
    def tasks(self) -> list[Task]:
        return [t for t in TASKS if t.group == self.name]

    def dataset(self, task: str) -> Dataset:
        """What a task's manifest lists."""
        if task not in self._datasets:
            found = next(t for t in self.tasks if t.name == task)
            self._datasets[task] = Dataset.open(self.data / found.manifest)
        return self._datasets[task]

    @property
    def train_data(self) -> Dataset:
        return self.dataset(self.tasks[0].name)

    @cached_property
    def cloud(self) -> Checkpoint:
        """The cloud model, trained where it is not there yet."""
        folder = self.out / self.name / "cloud"
        if (folder / "checkpoint.json").exists():
            return Checkpoint.load(folder)
        return train_cloud(
            self.train_data,
            cloud_config(self.canvas, CLOUD_SEED),
            folder,
            deploy_size=CLOUD_SIZE,
            lda_head=True,
        )

    @cached_property
    def cloud_macs(self) -> int:
        return macs_of(self.cloud.model)

    @cached_property
    def canvas(self) -> int:
        """Side at which pictures are augmented: that of the pictures."""
        return canvas_for(self.train_data, CLOUD_SIZE)

    def measure(self, query: EmbeddingModel, gallery: EmbeddingModel, task: Task) -> Measured:
        """M(query, gallery) on a task's test part, with pictures resized as the models ask."""
        ranking = metrics.rank(
            self.embedded(query, task, "query"),
            self.embedded(gallery, task, "gallery"),
            *self.codes(task),
        )
        return Measured(ranking.hits(1), ranking.average_precision)

    def recall(
        self,
        query: EmbeddingModel,
        gallery: EmbeddingModel,
        task: Task,
        bank: Vectors | None = None,
        width: int | None = None,
    ) -> float:
        """R@1 with hub correction from a bank, or of vectors cut to their first coordinates."""
        q = self.embedded(query, task, "query")[:, :width]
        g = self.embedded(gallery, task, "gallery")[:, :width]
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        g = g / np.linalg.norm(g, axis=1, keepdims=True)
        scores = q @ g.T
        if bank is not None:
            scores = scores + metrics.hub_bias(g, bank)
        data = self.dataset(task.name)
        first = np.array([i.label for i in data.gallery])[scores.argmax(1)]
        return float((first == np.array([i.label for i in data.queries])).mean())

    def bank(self, model: EmbeddingModel) -> Vectors:
        """A query model's vectors of train pictures, for hub correction."""
        items = self.train_data.train
        some = [items[int(i)] for i in np.linspace(0, len(items) - 1, min(2000, len(items)))]
        cache = self.out / self.name / "test"
        pictures = decoded(self.train_data, some, model.config.resize, cache)
        vectors: Vectors = embed_pictures(model, pictures, torch.device("cpu")).numpy()
        return vectors

    def codes(self, task: Task) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Labels of a task's queries and gallery, as numbers."""
        data = self.dataset(task.name)
        names = sorted({i.label for i in (*data.queries, *data.gallery)})
        code = {n: i for i, n in enumerate(names)}
        sides = (data.queries, data.gallery)
        queries, gallery = (np.array([code[i.label] for i in s], np.int64) for s in sides)
        return queries, gallery

    def labels(self, task: Task) -> NDArray[np.int64]:
        names = [i.label for i in self.dataset(task.name).queries]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    def embedded(self, model: EmbeddingModel, task: Task, side: str) -> Vectors:
        """Unit vectors of a task's `query` or `gallery` pictures, by the model used last."""
        key = (task.name, side, id(model))
        if key in self._vectors:
            return self._vectors[key][1]
        cloud = self.cloud.model if "cloud" in self.__dict__ else None  # not to train it for this
        held = {id(model), id(cloud)}
        self._vectors = {k: v for k, v in self._vectors.items() if k[2] in held}
        data = self.dataset(task.name)
        items = data.queries if side == "query" else data.gallery
        pictures = decoded(data, items, model.config.resize, self.out / self.name / "test")
        vectors: Vectors = embed_pictures(model, pictures, torch.device("cpu")).numpy()
        # With the model itself: the next one must not get its id, and so its vectors.
        self._vectors[key] = (model, vectors)
        return vectors


CLOUD_SIZE = 160
"""Side of the pictures that the finished cloud model takes, in pixels."""


CLOUD_SEED = 0
"""Of the cloud model that makes the galleries."""


def cloud_config(canvas: int, seed: int) -> TrainConfig:
    """How the study's cloud models are trained: EfficientNet-Lite2 from ImageNet weights."""
    return TrainConfig(
        model=ModelConfig("lite2-trunk", 96),
        losses=(("cosface", 1.0),),
        init="imagenet",
        epochs=4,
        batch_size=64,
        lr=3e-3,
        backbone_lr=1 / 3,
        weight_decay=0.02,
        warmup=0.1,
        ema=0.0,
        views=6,
        canvas=canvas,
        val_share=0.0,
        seed=seed,
    )


def macs_of(model: EmbeddingModel) -> int:
    """Multiply-accumulates for one picture."""
    return macs(model, model.config.input_size)


@dataclass(frozen=True)
class Run:
    """One edge model of the study.

    Attributes:
        part: of the study.
        name: of the row.
        group: whose cloud model and train part.
        config: how it is trained.
        setting: `inductive`, `inductive + pool` or `gallery-aware`.
        alone: trained without the cloud model.
        deploy_size: side of the finished model's input where it is not that of the training.
        more: further columns of its rows.
    """

    part: str
    name: str
    group: str
    config: TrainConfig
    setting: str = "inductive"
    alone: bool = False
    deploy_size: int | None = None
    ridge: bool = True
    pool: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.part}/{self.group}/{self.name}/{self.setting}/{self.config.seed}"

    @property
    def safe(self) -> str:
        return self.key.replace("/", "~").replace(" ", "_")


class Log:
    """What the runs found, a line each; a run that stands there is not repeated.

    The hits of every query lie beside it, for paired comparisons later.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "runs.jsonl"
        self._hits = folder / "hits"
        self._hits.mkdir(parents=True, exist_ok=True)
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(x) for x in lines]

    def __contains__(self, run: Run) -> bool:
        return any(r["key"] == run.key for r in self.rows)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        with self._file.open("a") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
        self.rows += rows

    def keep(self, name: str, measured: Measured) -> None:
        np.savez(self._hits / f"{name}.npz", hits=measured.hits, precision=measured.precision)

    def hits(self, name: str) -> NDArray[np.bool_] | None:
        path = self._hits / f"{name}.npz"
        return np.load(path)["hits"] if path.exists() else None


def execute(run: Run, group: Group, log: Log, pool: Callable[[int], Dataset]) -> None:
    """Train a run, measure it on its group's tasks, and write the rows down."""
    if run in log:
        return
    folder = group.out / group.name / "edges" / run.safe
    if (folder / "checkpoint.json").exists():
        trained = Checkpoint.load(folder)
    elif run.alone:
        trained = train_cloud(
            group.train_data,
            run.config,
            folder,
            deploy_size=run.deploy_size,
            lda_head=True,
            role="edge",
        )
    else:
        trained = train_edge(
            group.train_data,
            run.config,
            group.cloud,
            folder,
            ridge_head=run.ridge,
            gallery_aware=run.setting == "gallery-aware",
            pool=pool(run.pool) if run.pool else None,
        )
    log_lines = (folder / "log.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in log_lines]
    seconds = sum(e["seconds"] for e in epochs)
    inside = sum(e.get("network_seconds", 0.0) for e in epochs)
    model = trained.model
    macs = macs_of(model)
    rows = []
    cloud = group.cloud.model
    gallery = model if run.alone else cloud
    bank = None if run.alone else group.bank(model)
    for task in group.tasks:
        homogeneous = group.measure(model, model, task)
        cross = homogeneous if run.alone else group.measure(model, gallery, task)
        log.keep(f"{run.safe}~{task.name}~self", homogeneous)
        log.keep(f"{run.safe}~{task.name}~cross", cross)
        interval = metrics.ClusterRobust(group.labels(task)).share(cross.hits)
        rows.append(
            {
                "key": run.key,
                "part": run.part,
                "name": run.name,
                "task": task.name,
                "setting": run.setting,
                "recall_at_1": cross.recall_at_1,
                "recall_at_1_ci": [interval.low, interval.high],
                "map": float(cross.precision.mean()),
                "homogeneous": homogeneous.recall_at_1,
                "naive": group.measure(model, cloud, task).recall_at_1 if run.alone else None,
                "corrected": None if bank is None else group.recall(model, gallery, task, bank),
                "at_64": group.recall(model, gallery, task, width=64),
                "at_32": group.recall(model, gallery, task, width=32),
                "mmacs_query": macs / 1e6,
                "cost_ratio": group.cloud_macs / macs,
                "backbone": model.config.backbone,
                "input_size": model.config.input_size,
                "parameters": sum(p.numel() for p in model.parameters()),
                "seconds": seconds,
                "network_share": inside / seconds if inside else None,
                "seed": run.config.seed,
                **run.more,
            }
        )
    log.add(rows)
    shown = ", ".join(f"{r['task']} {r['recall_at_1']:.3f} ({r['homogeneous']:.3f})" for r in rows)
    print(f"{run.key}: {macs / 1e6:.2f} MMACs, {shown}, {seconds:.0f} s", flush=True)
