"""What an edge model is taught with: pictures, views of them, and where the cloud model sees each.

Made once per plan of augmentation and kept, so that the second edge model of a cloud model starts
to learn at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samespace import Dataset, Item
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.closed_form import class_moments
from samespace_cloud.config import TrainConfig
from samespace_cloud.heads import anchors
from samespace_cloud.losses import LossContext
from samespace_cloud.material import Material, Progress, decoded_square, read_material
from samespace_cloud.teacher import Teacher, teacher_of
from samespace_cloud.trainer import best_device
from samespace_cloud.views import JoinedViews, Views, steadied
from samespace_edge import ConfigError

VIEWS = "views"
"""Folder, beside those of trainings, where views and what a teacher says of them are kept."""

_PIECE = 8
_POINTS_PER_CENTROID = 39


@dataclass
class Teaching:
    """Everything that an edge model learns from.

    Attributes:
        material: decoded pictures, labels, and those kept to validate on.
        views: views of the material, with what the teacher says of them.
        everything: the same, and views of the pictures without labels behind it.
        labels: int64, of `everything`; -1 for none.
        context: what losses are built from.
        val_gallery: the teacher's vectors (M, D) of the validation gallery.
        device: where to train.
        about: what decides over all of it, for a stopped training to notice a change.
    """

    material: Material
    views: Views
    everything: Views | JoinedViews
    labels: Tensor
    context: LossContext
    val_gallery: Tensor
    device: torch.device
    about: tuple[str, ...]


def prepare_teaching(
    dataset: Dataset,
    config: TrainConfig,
    cloud: Checkpoint | Teacher,
    folder: Path,
    *,
    sizes: Sequence[int] | None = None,
    unlabelled: Sequence[Item] = (),
    pool: Dataset | None = None,
    hold_out_unseen: bool = True,
    progress: Progress,
) -> Teaching:
    """Read, augment, and have the cloud model teach.

    Args:
        config: of the edge model's training.
        folder: of that training; what is kept for the next one lies beside it.
        sizes: sides of the inputs that are wanted; by default the edge model's.
        unlabelled: pictures of `dataset` that teach without labels, such as the gallery's.
        pool: any pictures at all, to teach without labels; its labels and roles do not count.
        hold_out_unseen: validate on the labels that the cloud model was not trained on, where
            there are any: on others it would know the answers. Not for its successor, which is to
            learn them.
    """
    teacher = teacher_of(cloud)
    if not teacher.embeds:
        raise ConfigError(
            f"{teacher.about}, say nothing of where other pictures lie; teach with a bundle of "
            "that model"
        )
    if not teacher.per_view and (config.mixed_views or pool is not None):
        raise ConfigError(
            f"{teacher.about} say nothing of blends or of other pictures: set mixed_views to 0, "
            "leave the pool out, or teach with a bundle of that model"
        )
    seen = teacher.labels if hold_out_unseen else ()
    material = read_material(dataset, config, folder, progress, seen)
    sides = tuple(sizes or [config.model.input_size])
    make = _Maker(config, teacher, folder, sides, progress)
    views = make(material.holdout.train, material.pictures, config.views, config.mixed_views)
    context = _context(config, teacher, material, views)
    parts, about = [views], [material.digest, teacher.key]
    if unlabelled:
        pictures = decoded_square(dataset, unlabelled, config, folder, progress)
        parts.append(make(unlabelled, pictures, config.views, config.mixed_views))
        # A query will be ranked against these: so are they in teaching.
        told = parts[-1].taught
        assert told is not None
        assert context.anchors is not None
        context = replace(context, anchors=torch.cat([context.anchors, told[0]]))
        about.append(dataset.sha256(unlabelled))
    if pool is not None:
        pictures = decoded_square(pool, pool.items, config, folder, progress)
        parts.append(make(pool.items, pictures, config.pool_views))
        about.append(pool.sha256(pool.items))
    for part in parts:
        labels = material.labels if part is views else torch.full((len(part),), -1)
        assert part.taught is not None
        part.taught = steadied(part.taught, labels, part.plain, config.steady)
    everything = JoinedViews(parts) if len(parts) > 1 else views
    labels = torch.cat([material.labels, torch.full((sum(map(len, parts[1:])),), -1)])
    val_gallery = teacher.vectors_of(material.holdout.gallery, material.val_gallery)
    return Teaching(
        material, views, everything, labels, context, val_gallery, best_device(), tuple(about)
    )


@dataclass
class _Maker:
    """Makes views of pictures, with what the teacher says of them, or finds them made."""

    config: TrainConfig
    teacher: Teacher
    folder: Path
    sides: Sequence[int]
    progress: Progress

    def __call__(
        self, items: Sequence[Item], pictures: NDArray[np.uint8], count: int, mixed: int = 0
    ) -> Views:
        config = self.config
        cache = self.folder.parent / VIEWS
        self.teacher.about_to_teach(items, count, cache)
        views = Views(
            pictures, config.augmentation, self.sides, count, config.augmentation_seed, mixed
        )
        title = "views of the cloud model"
        views.prepare(lambda done, total: self.progress(title, done, total), self.teacher, cache)
        assert views.taught is not None
        if config.teacher_view == "clean":
            views.taught = views.taught[:1].expand_as(views.taught)
        return views


def _context(
    config: TrainConfig, teacher: Teacher, material: Material, views: Views
) -> LossContext:
    assert views.taught is not None
    plain = views.taught[: views.plain]
    labels = material.labels
    centroids, variances = class_moments(
        plain.flatten(0, 1), labels.repeat(views.plain), len(material.names)
    )
    wants_codebook = any(name == "codebook" for name, _ in config.losses)
    return LossContext(
        classes=len(material.names),
        dim=config.model.dim,
        cloud_classifier=_classifier(teacher, material.names),
        anchors=anchors(views.taught, labels, views.plain),
        centroids=centroids,
        variances=variances,
        codebook=learn_codebook(plain.flatten(0, 1), config.seed) if wants_codebook else None,
        scale=config.scale,
        margin=config.margin,
    )


def learn_codebook(vectors: Tensor, seed: int, piece: int = _PIECE) -> Tensor:
    """A product quantiser of unit vectors (Jégou et al. 2011): centroids (D / piece, K, piece).

    K is 256, or what the number of vectors allows.

    Args:
        vectors: float32 (N, D).
        seed: of k-means.
        piece: coordinates in a piece; it has to divide D.
    """
    import faiss

    count, dim = vectors.shape
    if dim % piece:
        raise ConfigError(f"the codebook loss cuts vectors in pieces of {piece}; {dim} is none")
    bits = max(1, min(8, (count // _POINTS_PER_CENTROID).bit_length() - 1))
    quantiser = faiss.ProductQuantizer(dim, dim // piece, bits)
    quantiser.cp.seed = seed
    quantiser.train(vectors.numpy())
    centroids = torch.from_numpy(faiss.vector_to_array(quantiser.centroids).copy())
    return centroids.view(dim // piece, 1 << bits, piece)


def _classifier(teacher: Teacher, names: Sequence[str]) -> Tensor | None:
    """The cloud's classifier in the order of `names`, if it knows them all."""
    if teacher.classifier is None:
        return None
    place = {name: i for i, name in enumerate(teacher.labels)}
    if any(name not in place for name in names):
        return None
    return F.normalize(teacher.classifier[[place[name] for name in names]])
