"""The trainings: a cloud model, an edge model in its space, and both together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from samespace import Dataset
from samespace_cloud.card import card_of
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.closed_form import class_centres
from samespace_cloud.config import TrainConfig
from samespace_cloud.frozen_network import FrozenNetwork, embed_pictures
from samespace_cloud.heads import refit, start_classifier, start_head
from samespace_cloud.losses import LOSSES, LossContext
from samespace_cloud.material import Material, Progress, homogeneous, read_material
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.processor import kept_memory
from samespace_cloud.quantized import Int8Student, equalise, fold
from samespace_cloud.start import new_model, started
from samespace_cloud.students import CoTraining, Solo, Students
from samespace_cloud.teacher import Teacher, teacher_of
from samespace_cloud.teaching import VIEWS, prepare_teaching
from samespace_cloud.trainer import Trainer, Validate, best_device
from samespace_cloud.views import Views, device_of, normalised, resized
from samespace_edge import ConfigError


def _silent(stage: str, done: int, total: int) -> None:
    return None


@kept_memory()
def train_cloud(
    dataset: Dataset,
    config: TrainConfig,
    folder: str | Path,
    *,
    deploy_size: int | None = None,
    lda_head: bool = False,
    lda_prior: float = 0.0,
    role: str = "cloud",
    progress: Progress = _silent,
) -> Checkpoint:
    """Train a model that anchors a space of its own.

    Args:
        dataset: its train part is used.
        config: how; every loss has to learn from labels alone.
        folder: for checkpoint, log and what a stopped training resumes from.
        deploy_size: side of the input that the finished model takes, where it is another than
            the training's. Larger pictures cost nothing in training and help in search
            (Touvron et al. 2019); the head is then fitted again, so `lda_head` is needed.
        lda_head: replace the embedding head by discriminant directions of the trained features.
        lda_prior: see `samespace_cloud.closed_form.fit_lda`.
        role: `edge` for a small model trained alone.
        progress: is told the stage and how much of how much is done.

    Returns the checkpoint, which is also written to `folder`.
    """
    folder = Path(folder)
    if lda_prior and not lda_head:
        raise ConfigError("a prior of discriminant directions needs lda_head")
    if deploy_size not in (None, config.model.input_size) and not lda_head:
        raise ConfigError("a model deployed at another size than it was trained at needs lda_head")
    _need_no_teacher(config)
    material = read_material(dataset, config, folder, progress)
    model = new_model(config)
    context = LossContext(
        len(material.names), config.model.dim, scale=config.scale, margin=config.margin
    )
    students = Solo(model, config.losses, context, config.nested)
    views = _views(material, config, students, progress)
    start_classifier(students, views, material, progress)

    def validate(averaged: Students) -> Mapping[str, float]:
        found = homogeneous(averaged.model("model"), material)
        return {"score": found["map"], **found}

    trainer = _trainer(students, views, material, config, folder, validate)
    kept = trainer.run(progress)
    assert isinstance(kept, Solo)
    trained = kept.model("model")
    trained_metrics = trainer.metrics
    network: FrozenNetwork | None = None
    if lda_head:
        size = deploy_size or config.model.input_size
        cache = folder.parent / VIEWS
        trained, vectors, network = refit(
            trained, material, config, size, progress, lda_prior, cache
        )
        if len(material.holdout.queries):
            trained_metrics = homogeneous(trained, material)
    classifier = kept.classifier()
    if classifier is None or lda_head:
        if network is None:
            vectors = embed_pictures(trained, material.pictures, best_device())
        classifier = class_centres(vectors, material.labels, len(material.names))
    checkpoint = Checkpoint(
        model=trained,
        role=role,
        labels=material.names,
        classifier=classifier,
        metrics=trained_metrics,
        card=card_of(config, material, {"head": "discriminant" if lda_head else "trained"}),
    )
    checkpoint.frozen = network
    checkpoint.save(folder)
    trainer.finish()
    return checkpoint


@kept_memory()
def train_edge(
    dataset: Dataset,
    config: TrainConfig,
    cloud: Checkpoint | Teacher,
    folder: str | Path,
    *,
    start: Checkpoint | None = None,
    gallery_aware: bool = False,
    pool: Dataset | None = None,
    ridge_head: bool = False,
    progress: Progress = _silent,
) -> Checkpoint:
    """Train a model into a cloud model's space.

    Args:
        dataset: its train part is used.
        config: how. A warning is given where no loss is anchored in the cloud's space.
        cloud: the model whose space it is; it stays as it is.
        folder: for checkpoint, log and what a stopped training resumes from.
        start: an edge model of this space to go on from; `config.init` does not count then.
        gallery_aware: also learn from the test gallery's pictures, without their labels. Their
            owner always has them; report it as a setting of its own.
        pool: pictures of anything, to teach with besides; their labels are not read.
        ridge_head: start the head from the regression of the cloud's vectors on the features.
        progress: is told the stage and how much of how much is done.

    Returns the checkpoint, which is also written to `folder`.
    """
    folder = Path(folder)
    teacher = teacher_of(cloud)
    if config.model.dim != teacher.dim:
        raise ConfigError(
            f"the edge model's dim {config.model.dim} is not the cloud's {teacher.dim}"
        )
    model = started(config, teacher, start)
    teaching = prepare_teaching(
        dataset,
        config,
        teacher,
        folder,
        unlabelled=dataset.gallery if gallery_aware else (),
        pool=pool,
        progress=progress,
    )
    material = teaching.material
    if config.int8:
        prepared = equalise(fold(model), _sample(material, model))
        students: Solo = Int8Student(prepared, config.losses, teaching.context, config.int8)
    else:
        students = Solo(model, config.losses, teaching.context, config.nested)
    if not students.anchored:
        names = ", ".join(name for name, _ in config.losses)
        warnings.warn(
            f"no loss of {names} ties the edge model to the cloud's space: trained like this, "
            "its vectors mean nothing in the cloud's gallery. Add cosine-regression.",
            stacklevel=2,
        )
    if ridge_head:
        start_head(model, teaching.views, progress)

    def validate(averaged: Students) -> Mapping[str, float]:
        student = averaged.model("model")
        queries = embed_pictures(student, material.val_queries, device_of(student))
        ranking = material.ranking(queries, teaching.val_gallery)
        return {
            "score": ranking.mean_average_precision,
            "recall_at_1": ranking.recall_at(1),
            "map": ranking.mean_average_precision,
        }

    trainer = Trainer(
        students,
        teaching.everything,
        teaching.labels,
        config,
        folder,
        validate if material.holdout.queries else None,
        title=f"train {folder.name}",
        about=(*teaching.about, str(ridge_head), str(start and start.fingerprint)),
    )
    kept = trainer.run(progress)
    assert isinstance(kept, Solo)
    notes = {
        "taught by": f"{teacher.fingerprint.short}…, {teacher.about}",
        "gallery-aware": "yes: it was also taught with the gallery's pictures, without labels"
        if gallery_aware
        else "no",
    }
    if pool is not None:
        notes["unlabelled pool"] = f"{len(pool.items)} pictures of {pool.name}"
    if config.nested:
        notes["nested widths"] = ", ".join(map(str, config.nested))
    if start:
        notes["went on from"] = f"{start.fingerprint.short}…"
    if config.int8:
        notes["fine-tuned for int8"] = "its weights lie on the int8 grid"
    checkpoint = Checkpoint(
        model=kept.finished(),
        role="edge",
        space=teacher.space,
        labels=material.names,
        classifier=kept.classifier(),
        metrics=trainer.metrics,
        card=card_of(config, material, notes),
    )
    checkpoint.save(folder)
    trainer.finish()
    return checkpoint


def _sample(material: Material, model: EmbeddingModel, count: int = 512) -> Tensor:
    """Normalised pictures from all over the material, to measure ranges on."""
    pictures = torch.from_numpy(material.pictures[:: max(1, len(material.pictures) // count)])
    size = model.config.input_size
    return normalised(resized(pictures.permute(0, 3, 1, 2), size), model, torch.device("cpu"))


@kept_memory()
def train_together(
    dataset: Dataset,
    config: TrainConfig,
    edge: TrainConfig,
    folder: str | Path,
    *,
    progress: Progress = _silent,
) -> tuple[Checkpoint, Checkpoint]:
    """Train a cloud and an edge model together, under one classifier and an alignment term.

    Args:
        dataset: its train part is used.
        config: how, and the cloud model; its first loss gives the shared classifier.
        edge: the edge model and where it starts; the rest of it is not read.
        folder: `cloud` and `edge` inside it take the checkpoints.
        progress: is told the stage and how much of how much is done.

    Returns the checkpoints of cloud and edge, which are also written.
    """
    folder = Path(folder)
    _need_no_teacher(config)
    if len(config.losses) != 1:
        raise ConfigError("co-training takes one loss, whose classifier both models share")
    material = read_material(dataset, config, folder, progress)
    cloud_model = new_model(config)
    edge_model = new_model(edge, cloud_model)
    context = LossContext(
        len(material.names), config.model.dim, scale=config.scale, margin=config.margin
    )
    students = CoTraining(
        cloud_model,
        edge_model,
        config.losses[0],
        context,
        config.align,
        config.align_from,
        config.protect,
    )
    views = _views(material, config, students, progress)

    def validate(averaged: Students) -> Mapping[str, float]:
        cloud, small = averaged.model("cloud"), averaged.model("edge")
        gallery = embed_pictures(cloud, material.val_gallery, device_of(cloud))
        cross = material.ranking(
            embed_pictures(small, material.val_queries, device_of(small)), gallery
        )
        paragon = material.ranking(
            embed_pictures(cloud, material.val_queries, device_of(cloud)), gallery
        )
        return {
            "score": cross.mean_average_precision + paragon.mean_average_precision,
            "recall_at_1": cross.recall_at(1),
            "map": cross.mean_average_precision,
            "paragon_recall_at_1": paragon.recall_at(1),
        }

    trainer = _trainer(students, views, material, config, folder, validate, (str(edge.to_json()),))
    kept = trainer.run(progress)
    assert isinstance(kept, CoTraining)
    anchor = Checkpoint(
        model=kept.model("cloud"),
        role="cloud",
        labels=material.names,
        classifier=kept.classifier(),
        metrics=trainer.metrics,
        card=card_of(config, material, {"co-trained with": edge.model.architecture}),
    )
    follower = Checkpoint(
        model=kept.model("edge"),
        role="edge",
        space=anchor.fingerprint,
        labels=material.names,
        classifier=kept.classifier(),
        metrics=trainer.metrics,
        card=card_of(
            replace(config, model=edge.model, init=edge.init),
            material,
            {"co-trained with": config.model.architecture},
        ),
    )
    anchor.save(folder / "cloud")
    follower.save(folder / "edge")
    trainer.finish()
    return anchor, follower


def _views(
    material: Material, config: TrainConfig, students: Students, progress: Progress
) -> Views:
    """Views for models that learn from labels alone."""
    seed = config.augmentation_seed
    views = Views(material.pictures, config.augmentation, students.sizes, config.views, seed)
    views.prepare(lambda done, total: progress("augment", done, total))
    return views


def _trainer(
    students: Students,
    views: Views,
    material: Material,
    config: TrainConfig,
    folder: Path,
    validate: Validate,
    about: Sequence[str] = (),
) -> Trainer:
    return Trainer(
        students,
        views,
        material.labels,
        config,
        folder,
        validate if material.holdout.queries else None,
        title=f"train {folder.name}",
        about=(material.digest, *about),
    )


def _need_no_teacher(config: TrainConfig) -> None:
    """Refuse settings that a training from labels alone would have to ignore."""
    for name, _ in config.losses:
        if name in LOSSES and LOSSES[name].anchored:
            raise ConfigError(
                f"the loss {name!r} needs a cloud model; use train_edge or train_upgrade"
            )
    if config.mixed_views or config.steady or config.teacher_view != "same":
        raise ConfigError(
            "mixed_views, steady and teacher_view are for learning from a cloud model: train_edge"
        )


__all__ = ["new_model", "train_cloud", "train_edge", "train_together"]
