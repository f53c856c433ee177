"""What a value and its derivative become in every layer: the table of rules for layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.families.mobilenet_v3 import HardSwish
from samespace_cloud.linear._activations import (
    LeakyHardswish,
    LeakyReLU6,
    leaky_hardswish,
    leaky_relu6,
)
from samespace_cloud.linear._rules import FUNCTIONS, Function, Streams, is_stream, linear, plus


class Weighted(nn.Module):
    """A convolution or linear layer: f(x) + b, and f(dx; W) + f(x; dW) + db.

    All three are layers of their own, so that what counts or quantises layers sees them.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, tangents: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.value = _layer(layer, layer.weight, layer.bias)
        self.carry = _layer(layer, layer.weight, None)
        self.tangent: nn.Module | None = None
        self.shift: nn.Parameter | None = None
        if "weight" in tangents:
            self.tangent = _layer(layer, tangents["weight"], tangents.get("bias"))
        elif "bias" in tangents:
            self.shift = _fixed(
                tangents["bias"].view(-1, 1, 1)
                if isinstance(layer, nn.Conv2d)
                else tangents["bias"]
            )

    def forward(self, x: Streams) -> Streams:
        made = self.value(x.value)
        change = None if x.change is None else self.carry(x.change)
        if self.tangent is not None:
            change = plus(change, self.tangent(x.value))
        if self.shift is not None:
            change = self.shift + (torch.zeros_like(made) if change is None else change)
        return Streams(made, change)


class Norm(nn.Module):
    """A batch norm at its statistics: scale x + shift, and scale dx + dscale x + dshift."""

    def __init__(self, layer: nn.BatchNorm2d, tangents: Mapping[str, Tensor]) -> None:
        super().__init__()
        mean, variance = layer.running_mean, layer.running_var
        assert mean is not None
        assert variance is not None
        # The very arithmetic of the linearised network: a unit that is almost off has to be on the
        # same side in both.
        self.value = copy.deepcopy(layer).eval()
        for name in ("weight", "bias"):
            given = getattr(layer, name)
            del self.value._buffers[name]
            self.value.register_parameter(name, None if given is None else _fixed(given))
        root = torch.rsqrt(variance + layer.eps)
        none = torch.zeros_like(mean)
        turn, lift = tangents.get("weight", none) * root, tangents.get("bias", none)
        self.scale = _plane(root if layer.weight is None else layer.weight * root)
        self.turn, self.lift = _plane(turn), _plane(lift - mean * turn)
        self.moves = bool(tangents)

    def forward(self, x: Streams) -> Streams:
        change = None if x.change is None else self.scale * x.change
        if self.moves:
            change = plus(change, self.turn * x.value + self.lift)
        return Streams(self.value(x.value), change)


class Applied(nn.Module):
    """A function, or a layer without weights, by its rule; on what is no stream, as it is."""

    def __init__(self, rule: Function, plain: Function | None = None) -> None:
        super().__init__()
        self._rule, self._plain = rule, plain

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._plain is not None and not any(map(is_stream, (*args, *kwargs.values()))):
            return self._plain(*args, **kwargs)
        return self._rule(*args, **kwargs)


class Constant(nn.Module):
    """A weight that the network uses outside of a layer."""

    def __init__(self, value: Tensor, tangent: Tensor | None) -> None:
        super().__init__()
        self.value = _fixed(value)
        self.tangent = None if tangent is None else _fixed(tangent)

    def forward(self) -> Streams:
        return Streams(self.value, self.tangent)


def _activation(function: Function, *names: str) -> Function:
    def made(layer: nn.Module, tangents: Mapping[str, Tensor]) -> nn.Module:
        settings = [getattr(layer, name) for name in names]
        return Applied(lambda x: FUNCTIONS[function](x, *settings))

    return made


def _as_it_is(layer: nn.Module, tangents: Mapping[str, Tensor]) -> nn.Module:
    return Applied(partial(linear, layer))


def _unchanged(layer: nn.Module, tangents: Mapping[str, Tensor]) -> nn.Module:
    return Applied(lambda x: x)


LAYERS: dict[type[nn.Module], Function] = {
    HardSwish: _activation(F.hardswish),
    LeakyHardswish: _activation(leaky_hardswish, "slope"),
    LeakyReLU6: _activation(leaky_relu6, "slope"),
    nn.AdaptiveAvgPool2d: _as_it_is,
    nn.AvgPool2d: _as_it_is,
    nn.BatchNorm2d: Norm,
    nn.Conv2d: Weighted,
    nn.Dropout: _unchanged,
    nn.Flatten: _as_it_is,
    nn.Hardsigmoid: _activation(F.hardsigmoid),
    nn.Hardswish: _activation(F.hardswish),
    nn.Hardtanh: _activation(F.hardtanh, "min_val", "max_val"),
    nn.Identity: _unchanged,
    nn.LeakyReLU: _activation(F.leaky_relu, "negative_slope"),
    nn.Linear: Weighted,
    nn.MaxPool2d: _activation(
        F.max_pool2d,
        *("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    ),
    nn.ReLU: _activation(F.relu),
    nn.ReLU6: _activation(F.relu6),
    nn.SiLU: _activation(F.silu),
    nn.Sigmoid: _activation(torch.sigmoid),
    nn.ZeroPad2d: _as_it_is,
}
"""Layers that a graph may hold, and what makes their rule of the layer and its tangents."""


def _fixed(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x.detach().clone(), requires_grad=False)


def _plane(x: Tensor) -> nn.Parameter:
    return _fixed(x.view(1, -1, 1, 1))


def _layer(like: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Module:
    made: nn.Conv2d | nn.Linear
    if isinstance(like, nn.Linear):
        made = nn.Linear(like.in_features, like.out_features, bias is not None)
    else:
        made = nn.Conv2d(
            like.in_channels,
            like.out_channels,
            like.kernel_size,  # type: ignore[arg-type]
            like.stride,  # type: ignore[arg-type]
            like.padding,  # type: ignore[arg-type]
            like.dilation,  # type: ignore[arg-type]
            like.groups,
            bias is not None,
            like.padding_mode,
        )
    made.weight = _fixed(weight)
    if bias is not None:
        made.bias = _fixed(bias)
    return made
