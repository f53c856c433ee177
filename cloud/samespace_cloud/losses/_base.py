"""The interface that every loss has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LossInputs:
    """What a loss may look at.

    Attributes:
        embedding: the student's, float (N, D), not normalised.
        label: int64 (N,); -1 for pictures without one.
        taught: the cloud model's unit vectors of the same views (N, D); None without a teacher.
    """

    embedding: Tensor
    label: Tensor
    taught: Tensor | None = None


@dataclass(frozen=True)
class LossContext:
    """What a loss may be built from.

    Attributes:
        classes: number of training labels.
        dim: width of the embedding.
        cloud_classifier: float32 (classes, D): the cloud model's classifier, in the order of the
            training labels; None where it is not known.
        anchors: unit vectors (M, D) of the cloud's space that are ranked; None without them.
        anchor_scale: the inverse temperature of that ranking.
        scale: the inverse temperature of softmax losses on cosines.
        margin: the margin of margin losses.
    """

    classes: int
    dim: int
    cloud_classifier: Tensor | None = None
    anchors: Tensor | None = None
    anchor_scale: float = 20.0
    scale: float = 16.0
    margin: float = 0.0


class Loss(nn.Module):
    """A loss on a batch; `forward` takes `LossInputs` and returns a scalar.

    Attributes:
        anchored: whether it ties embeddings to absolute places of the cloud's space. Without an
            anchored term an edge model shares nothing with the cloud model.
    """

    anchored: ClassVar[bool] = False

    def __init__(self, context: LossContext) -> None:
        super().__init__()

    def forward(self, inputs: LossInputs) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")


def labelled_mean(per_picture: Tensor, label: Tensor) -> Tensor:
    """Mean over the pictures that have a label; 0 where none has."""
    mask = (label >= 0).to(per_picture.dtype)
    return (per_picture * mask).sum() / torch.clamp(mask.sum(), min=1.0)
