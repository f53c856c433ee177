"""A supernet of shuffle blocks: every block in all its kinds, of which one runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samespace_cloud.backbones import Backbone, ShuffleSpec
from samespace_cloud.families.shuffle import BLOCKS, ShuffleBlock
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.nas._supernet import Supernet, forget_statistics
from samespace_cloud.nas.space import Genotype, SearchSpace


class ShuffleChoices(nn.Module):
    """A shuffle network with all kinds of every block.

    Args:
        spec: the network; the kinds that it says do not count.
    """

    def __init__(self, spec: ShuffleSpec) -> None:
        super().__init__()
        fixed = Backbone(spec)
        self.stem, self.head = fixed.stem, fixed.head
        stages: list[nn.Module] = []
        inputs = spec.stem
        for stage in spec.stages:
            blocks: list[nn.Module] = []
            for i in range(len(stage.blocks)):
                stride = stage.stride if i == 0 else 1
                kinds = {
                    k: ShuffleBlock(inputs, stage.channels, k, stride, split=i > 0) for k in BLOCKS
                }
                blocks.append(nn.ModuleDict(kinds))
                inputs = stage.channels
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        forget_statistics(self)

    def chosen(self, spec: ShuffleSpec) -> list[list[nn.Module]]:
        """The blocks that `spec` takes, by stage."""
        found: list[list[nn.Module]] = []
        for blocks, stage in zip(self.stages, spec.stages, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            found.append([])
            for kinds, kind in zip(blocks, stage.blocks, strict=True):
                assert isinstance(kinds, nn.ModuleDict)
                found[-1].append(kinds[kind])
        return found

    def forward(self, x: Tensor, spec: ShuffleSpec) -> Tensor:
        """Pooled features (N, width) of normalised pictures (N, 3, H, W)."""
        x = self.stem(x)
        for blocks in self.chosen(spec):
            for block in blocks:
                x = block(x)
        return torch.mean(self.head(x), dim=(2, 3))


class ShuffleSupernet(Supernet):
    """The shuffle space's networks, from random weights.

    Args:
        space: of `samespace_cloud.nas.space.shuffle`.
        template: what the models that are taken out have beside their backbone and input size.
        seed: of the weights.
    """

    def __init__(self, space: SearchSpace, template: ModelConfig, seed: int) -> None:
        assert isinstance(space.base, ShuffleSpec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(space, template, {"last": space.base.width})
            self.backbone = ShuffleChoices(space.base)

    def features(self, x: Tensor, genotype: Genotype) -> Tensor:
        """See `Supernet.features`."""
        y: Tensor = self.backbone(x, self._spec(genotype))
        return y

    def end(self, genotype: Genotype) -> str:
        """See `Supernet.end`."""
        return "last"

    def copy_to(self, model: EmbeddingModel, genotype: Genotype) -> None:
        """See `Supernet.copy_to`."""
        own = model.backbone
        pairs = [(own.stem, self.backbone.stem), (own.head, self.backbone.head)]
        for stage, blocks in zip(
            own.stages, self.backbone.chosen(self._spec(genotype)), strict=True
        ):
            pairs += zip(stage.children(), blocks, strict=True)
        for target, source in pairs:
            # The supernet has no running statistics to give.
            target.load_state_dict(source.state_dict(), strict=False)

    def _spec(self, genotype: Genotype) -> ShuffleSpec:
        spec = self.space.decode(genotype).spec
        assert isinstance(spec, ShuffleSpec)
        return spec
