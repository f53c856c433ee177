"""A supernet inside the cloud model: every smaller network is the leading part of its weights.

As in Once-for-All (Cai et al. 2020): the first blocks of a stage, the leading channels of a layer,
the centre of a kernel. So that the leading channels are worth having, channels are sorted first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.backbones import Backbone, BackboneSpec, ConvBn, InvertedResidual, Stage
from samespace_cloud.checkpoint import clone
from samespace_cloud.families.layers import pad_same
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.nas._supernet import Supernet, forget_statistics
from samespace_cloud.nas.space import Genotype, SearchSpace
from samespace_edge import ConfigError


class ElasticBackbone(nn.Module):
    """The largest network's weights, of which any network of the elastic space runs.

    Args:
        spec: the largest network.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.whole = Backbone(spec)
        forget_statistics(self.whole)

    def forward(self, x: Tensor, spec: BackboneSpec) -> Tensor:
        """Pooled features (N, width of `spec`) of normalised pictures (N, 3, H, W)."""
        x = _run(self.whole.stem, x, spec.stem, 3)
        for blocks, stage in zip(self.whole.stages, spec.stages, strict=False):
            assert isinstance(blocks, nn.Sequential)
            for block in list(blocks)[: stage.blocks]:
                assert isinstance(block, InvertedResidual)
                x = _run_block(block, x, stage)
        if spec.features:
            x = _run(self.whole.head, x, spec.features, 1)
        return x.mean((2, 3))


class ElasticSupernet(Supernet):
    """The elastic space's networks in the cloud model's weights.

    Args:
        space: of `samespace_cloud.nas.space.elastic`, for the backbone of `cloud`.
        template: what the models that are taken out have beside their backbone and input size.
        cloud: the model to begin with; its channels are sorted first.
    """

    def __init__(self, space: SearchSpace, template: ModelConfig, cloud: EmbeddingModel) -> None:
        spec = cloud.backbone.spec
        if spec != space.base or not isinstance(spec, BackboneSpec):
            raise ConfigError(f"the space is not carved out of {cloud.config.backbone}")
        # Features of another stage mean something else, so an end that may be dropped to has a
        # head of its own.
        droppable = any(d.choices[0] == 0 for d in space.dimensions)
        stages = len(spec.stages)
        ends = {str(stages): spec.width}
        if droppable:
            ends[str(stages - 1)] = spec.stages[-2].channels
        super().__init__(space, template, ends)
        self.backbone = ElasticBackbone(spec)
        ordered = sort_channels(cloud)
        self.backbone.whole.load_state_dict(ordered.backbone.state_dict(), strict=False)
        head = self.embed[str(stages)]
        head.load_state_dict(ordered.embed.state_dict())

    def features(self, x: Tensor, genotype: Genotype) -> Tensor:
        """See `Supernet.features`."""
        spec = self._spec(genotype)
        y: Tensor = self.backbone(x, spec)
        return y

    def end(self, genotype: Genotype) -> str:
        """See `Supernet.end`."""
        return str(len(self._spec(genotype).stages))

    def copy_to(self, model: EmbeddingModel, genotype: Genotype) -> None:
        """See `Supernet.copy_to`."""
        theirs = dict(self.backbone.whole.named_modules())
        for name, own in model.backbone.named_modules():
            if isinstance(own, ConvBn):
                given = theirs[name]
                assert isinstance(given, ConvBn)
                shape = own.conv.weight.shape
                own.conv.weight.copy_(_part(given.conv.weight, shape[0], shape[1], shape[2]))
                own.norm.weight.copy_(given.norm.weight[: shape[0]])  # type: ignore[operator,index]
                own.norm.bias.copy_(given.norm.bias[: shape[0]])  # type: ignore[operator,index]

    def _spec(self, genotype: Genotype) -> BackboneSpec:
        spec = self.space.decode(genotype).spec
        assert isinstance(spec, BackboneSpec)
        return spec


