"""Heads and classifiers that are set in one step, before or after a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from samespace_cloud.closed_form import class_centres, fit_lda, fit_ridge
from samespace_cloud.config import TrainConfig
from samespace_cloud.frozen_network import FrozenNetwork, features, frozen, unit_vectors
from samespace_cloud.material import Material, Progress
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.students import Solo
from samespace_cloud.trainer import best_device
from samespace_cloud.views import Views

_HEAD_VIEWS = 3


@torch.no_grad()
def start_classifier(students: Solo, views: Views, material: Material, progress: Progress) -> None:
    """A classifier starts at its labels' centres: from anywhere else the first steps would tear
    up what the backbone knows already."""
    model = students.model("model")
    inputs = views.inputs[model.config.input_size][0]
    progress("start the classifier", 0, 1)
    vectors = unit_vectors(model, features(model, inputs, best_device()))
    for loss in students.losses:
        weight = getattr(loss, "classifier", None)
        if isinstance(weight, nn.Parameter):
            weight.copy_(class_centres(vectors, material.labels, len(material.names)))
    progress("start the classifier", 1, 1)


class Refitted(NamedTuple):
    """A model with its new head, unit vectors (N, D) of the train pictures, and its backbone."""

    model: EmbeddingModel
    vectors: Tensor
    network: FrozenNetwork


@torch.no_grad()
def refit(
    model: EmbeddingModel,
    material: Material,
    config: TrainConfig,
    size: int,
    progress: Progress,
    prior: float = 0.0,
    cache: Path | None = None,
) -> Refitted:
    """Give the same backbone, at another input size, a discriminant head.

    Args:
        cache: see `FrozenNetwork`.
    """
    sized = EmbeddingModel(replace(config.model, input_size=size)).eval()
    sized.load_state_dict(model.state_dict())
    network = frozen(sized, best_device(), cache)
    count = min(_HEAD_VIEWS, config.views)
    views = Views(material.pictures, config.augmentation, [size], count, config.seed)
    found: list[Tensor] = []
    total = count * len(views)
    progress("fit the head", 0, total)
    for number in range(count):
        start = 0
        while start < len(views):
            made = views.make(number, start)
            found.append(network.features(made, total))
            start += len(made)
            progress("fit the head", number * len(views) + start, total)
    labels = material.labels.repeat(count)
    weight, bias = fit_lda(torch.cat(found), labels, config.model.dim, prior=prior)
    sized.embed.weight.copy_(weight)
    sized.embed.bias.copy_(bias)
    # View 0 is the picture as it is.
    vectors = unit_vectors(sized, torch.cat(found)[: len(views)])
    return Refitted(sized, vectors, network)


@torch.no_grad()
def start_head(
    model: EmbeddingModel, views: Views, progress: Progress, targets: Tensor | None = None
) -> None:
    """Begin with the head that comes nearest to another model's vectors, given the features.

    Args:
        model: where it is wider than those vectors, its leading coordinates.
        targets: (N, D) of the pictures, zeros for those without; by default what `views` teaches.
    """
    count = min(2, views.plain)
    inputs = views.inputs[model.config.input_size]
    progress("start the head", 0, 1)
    x = features(model, inputs[:count].flatten(0, 1), best_device())
    if targets is None:
        assert views.taught is not None
        y = views.taught[:count].flatten(0, 1)
    else:
        y = targets.repeat(count, 1)
    told = y.any(dim=1)
    weight, bias = fit_ridge(x[told], y[told])
    model.embed.weight[: len(weight)].copy_(weight)
    model.embed.bias[: len(bias)].copy_(bias)
    progress("start the head", 1, 1)


def anchors(taught: Tensor, labels: Tensor, plain: int) -> Tensor:
    """Unit centres (C, D) of the labels: what a query will be ranked against."""
    return class_centres(taught[:plain].mean(0), labels, int(labels.max()) + 1)
