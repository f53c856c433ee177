"""What every supernet has: paths through it, and models taken out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.nas.space import Genotype, SearchSpace


class Supernet(nn.Module):
    """All architectures of a space in one set of weights.

    Its batch norms always use the statistics of the batch: running ones would be a mixture of all
    architectures. A model that was taken out needs `reestimate` before it embeds.

    Args:
        space: the architectures.
        template: what the models that are taken out have beside their backbone and input size.
        ends: an embedding head (dim, width) for each name; narrower features use its leading
            columns.
    """

    def __init__(self, space: SearchSpace, template: ModelConfig, ends: dict[str, int]) -> None:
        super().__init__()
        self.space = space
        self.template = template
        self.embed = nn.ModuleDict({k: nn.Linear(w, template.dim) for k, w in ends.items()})

    def features(self, x: Tensor, genotype: Genotype) -> Tensor:
        """Pooled features (N, width of the architecture) of normalised pictures (N, 3, S, S)."""
        raise NotImplementedError(f"{type(self).__name__} defines no features")

    def end(self, genotype: Genotype) -> str:
        """Which embedding head an architecture has."""
        raise NotImplementedError(f"{type(self).__name__} defines no end")

    def copy_to(self, model: EmbeddingModel, genotype: Genotype) -> None:
        """Fill the backbone of `model`, which has the genotype's architecture."""
        raise NotImplementedError(f"{type(self).__name__} defines no copy_to")

    def forward(self, x: Tensor, genotype: Genotype) -> Tensor:
        """Embeddings (N, D) of normalised pictures (N, 3, S, S), by one architecture."""
        y = self.features(x, genotype)
        head = self._head(genotype)
        return F.linear(y, head.weight[:, : y.shape[1]], head.bias)

    def normalised(self, images: Tensor, device: torch.device) -> Tensor:
        """uint8 (N, 3, S, S) to the float input that all architectures take, on `device`."""
        mean = torch.tensor(self.template.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(self.template.std, device=device).view(1, 3, 1, 1)
        x = (images.to(device).to(torch.float32) / 255 - mean) / std
        return x.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def extract(self, genotype: Genotype) -> EmbeddingModel:
        """An architecture as a model of its own, with copied weights, on the CPU."""
        found = self.space.decode(genotype)
        with torch.random.fork_rng(devices=[]):  # its random weights are overwritten
            model = EmbeddingModel(
                replace(
                    self.template,
                    backbone=found.backbone,
                    input_size=found.input_size,
                    folded=False,
                )
            )
        self.copy_to(model, genotype)
        head = self._head(genotype)
        model.embed.weight.copy_(head.weight[:, : model.backbone.width])
        model.embed.bias.copy_(head.bias)
        return model

    def _head(self, genotype: Genotype) -> nn.Linear:
        head = self.embed[self.end(genotype)]
        assert isinstance(head, nn.Linear)
        return head


def forget_statistics(module: nn.Module) -> None:
    """Have batch norms use the batch's statistics, in training and after it."""
    for norm in _norms(module):
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the running statistics of batch norms anew, as the mean over `batches`.

    Args:
        model: is left in eval mode.
        batches: normalised pictures (N, 3, S, S), N of one size.
    """
    norms = list(_norms(model))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def _norms(module: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (m for m in module.modules() if isinstance(m, nn.BatchNorm2d))
