"""What a training moves: one model with its losses, or a cloud and an edge model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud._distributed import gathered, own
from samespace_cloud.losses import Loss, LossContext, LossInputs, build_loss, loss_class
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.views import normalised


class Students(nn.Module):
    """Models under training, and how they are told how wrong they are.

    Attributes:
        in_parts: whether several processes may each embed a part of the batch; only where all
            embeddings come from `_embed`.
        about_processes: why not, where not.
    """

    models: nn.ModuleDict
    in_parts = False
    about_processes = "this training is for one process"

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
        pictures = inputs[model.config.input_size]
        y: Tensor = model(normalised(own(pictures), model, device))
        return gathered(y, len(pictures))


class WeightedLosses(nn.Module):
    """A weighted sum of losses, at the full width of the embedding and at nested prefixes of it.

    Args:
        losses: names and weights.
        nested: the prefixes' widths; the sum is the mean over all widths.
    """

    def __init__(
        self,
        losses: Sequence[tuple[str, float]],
        context: LossContext,
        nested: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._widths = (context.dim, *nested)
        self._weights = [weight for _, weight in losses]
        self.by_width = nn.ModuleList(
            nn.ModuleList(build_loss(name, context.prefix(width)) for name, _ in losses)
            for width in self._widths
        )

    def at_full_width(self) -> list[Loss]:
        """The losses on the whole embedding."""
        full = self.by_width[0]
        assert isinstance(full, nn.ModuleList)
        return [loss for loss in full if isinstance(loss, Loss)]

    def forward(self, embedding: Tensor, label: Tensor, taught: Tensor | None) -> Tensor:
        """The loss of a batch: embedding (N, D), label (N,), -1 for none, taught (N, D)."""
        terms: list[Tensor] = []
        for width, losses in zip(self._widths, self.by_width, strict=True):
            told = None if taught is None else F.normalize(taught[:, :width])
            seen = LossInputs(embedding[:, :width], label, told)
            assert isinstance(losses, nn.ModuleList)
            terms += [w * loss(seen) for w, loss in zip(self._weights, losses, strict=True)]
        return torch.stack(terms).sum() / len(self._widths)


class Solo(Students):
    """One model under a weighted sum of losses."""

    in_parts = True

    def __init__(
        self,
        model: EmbeddingModel,
        losses: Sequence[tuple[str, float]],
        context: LossContext,
        nested: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.models = nn.ModuleDict({"model": model})
        self.terms = WeightedLosses(losses, context, nested)

    @property
    def losses(self) -> list[Loss]:
        """The losses at full width."""
        return self.terms.at_full_width()

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
        return any(loss.anchored for loss in self.losses)

    def loss(
        self, inputs: Mapping[int, Tensor], label: Tensor, taught: Tensor | None, done: float
    ) -> Tensor:
        """See `Students.loss`."""
        return self._weighted(self._embed("model", inputs, label.device).float(), label, taught)

    def _weighted(self, embedding: Tensor, label: Tensor, taught: Tensor | None) -> Tensor:
        total: Tensor = self.terms(embedding, label, taught)
        return total


class Successor(Solo):
    """One model, whose leading coordinates are held in an old model's space.

    Where the model is wider than the old one, it is trained for itself as a whole, and for the
    old space by its leading coordinates, made unit again: what is new finds room in the others
    (Zhou et al. 2023, BT^2).

    Args:
        losses: names and weights. Those that look at nothing of the old model's see the whole
            embedding, the others its leading coordinates.
        context: of the whole embedding.
        old: of the old model's space; its `dim` is that model's.
        nested: see `WeightedLosses`.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        losses: Sequence[tuple[str, float]],
        context: LossContext,
        old: LossContext,
        nested: Sequence[int] = (),
    ) -> None:
        own = [(n, w) for n, w in losses if of_its_own(n)]
        super().__init__(model, own, context, nested)
        self._alone, self._width = bool(own), old.dim
        held = [(n, w) for n, w in losses if not of_its_own(n)]
        self.held = WeightedLosses(held, old, [width for width in nested if width < old.dim])

    @property
    def anchored(self) -> bool:
        """See `Solo.anchored`."""
        return any(loss.anchored for loss in self.held.at_full_width())

    def _weighted(self, embedding: Tensor, label: Tensor, taught: Tensor | None) -> Tensor:
        total: Tensor = self.held(embedding[:, : self._width], label, taught)
        return total + super()._weighted(embedding, label, None) if self._alone else total


def of_its_own(loss: str) -> bool:
    """Whether the loss of this name looks at nothing of another model's."""
    return not (loss_class(loss).anchored or loss_class(loss).taught)


class CoTraining(Students):
    """Cloud and edge learn together: one classifier for both, and a pull between them.

    L = CE(cloud) + CE(edge)
        + a(t) [(1 - cos(edge, sg(cloud))) + (1 - p) (1 - cos(sg(edge), cloud))]

    with sg the stop-gradient, p how much the cloud is protected, and a(t) rising linearly from 0
    once `align_from` of the training is done: pulled from the first step, both models agree on
    embeddings that tell nothing apart.
    """

    in_parts = True

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
