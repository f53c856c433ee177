"""The old classifier, frozen, for a model that learns to live in the old one's space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.closed_form import class_centres
from samespace_cloud.config import TrainConfig
from samespace_cloud.material import Material, Progress
from samespace_cloud.teacher import Teacher
from samespace_cloud.teaching import VIEWS
from samespace_cloud.views import Views
from samespace_edge import ConfigError

Rows = Literal["old", "means"]


@dataclass(frozen=True)
class FrozenRows:
    """What the old model says of the labels.

    Attributes:
        classifier: unit rows (C, D) in the order of the training labels; zeros where it says
            nothing.
        others: unit rows (M, D) of labels that the training does not have; None without any.
        kept, synthesised, unknown: how many training labels have a row of the old classifier, one
            made of the old model's vectors, and none.
    """

    classifier: Tensor
    others: Tensor | None
    kept: int
    synthesised: int
    unknown: int

    def __str__(self) -> str:
        return (
            f"{self.kept} rows of its own, {self.synthesised} synthesised, "
            f"{self.unknown} labels without"
        )


def frozen_rows(
    old: Teacher,
    rows: Rows,
    material: Material,
    taught: Tensor | None,
    config: TrainConfig,
    folder: Path,
    progress: Progress,
) -> FrozenRows:
    """A row for every training label that the old model can say anything of.

    A label that the old classifier does not know gets the mean of the old model's vectors of its
    pictures (BCT, Shen et al. 2020, section 3.3).

    Args:
        rows: `old` takes the old classifier's rows where there are any; `means` synthesises all,
            so that all are of one kind.
        taught: the old model's vectors (V, N, D) of the views, if they are there already.
        folder: of the training; what is embedded for the rows is kept beside it.

    Raises `ConfigError` where it can say nothing of any.
    """
    given, known = old.classifier, old.labels
    if given is None or (rows == "means" and old.embeds):
        given, known = torch.empty(0, old.dim), ()
    place = {name: i for i, name in enumerate(known)}
    found = torch.zeros(len(material.names), old.dim)
    kept = [i for i, name in enumerate(material.names) if name in place]
    found[kept] = F.normalize(given[[place[material.names[i]] for i in kept]])
    lacking = [i for i, name in enumerate(material.names) if name not in place]
    if lacking and old.embeds:
        found[lacking] = _means(old, lacking, material, taught, config, folder, progress)
    elif not kept:
        raise ConfigError(
            f"none of the {len(known)} labels of {old.about}, such as {known[0]!r}, is one of the "
            f"{len(material.names)} train labels, such as {material.names[0]!r}: there is nothing "
            "to be compatible with. Name the labels alike, or give a bundle of the old model"
        )
    others = [i for name, i in place.items() if name not in set(material.names)]
    return FrozenRows(
        found,
        F.normalize(given[others]) if others else None,
        len(kept),
        len(lacking) if old.embeds else 0,
        0 if old.embeds else len(lacking),
    )


def _means(
    old: Teacher,
    labels: list[int],
    material: Material,
    taught: Tensor | None,
    config: TrainConfig,
    folder: Path,
    progress: Progress,
) -> Tensor:
    """Unit means of what the old model makes of the unchanged pictures of `labels`."""
    where = torch.isin(material.labels, torch.tensor(labels)).nonzero()[:, 0]
    if taught is not None:
        vectors = taught[0][where]
    else:
        old.about_to_teach([material.holdout.train[i] for i in where.tolist()])
        # A single view, the picture as it is, and no input for the new model.
        pictures = material.pictures[where.numpy()]
        views = Views(pictures, config.augmentation, (), 1, config.augmentation_seed)
        title = "labels that the old classifier lacks"
        views.prepare(lambda done, total: progress(title, done, total), old, folder.parent / VIEWS)
        assert views.taught is not None
        vectors = views.taught[0]
    return class_centres(vectors, material.labels[where], len(material.names))[labels]
