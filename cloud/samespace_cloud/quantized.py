"""Fine-tuning for int8: the model learns with the rounding that its int8 files will have.

Weights and activations pass through int8 and back in the forward pass, with the gradient of the
identity (Jacob et al. 2018, section 3). What comes out is an ordinary float model whose weights lie
on the int8 grid already, so that no file, in any format, has to round them again: what is left of
int8 is the rounding of the activations, and to that the model was made insensitive.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from samespace_cloud.backbones import ConvBn, InvertedResidual
from samespace_cloud.losses import LossContext
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.students import Solo
from samespace_cloud.views import normalised

_LEVELS = 127
_SMALLEST = 1e-8


def fold(model: EmbeddingModel) -> EmbeddingModel:
    """The same function with every batch norm merged into the convolution before it."""
    if model.config.folded:
        return copy.deepcopy(model)
    folded = EmbeddingModel(replace(model.config, folded=True))
    with torch.no_grad():
        for target, source in zip(_conv_bns(folded), _conv_bns(model), strict=True):
            norm = source.norm
            assert isinstance(norm, nn.BatchNorm2d)
            assert target.conv.bias is not None
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            target.conv.weight.copy_(source.conv.weight * scale[:, None, None, None])
            target.conv.bias.copy_(norm.bias - norm.running_mean * scale)
        folded.embed.load_state_dict(model.embed.state_dict())
    return folded.train(model.training)


class Int8Student(Solo):
    """One folded model under its losses, computed twice: with int8's rounding and without.

    L = loss(int8) + agree * mean(2 - cos(int8, start) - cos(float, start))

    The losses pull the int8 embedding towards the cloud's. The other terms hold both to what the
    model found before, which was trained longer and without rounding: without them the int8 file
    finds what its own float model finds, and both find less than the model they come from.

    Args:
        model: from `fold`; it also stays behind, as it is, as the start.
        losses, context: as for `Solo`.
        agree: weight of the last terms.
    """

    in_parts = False
    about_processes = "fine-tuning for int8 measures its ranges in one process"

    def __init__(
        self,
        model: EmbeddingModel,
        losses: Sequence[tuple[str, float]],
        context: LossContext,
        agree: float,
    ) -> None:
        super().__init__(model, losses, context)
        self._agree = agree
        self.start = copy.deepcopy(model).eval().requires_grad_(False)
        for module in list(model.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                parametrize.register_parametrization(module, "weight", _OnGrid(_paired(module)))
        for module in list(model.modules()):
            if isinstance(module, ConvBn) or (
                isinstance(module, InvertedResidual) and module.shortcut
            ):
                module.add_module("rounding", _Rounding())
                module.register_forward_hook(_round_output)

    def loss(
        self, inputs: Mapping[int, Tensor], label: Tensor, taught: Tensor | None, done: float
    ) -> Tensor:
        """See `Students.loss`."""
        rounded = self._embed("model", inputs, label.device).float()
        with self._unrounded():
            exact = self._embed("model", inputs, label.device).float()
        with torch.no_grad():
            size = self.start.config.input_size
            before = self.start.eval()(normalised(inputs[size], self.start, label.device)).float()
        departures = (1 - F.cosine_similarity(y, before).mean() for y in (rounded, exact))
        total: Tensor = self._weighted(rounded, label, taught) + self._agree * sum(departures)
        return total

    def finished(self) -> EmbeddingModel:
        """A plain float model, with its weights on the int8 grid."""
        trained = self.model("model")
        plain = EmbeddingModel(trained.config)
        state = {k: v for k, v in trained.state_dict().items() if k in plain.state_dict()}
        for path, module in trained.named_modules():
            if parametrize.is_parametrized(module, "weight"):
                weight = module.weight
                assert isinstance(weight, Tensor)
                state[f"{path}.weight"] = weight.detach()
        plain.load_state_dict(state)
        return plain.eval()

    @contextmanager
    def _unrounded(self) -> Iterator[None]:
        roundings = [m for m in self.modules() if isinstance(m, _Rounding)]
        for rounding in roundings:
            rounding.active = False
        try:
            yield
        finally:
            for rounding in roundings:
                rounding.active = True


# A function of its own, not a method: copies of the model must round with their own ranges.
def _round_output(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    rounded: Tensor = module.get_submodule("rounding")(output)
    return rounded


class _OnGrid(nn.Module):
    """Weights (out, ...) rounded to at most 255 levels per output channel, symmetric about 0.

    Args:
        paired: keep sums of two neighbouring levels within 128, so that no processor saturates.
            The exporter explains why, and keeps a grid that it finds (`samespace_export._scales`).
    """

    def __init__(self, paired: bool) -> None:
        super().__init__()
        self._paired = paired

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.detach().movedim(1, -1).flatten(1)  # as kernels lay a window out
        largest = _same_sign_sums(rows) if self._paired else rows.abs().amax(1)
        scale = (largest / _LEVELS).clamp_min(_SMALLEST)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -_LEVELS, _LEVELS)


def _paired(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether kernels may add neighbouring products of a layer in 16 bits: not if depthwise."""
    depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.out_channels > 1
    return not depthwise


