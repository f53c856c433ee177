"""The interface that every loss has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_edge import ConfigError


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
            training labels; None where it is not known. A row of zeros is a label that the cloud
            model does not know.
        other_classes: float32 (M, D): the rows of its classifier for labels that the training
            does not have; None without any.
        anchors: unit vectors (M, D) of the cloud's space that are ranked; None without them.
        centroids: (classes, D): means of the cloud's unit vectors of each class.
        variances: (classes, D): their variances.
        codebook: (M, K, D / M): centroids of the cloud's vectors, cut in M pieces.
        anchor_scale: the inverse temperature of the ranking of anchors.
        temperature: of contrast between the pairs of a batch.
        scale: the inverse temperature of softmax losses on cosines.
        margin: the margin of margin losses.
    """

    classes: int
    dim: int
    cloud_classifier: Tensor | None = None
    other_classes: Tensor | None = None
    anchors: Tensor | None = None
    centroids: Tensor | None = None
    variances: Tensor | None = None
    codebook: Tensor | None = None
    anchor_scale: float = 20.0
    temperature: float = 0.05
    scale: float = 16.0
    margin: float = 0.0

    def prefix(self, dim: int) -> LossContext:
        """The same for the first `dim` coordinates, which search by themselves."""
        if dim == self.dim:
            return self
        codebook = self.codebook
        if codebook is not None:
            pieces = max(1, dim // codebook.shape[2])
            codebook = codebook[:pieces] if pieces * codebook.shape[2] == dim else None
        return replace(
            self,
            dim=dim,
            cloud_classifier=_leading(self.cloud_classifier, dim),
            other_classes=_leading(self.other_classes, dim),
            anchors=_leading(self.anchors, dim),
            centroids=_leading(self.centroids, dim, unit=False),
            variances=_leading(self.variances, dim, unit=False),
            codebook=codebook,
        )


def _leading(vectors: Tensor | None, dim: int, unit: bool = True) -> Tensor | None:
    if vectors is None:
        return None
    return F.normalize(vectors[:, :dim]) if unit else vectors[:, :dim]


class Loss(nn.Module):
    """A loss on a batch; `forward` takes `LossInputs` and returns a scalar.

    Attributes:
        anchored: whether it ties embeddings to absolute places of the cloud's space. Without an
            anchored term an edge model shares nothing with the cloud model.
        taught: whether it looks at the cloud model's vectors of the batch.
    """

    anchored: ClassVar[bool] = False
    taught: ClassVar[bool] = False

    def __init__(self, context: LossContext) -> None:
        super().__init__()

    def forward(self, inputs: LossInputs) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")


def labelled_mean(per_picture: Tensor, label: Tensor) -> Tensor:
    """Mean over the pictures that have a label; 0 where none has."""
    mask = (label >= 0).to(per_picture.dtype)
    return (per_picture * mask).sum() / torch.clamp(mask.sum(), min=1.0)


def taught_of(inputs: LossInputs, who: str) -> Tensor:
    """The cloud's vectors; raises `ConfigError` naming `who` needs them."""
    if inputs.taught is None:
        raise ConfigError(f"{who} needs a cloud model to learn from")
    return inputs.taught
