"""What a training moves: one model with its losses, or a cloud and an edge model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.losses import Loss, LossContext, LossInputs, build_loss
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.views import normalised


class Students(nn.Module):
    """Models under training, and how they are told how wrong they are."""

    models: nn.ModuleDict

    @property
    def sizes(self) -> list[int]:
        """Sides of the inputs that the models take."""
        return [m.config.input_size for m in self.models.values()]  # type: ignore[union-attr,misc]

    def model(self, name: str) -> EmbeddingModel:
        """One of the models."""
        found = self.models[name]
        assert isinstance(found, EmbeddingModel)
        return found

    def loss(
        self, inputs: Mapping[int, Tensor], label: Tensor, taught: Tensor | None, done: float
    ) -> Tensor:
        """The loss of a batch.

        Args:
            inputs: uint8 (N, 3, S, S) by side.
            label: (N,), -1 for none.
            taught: the teacher's unit vectors (N, D), or None.
            done: share of the training that is done, 0 to 1.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def _embed(self, name: str, inputs: Mapping[int, Tensor], device: torch.device) -> Tensor:
        model = self.model(name)
        y: Tensor = model(normalised(inputs[model.config.input_size], model, device))
        return y


class Solo(Students):
    """One model under a weighted sum of losses."""

    def __init__(
        self, model: EmbeddingModel, losses: Sequence[tuple[str, float]], context: LossContext
    ) -> None:
        super().__init__()
        self.models = nn.ModuleDict({"model": model})
        self.losses = nn.ModuleList(build_loss(name, context) for name, _ in losses)
        self._weights = [weight for _, weight in losses]

    def classifier(self) -> Tensor | None:
        """Directions (C, D) of the classifier that was learnt, if one was."""
        for loss in self.losses:
            weight = getattr(loss, "classifier", None)
            if isinstance(weight, nn.Parameter):
                return F.normalize(weight.detach()).cpu()
        return None

    def finished(self) -> EmbeddingModel:
        """The model as it is kept."""
        return self.model("model")

    @property
    def anchored(self) -> bool:
        """Whether a loss ties the model to another model's space."""
        return any(loss.anchored for loss in self.losses if isinstance(loss, Loss))

    def loss(
        self, inputs: Mapping[int, Tensor], label: Tensor, taught: Tensor | None, done: float
    ) -> Tensor:
        """See `Students.loss`."""
        return self._weighted(self._embed("model", inputs, label.device).float(), label, taught)

    def _weighted(self, embedding: Tensor, label: Tensor, taught: Tensor | None) -> Tensor:
        seen = LossInputs(embedding, label, taught)
        terms = [w * loss(seen) for w, loss in zip(self._weights, self.losses, strict=True)]
        return torch.stack(terms).sum()


class CoTraining(Students):
    """Cloud and edge learn together: one classifier for both, and a pull between them.

    L = CE(cloud) + CE(edge)
        + a(t) [(1 - cos(edge, sg(cloud))) + (1 - p) (1 - cos(sg(edge), cloud))]

    with sg the stop-gradient, p how much the cloud is protected, and a(t) rising linearly from 0
    once `align_from` of the training is done: pulled from the first step, both models agree on
    embeddings that tell nothing apart.
    """

    def __init__(
        self,
        cloud: EmbeddingModel,
        edge: EmbeddingModel,
        classifier: tuple[str, float],
        context: LossContext,
        align: float,
        align_from: float,
        protect: float,
    ) -> None:
        super().__init__()
        self.models = nn.ModuleDict({"cloud": cloud, "edge": edge})
        name, self._weight = classifier
        self.shared = build_loss(name, context)
        self._align, self._from, self._protect = align, align_from, protect

    def classifier(self) -> Tensor | None:
        """Directions (C, D) of the shared classifier."""
        weight = getattr(self.shared, "classifier", None)
        return F.normalize(weight.detach()).cpu() if isinstance(weight, Tensor) else None

    def loss(
        self, inputs: Mapping[int, Tensor], label: Tensor, taught: Tensor | None, done: float
    ) -> Tensor:
        """See `Students.loss`."""
        cloud = self._embed("cloud", inputs, label.device).float()
        edge = self._embed("edge", inputs, label.device).float()
        terms = self._weight * (
            self.shared(LossInputs(cloud, label)) + self.shared(LossInputs(edge, label))
        )
        rise = min(1.0, max(0.0, (done - self._from) / max(1e-9, 1 - self._from)))
        follow = 1 - F.cosine_similarity(edge, cloud.detach()).mean()
        yielding = 1 - F.cosine_similarity(edge.detach(), cloud).mean()
        total: Tensor = terms + self._align * rise * (follow + (1 - self._protect) * yielding)
        return total
