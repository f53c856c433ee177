"""Training a new cloud model whose vectors search the gallery that an old one made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from samespace import Dataset
from samespace_cloud.card import card_of
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.closed_form import class_centres
from samespace_cloud.config import TrainConfig
from samespace_cloud.frozen import Rows, frozen_rows
from samespace_cloud.frozen_network import embed_pictures
from samespace_cloud.heads import start_classifier, start_head
from samespace_cloud.losses import LossContext, loss_class
from samespace_cloud.material import Progress, read_material
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.processor import kept_memory
from samespace_cloud.start import new_model
from samespace_cloud.students import Students, Successor, of_its_own
from samespace_cloud.teacher import Teacher, teacher_of
from samespace_cloud.teaching import Teaching, prepare_teaching
from samespace_cloud.trainer import Trainer, best_device
from samespace_cloud.views import Views, device_of
from samespace_edge import ConfigError


@kept_memory()
def train_upgrade(
    dataset: Dataset,
    config: TrainConfig,
    old: Checkpoint | Teacher,
    folder: str | Path,
    *,
    rows: Rows = "old",
    gallery_aware: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Checkpoint:
    """Train a cloud model into the space of the one that it replaces.

    With n the new embedding and w the new classifier, both made unit, and w_old the old
    classifier, frozen, the default is L = cosface(n, w) + influence * cosface(n[:D_old], w_old)
    (BCT, Shen et al. 2020, section 3.2); n[:D_old] is made unit again.

    Args:
        dataset: its train part is used.
        config: how. Its head starts as the ridge regression, on its features, of the old model's
            vectors where a loss looks at them, or else of the old classifier's rows: from a head
            at random, what is learnt of the old space holds worse for new labels.
            `frozen-classifier` among its losses is the influence term. Where no loss
            looks at the old model's vectors, the old model embeds nothing but the validation
            gallery, and the pictures of labels that its classifier lacks. `init='cloud'` starts
            from the old model's weights.
        old: the model that made the gallery: a checkpoint, a bundle (`BundleTeacher`) or vectors
            with labels (`LabelledVectors`).
        folder: for checkpoint, log and what a stopped training resumes from.
        rows: see `samespace_cloud.frozen.frozen_rows`.
        gallery_aware: also learn where the old model sees the gallery's pictures, without their
            labels: whoever has its vectors has those. Losses that look at old vectors learn from
            them. Report it as a setting of its own.
        progress: is told the stage and how much of how much is done.

    Returns the checkpoint, which is also written to `folder`. As wide as the old model, it lives
    in the old space. Wider, it anchors a space of its own, and `Checkpoint.prefix` cuts it to
    what lives in the old one. Raises `ConfigError` for a narrower one, and for losses that tie it
    to nothing.
    """
    folder = Path(folder)
    teacher = teacher_of(old)
    _check(config, teacher, gallery_aware)
    model, warm = _begin(config, teacher)
    teaching = _prepare(dataset, config, teacher, folder, gallery_aware, progress)
    material, views = teaching.material, teaching.views
    frozen = frozen_rows(teacher, rows, material, views.taught, config, folder, progress)
    held = replace(
        teaching.context,
        dim=teacher.dim,
        cloud_classifier=frozen.classifier,
        other_classes=frozen.others,
    )
    students = Successor(model, config.losses, teaching.context, held, config.nested)
    if not warm:
        rows_of_labels = frozen.classifier[material.labels]
        start_head(model, views, progress, None if views.taught is not None else rows_of_labels)
    start_classifier(students, views, material, progress)

    def validate(averaged: Students) -> Mapping[str, float]:
        return _measured(averaged.model("model"), teaching, teacher)

    trainer = Trainer(
        students,
        teaching.everything,
        teaching.labels,
        config,
        folder,
        validate if material.holdout.queries else None,
        title=f"train {folder.name}",
        about=(*teaching.about, rows),
    )
    kept = trainer.run(progress)
    assert isinstance(kept, Successor)
    trained = kept.finished()
    classifier = kept.classifier()
    if classifier is None:
        vectors = embed_pictures(trained, material.pictures, best_device())
        classifier = class_centres(vectors, material.labels, len(material.names))
    wider = config.model.dim > teacher.dim
    notes = {
        "compatible with": f"{teacher.fingerprint.short}…, {teacher.about}"
        + (f", by its first {teacher.dim} numbers" if wider else ""),
        "old classifier": str(frozen),
    }
    if gallery_aware:
        notes["gallery-aware"] = (
            "yes: it was also taught with the gallery's pictures, without labels"
        )
    if config.init == "cloud":
        notes["started"] = "from the old model's own weights"
    checkpoint = Checkpoint(
        model=trained,
        role="cloud",
        space=None if wider else teacher.space,
        labels=material.names,
        classifier=classifier,
        metrics=trainer.metrics,
        card=card_of(config, material, notes),
        shorter={teacher.dim: teacher.space} if wider else {},
    )
    checkpoint.save(folder)
    trainer.finish()
    return checkpoint


def _check(config: TrainConfig, old: Teacher, gallery_aware: bool) -> None:
    """Refuse what cannot end in the old model's space, and settings that would be ignored."""
    dim = config.model.dim
    if dim < old.dim:
        raise ConfigError(
            f"the new model's dim {dim} is below the old one's {old.dim}: vectors that search its "
            f"gallery need as many numbers. Set dim to {old.dim} or more"
        )
    names = [name for name, _ in config.losses]
    if not any(loss_class(name).anchored for name in names):
        raise ConfigError(
            f"no loss of {', '.join(names)} ties the new model to the old one's space; add "
            "frozen-classifier"
        )
    if dim > old.dim and not any(map(of_its_own, names)):
        raise ConfigError(
            f"the numbers beyond the old model's {old.dim} would learn nothing; add a loss of the "
            "new model's own, such as cosface"
        )
    if config.int8:
        raise ConfigError("int8 is for fine-tuning an edge model: train_edge")
    taught = [name for name in names if loss_class(name).taught]
    if not taught and (config.mixed_views or config.steady or config.teacher_view != "same"):
        raise ConfigError(
            "mixed_views, steady and teacher_view are for losses that look at the old model's "
            f"vectors; {', '.join(names)} do not"
        )
    if gallery_aware and not taught:
        raise ConfigError(
            "the gallery's pictures teach without labels, through losses that look at the old "
            f"model's vectors; {', '.join(names)} do not. Add cosine-regression"
        )
    if taught and not old.embeds:
        raise ConfigError(
            f"{', '.join(taught)}: {old.about}, say nothing of where other pictures lie; leave it "
            "out, or give a bundle of the old model"
        )


