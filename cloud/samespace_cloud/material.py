"""What a training works on: decoded pictures, their labels, and those kept to validate on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samespace import Dataset, Item, metrics
from samespace_cloud.config import TrainConfig
from samespace_cloud.frozen_network import embed_pictures
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.pictures import Holdout, decoded, hold_out, hold_out_labels
from samespace_cloud.views import device_of
from samespace_edge import ConfigError, Resize

_CACHE = "decoded"

Progress = Callable[[str, int, int], None]


@dataclass
class Material:
    """Decoded pictures of a training and of its validation.

    Attributes:
        names: the train labels; `labels` are positions in it.
        pictures: uint8 RGB (N, S, S, 3), in the order of `labels`.
        val_queries, val_gallery: likewise, of labels never trained on.
        digest: hash of all of it.
    """

    holdout: Holdout
    names: tuple[str, ...]
    labels: Tensor
    pictures: NDArray[np.uint8]
    val_queries: NDArray[np.uint8]
    val_gallery: NDArray[np.uint8]
    digest: str

    def ranking(self, queries: Tensor, gallery: Tensor) -> metrics.Ranking:
        """How validation queries rank the validation gallery."""
        names = sorted({i.label for i in self.holdout.queries + self.holdout.gallery})
        code = {n: i for i, n in enumerate(names)}
        return metrics.rank(
            queries.numpy(),
            gallery.numpy(),
            np.array([code[i.label] for i in self.holdout.queries], np.int64),
            np.array([code[i.label] for i in self.holdout.gallery], np.int64),
        )


def read_material(
    dataset: Dataset,
    config: TrainConfig,
    folder: Path,
    progress: Progress,
    cloud_labels: Sequence[str] = (),
) -> Material:
    """Decode what `dataset` gives to train and validate on.

    Decoded pictures are kept beside `folder`, for the next training on the same data.

    Args:
        cloud_labels: what an edge model's cloud model was trained on: its validation labels are
            then the edge model's too, since on others the cloud would know the answers.
    """
    holdout = _holdout(dataset, config, cloud_labels)
    if not holdout.train:
        raise ConfigError(f"{dataset.source} leaves nothing to train on")
    names = tuple(sorted({i.label for i in holdout.train}))
    code = {n: i for i, n in enumerate(names)}
    labels = [code[i.label] for i in holdout.train]

    def read(items: Sequence[Item]) -> NDArray[np.uint8]:
        return decoded_square(dataset, items, config, folder, progress)

    pictures = read(holdout.train)
    used = (*holdout.train, *holdout.queries, *holdout.gallery)
    return Material(
        holdout,
        names,
        torch.tensor(labels),
        pictures,
        read(holdout.queries),
        read(holdout.gallery),
        dataset.sha256(used),
    )


def decoded_square(
    dataset: Dataset, items: Sequence[Item], config: TrainConfig, folder: Path, progress: Progress
) -> NDArray[np.uint8]:
    """Pictures as a training sees them, uint8 RGB (N, canvas, canvas, 3), kept beside `folder`."""
    canvas = Resize(config.canvas, config.canvas, config.model.policy)  # type: ignore[arg-type]
    return decoded(
        dataset,
        items,
        canvas,
        folder.parent / _CACHE,
        lambda done, total: progress("decode", done, total),
    )


def _holdout(dataset: Dataset, config: TrainConfig, cloud_labels: Sequence[str]) -> Holdout:
    if dataset.val:
        held = hold_out_labels(dataset.val, {i.label for i in dataset.val})
        return Holdout(dataset.train, held.queries, held.gallery)
    unseen = {i.label for i in dataset.train} - set(cloud_labels)
    if cloud_labels and unseen and config.val_share > 0:
        return hold_out_labels(dataset.train, unseen)
    return hold_out(dataset.train, config.val_share, config.seed)


def homogeneous(model: EmbeddingModel, material: Material) -> dict[str, float]:
    """Validation figures with `model` on both sides."""
    device = device_of(model)
    ranking = material.ranking(
        embed_pictures(model, material.val_queries, device),
        embed_pictures(model, material.val_gallery, device),
    )
    return {"recall_at_1": ranking.recall_at(1), "map": ranking.mean_average_precision}