@torch.no_grad()
def sort_channels(model: EmbeddingModel) -> EmbeddingModel:
    """The same function with the channels of every layer in falling order of importance.

    A channel is worth the scale |gamma| that its batch norms give it, times the L1 norm of the
    weights that read it. Layers that a shortcut ties together keep one order.

    Raises `ConfigError` for a model without batch norms, or not of inverted residuals.
    """
    spec = model.backbone.spec
    if model.config.folded or not isinstance(spec, BackboneSpec):
        raise ConfigError(
            f"channels can be sorted in inverted residuals with batch norms, not in "
            f"{model.config.architecture}"
        )
    model = clone(model)
    backbone = model.backbone
    streams = [stream := _Channels()]
    stream.written(backbone.stem)
    for stage in backbone.stages:
        assert isinstance(stage, nn.Sequential)
        for block in stage:
            assert isinstance(block, InvertedResidual)
            inner = stream
            if isinstance(block.expand, ConvBn):
                streams.append(inner := _Channels())
                stream.read(block.expand.conv.weight)
                inner.carried(block.expand)
            inner.carried(block.depthwise)
            inner.read(block.project.conv.weight, block.depthwise)
            if not block.shortcut:
                streams.append(stream := _Channels())
            stream.written(block.project)
    if isinstance(backbone.head, ConvBn):
        stream.read(backbone.head.conv.weight)
        streams.append(stream := _Channels())
        stream.written(backbone.head)
    stream.read(model.embed.weight)
    for found in streams:
        found.sort()
    return model.eval()


@dataclass
class _Channels:
    """Channels that have to keep one order, and every tensor that they are an axis of."""

    tensors: list[tuple[Tensor, int]] = field(default_factory=list)
    scale: Tensor | float = 0.0
    use: Tensor | float = 0.0

    def written(self, layer: nn.Module) -> None:
        """By a convolution and its norm."""
        self.carried(layer)
        assert isinstance(layer, ConvBn)
        self.scale = self.scale + _gamma(layer)

    def carried(self, layer: nn.Module) -> None:
        """Through a layer that says nothing of what they are worth in the end."""
        assert isinstance(layer, ConvBn)
        self.tensors.append((layer.conv.weight, 0))
        for value in layer.norm.state_dict().values():
            if value.dim():
                self.tensors.append((value, 0))

    def read(self, weight: Tensor, through: ConvBn | None = None) -> None:
        """By a layer of weights (outputs, channels, ...), `through` a depthwise one before."""
        self.tensors.append((weight, 1))
        use = weight.abs().sum([i for i in range(weight.dim()) if i != 1])
        self.use = self.use + (use if through is None else use * _gamma(through))

    def sort(self) -> None:
        """Put the most important first, everywhere."""
        # Between a block's two 1x1 convolutions the depthwise norm sets the scale: it is in `use`.
        scale = self.scale if isinstance(self.scale, Tensor) else torch.ones(())
        order = torch.argsort(scale * self.use, descending=True, stable=True)
        for tensor, axis in self.tensors:
            tensor.copy_(tensor.index_select(axis, order))


def _gamma(layer: ConvBn) -> Tensor:
    assert isinstance(layer.norm, nn.BatchNorm2d)
    return layer.norm.weight.detach().abs()


def _part(weight: Tensor, outputs: int, inputs: int, kernel: int) -> Tensor:
    """Leading channels of a convolution's weight (O, I, K, K), and the centre of its kernel."""
    edge = (weight.shape[-1] - kernel) // 2
    inside = slice(edge, edge + kernel)
    return weight[:outputs, :inputs, inside, inside]


def _run(layer: nn.Module, x: Tensor, outputs: int, kernel: int) -> Tensor:
    """A part of a convolution with its norm, by the batch's statistics."""
    assert isinstance(layer, ConvBn)
    assert isinstance(layer.norm, nn.BatchNorm2d)
    depthwise = layer.conv.groups > 1
    if layer.stride > 1:
        x = pad_same(x, kernel, layer.stride)
    x = F.conv2d(
        x,
        _part(layer.conv.weight, outputs, 1 if depthwise else x.shape[1], kernel),
        stride=layer.stride,
        padding=kernel // 2 if layer.stride == 1 else 0,
        groups=outputs if depthwise else 1,
    )
    scale, shift = layer.norm.weight[:outputs], layer.norm.bias[:outputs]
    x = F.batch_norm(x, None, None, scale, shift, training=True, eps=layer.norm.eps)
    return F.relu6(x) if layer.act else x


def _run_block(block: InvertedResidual, x: Tensor, stage: Stage) -> Tensor:
    inner = x.shape[1] * stage.expand
    y = _run(block.expand, x, inner, 1) if isinstance(block.expand, ConvBn) else x
    y = _run(block.depthwise, y, inner, stage.kernel)
    y = _run(block.project, y, stage.channels, 1)
    # As in a network of its own: where the narrower shapes allow it.
    return x + y if block.depthwise.stride == 1 and y.shape == x.shape else y