def _begin(config: TrainConfig, old: Teacher) -> tuple[EmbeddingModel, bool]:
    """The model to begin with, and whether it has the old head: with `init='cloud'` and the old
    backbone."""
    model = new_model(config, old.model)
    if config.init != "cloud" or old.model is None:
        return model, False
    given = old.model.config
    same = (given.backbone, given.folded) == (config.model.backbone, config.model.folded)
    if same:
        with torch.no_grad():
            model.embed.weight[: old.dim].copy_(old.model.embed.weight)
            model.embed.bias[: old.dim].copy_(old.model.embed.bias)
    return model, same


def _prepare(
    dataset: Dataset,
    config: TrainConfig,
    old: Teacher,
    folder: Path,
    gallery_aware: bool,
    progress: Progress,
) -> Teaching:
    """What is learnt from. The old model embeds the views only where a loss looks at that."""
    if any(loss_class(name).taught for name, _ in config.losses):
        return prepare_teaching(
            dataset,
            config,
            old,
            folder,
            unlabelled=dataset.gallery if gallery_aware else (),
            hold_out_unseen=False,
            progress=progress,
        )
    material = read_material(dataset, config, folder, progress)
    size, seed = config.model.input_size, config.augmentation_seed
    views = Views(material.pictures, config.augmentation, [size], config.views, seed)
    views.prepare(lambda done, total: progress("augment", done, total))
    context = LossContext(
        len(material.names), config.model.dim, scale=config.scale, margin=config.margin
    )
    gallery = torch.empty(0, old.dim)
    if old.embeds:
        gallery = old.vectors_of(material.holdout.gallery, material.val_gallery)
    about = (material.digest, old.key)
    return Teaching(material, views, views, material.labels, context, gallery, best_device(), about)


def _measured(model: EmbeddingModel, teaching: Teaching, old: Teacher) -> dict[str, float]:
    """Validation figures: in its own gallery and, where there is one, in the old model's."""
    material, device = teaching.material, device_of(model)
    queries = embed_pictures(model, material.val_queries, device)
    own = material.ranking(queries, embed_pictures(model, material.val_gallery, device))
    found = {"recall_at_1": own.recall_at(1), "map": own.mean_average_precision}
    if not len(teaching.val_gallery):
        return {"score": found["map"], **found}
    cross = material.ranking(F.normalize(queries[:, : old.dim]), teaching.val_gallery)
    return {
        "score": cross.mean_average_precision + own.mean_average_precision,
        **found,
        "old_gallery_recall_at_1": cross.recall_at(1),
        "old_gallery_map": cross.mean_average_precision,
    }


__all__ = ["train_upgrade"]