def _same_sign_sums(rows: Tensor) -> Tensor:
    """The largest |a + b| of two neighbours (columns 2i, 2i + 1) of one sign: (O, K) to (O,)."""
    padded = F.pad(rows, (0, rows.shape[1] % 2))
    a, b = padded[:, 0::2], padded[:, 1::2]
    positive = a.clamp_min(0) + b.clamp_min(0)
    negative = a.clamp_max(0) + b.clamp_max(0)
    return torch.maximum(positive, -negative).amax(1)


class _Rounding(nn.Module):
    """Activations rounded to 256 levels, 0 among them, between the ends that were seen."""

    def __init__(self, momentum: float = 0.05) -> None:
        super().__init__()
        self.active = True
        self.momentum = momentum
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if self.training:
            self._observe(x.detach())
        scale = ((self.high - self.low) / 255).clamp_min(_SMALLEST)
        zero = torch.round(-self.low / scale).clamp(0, 255).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)

    def _observe(self, x: Tensor) -> None:
        low, high = x.amin().clamp_max(0), x.amax().clamp_min(0)
        first = bool(self.high == self.low)
        weight = 1.0 if first else self.momentum
        self.low.lerp_(low, weight)
        self.high.lerp_(high, weight)


def _conv_bns(model: EmbeddingModel) -> Iterator[ConvBn]:
    return (m for m in model.modules() if isinstance(m, ConvBn))


def equalise(model: EmbeddingModel, pictures: Tensor, share: float = 1.0) -> EmbeddingModel:
    """The same function with the channels between the blocks brought to one range.

    int8 has one range for all channels of a tensor, so a channel with small values is left few
    levels. Between blocks nothing but linear layers stand, and what a channel is divided by where
    it is made, the weights that read it can be multiplied with (Nagel et al. 2019, section 4.1).

    Args:
        model: from `fold`.
        pictures: normalised (N, 3, S, S), to measure the ranges on.
        share: 1 brings all channels to one range, 0 leaves them.
    """
    model = copy.deepcopy(model).eval()
    stages: list[list[Any]] = [list(stage.children()) for stage in model.backbone.stages]
    largest: list[Tensor] = [torch.zeros(()) for _ in stages]

    def watch(place: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen = output.abs().amax((0, 2, 3))
            largest[place] = torch.maximum(largest[place], seen)

        return hook

    hooks = [
        block.register_forward_hook(watch(place))
        for place, stage in enumerate(stages)
        for block in stage
    ]
    with torch.no_grad():
        for start in range(0, len(pictures), 64):
            model(pictures[start : start + 64])
        for hook in hooks:
            hook.remove()
        for place, stage in enumerate(stages):
            factor = (largest[place] / largest[place].amax()).clamp_min(1e-3) ** share
            for block in stage:
                block.project.conv.weight /= factor[:, None, None, None]
                block.project.conv.bias /= factor
            for reader in _readers(model, stages, place):
                if reader.shape[1] == len(factor):
                    reader *= factor.view(1, -1, *[1] * (reader.dim() - 2))
                else:  # depthwise
                    reader *= factor[:, None, None, None]
    return model


def _readers(model: EmbeddingModel, stages: list[list[Any]], place: int) -> Iterator[Tensor]:
    """Weights that read what a stage's blocks make."""
    following = stages[place][1:] + (stages[place + 1][:1] if place + 1 < len(stages) else [])
    for block in following:
        first = block.expand if isinstance(block.expand, ConvBn) else block.depthwise
        yield first.conv.weight
    if place + 1 == len(stages):
        head = model.backbone.head
        yield head.conv.weight if isinstance(head, ConvBn) else model.embed.weight
