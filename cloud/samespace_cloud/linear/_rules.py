"""What a value and its derivative become in every function: the table of rules.

A new operation is one row. A derivative that is None is zero: nothing with a tangent ran before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.families.layers import pad_same
from samespace_cloud.families.shuffle import shuffled
from samespace_cloud.linear._activations import (
    leaky_hardswish,
    leaky_relu6,
)
from samespace_edge import ConfigError


class Streams(NamedTuple):
    """What the network makes at w0, and how it changes along the tangent; of one shape."""

    value: Tensor
    change: Tensor | None


Function = Callable[..., Any]


def _relu(x: Tensor, inplace: bool = False) -> Tensor:
    return (x > 0).to(x.dtype)


def _leaky_relu(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return negative_slope + (1 - negative_slope) * (x > 0).to(x.dtype)


def _hardtanh(
    x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    return ((x > min_val) & (x < max_val)).to(x.dtype)


def _relu6(x: Tensor, inplace: bool = False) -> Tensor:
    return _hardtanh(x, 0.0, 6.0)


def _leaky_relu6(x: Tensor, slope: float) -> Tensor:
    return slope + (1 - slope) * _relu6(x)


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return _relu6(x + 3) / 6


def _hardswish(x: Tensor, inplace: bool = False) -> Tensor:
    return (F.relu6(x + 3) + x * _relu6(x + 3)) / 6


def _leaky_hardswish(x: Tensor, slope: float) -> Tensor:
    return _hardswish(x) + slope * (x < -3).to(x.dtype)


def _sigmoid(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    return y * (1 - y)


def _silu(x: Tensor, inplace: bool = False) -> Tensor:
    y = torch.sigmoid(x)
    return y * (1 + x * (1 - y))


SLOPES: dict[Function, Function] = {
    F.relu: _relu,
    F.relu6: _relu6,
    F.leaky_relu: _leaky_relu,
    F.hardtanh: _hardtanh,
    F.hardsigmoid: _hardsigmoid,
    F.hardswish: _hardswish,
    F.silu: _silu,
    leaky_hardswish: _leaky_hardswish,
    leaky_relu6: _leaky_relu6,
    torch.relu: _relu,
    torch.sigmoid: _sigmoid,
}
"""Functions of each number alone, and their slope there."""

LINEAR: tuple[Function, ...] = (
    F.adaptive_avg_pool2d,
    F.avg_pool2d,
    operator.getitem,
    operator.neg,
    pad_same,
    shuffled,
    torch.flatten,
    torch.mean,
)
"""Functions that are linear in their first argument: a derivative goes through like a value."""

LINEAR_METHODS = (
    "contiguous",
    "flatten",
    "mean",
    "permute",
    "reshape",
    "sum",
    "transpose",
    "unsqueeze",
    "view",
)
"""Methods of tensors that are linear in the tensor."""


def linear(function: Function, x: Streams, *args: Any, **kwargs: Any) -> Streams:
    """A function that is linear in `x`."""
    made = function(x.value, *args, **kwargs)
    return Streams(made, None if x.change is None else function(x.change, *args, **kwargs))


def pointwise(function: Function, slope: Function, x: Streams, *a: Any, **k: Any) -> Streams:
    """A function of each number alone."""
    k = {name: value for name, value in k.items() if name != "inplace"}
    made = function(x.value, *a, **k)
    return Streams(made, None if x.change is None else slope(x.value, *a, **k) * x.change)


def padded(x: Streams, pad: Any, mode: str = "constant", value: float | None = None) -> Streams:
    """Around a picture: a constant has no derivative."""
    made = F.pad(x.value, pad, mode, value)
    return Streams(made, None if x.change is None else F.pad(x.change, pad, mode))


def added(x: Any, y: Any, alpha: float = 1) -> Streams:
    """x + alpha y, of streams or numbers."""
    y = y if alpha == 1 else multiplied(y, alpha)
    return _whole(_value(x) + _value(y), plus(_change(x), _change(y)))


def subtracted(x: Any, y: Any, alpha: float = 1) -> Streams:
    """x - alpha y, of streams or numbers."""
    y = y if alpha == 1 else multiplied(y, alpha)
    below = _change(y)
    change = plus(_change(x), None if below is None else -below)
    return _whole(_value(x) - _value(y), change)


def _whole(value: Tensor, change: Tensor | None) -> Streams:
    """A sum of which a part, such as a weight for every channel, was smaller than the other."""
    if change is not None and change.shape != value.shape:
        change = change.expand_as(value)
    return Streams(value, change)


def multiplied(x: Any, y: Any) -> Streams:
    """x y, of streams or numbers, by the product rule."""
    dx, dy = _change(x), _change(y)
    left = None if dx is None else dx * _value(y)
    right = None if dy is None else _value(x) * dy
    return Streams(_value(x) * _value(y), plus(left, right))


def divided(x: Any, y: Any, rounding_mode: str | None = None) -> Streams:
    """x / y, of streams or numbers, by the quotient rule; raises `ConfigError` for rounding."""
    if rounding_mode is not None:
        raise ConfigError("a quotient has a rule for its derivative where it is not rounded")
    dx, dy = _change(x), _change(y)
    made = _value(x) / _value(y)
    left = None if dx is None else dx / _value(y)
    right = None if dy is None else -made * dy / _value(y)
    return Streams(made, plus(left, right))


def joined(tensors: list[Streams], dim: int = 0) -> Streams:
    """Concatenation; a part without a derivative has zeros there if another has one."""
    made = torch.cat([t.value for t in tensors], dim)
    if all(t.change is None for t in tensors):
        return Streams(made, None)
    changes = [torch.zeros_like(t.value) if t.change is None else t.change for t in tensors]
    return Streams(made, torch.cat(changes, dim))


def max_pooled(
    x: Streams,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Streams:
    """Square max pooling: the derivative of the first of the largest, as torch has it.

    Raises `ConfigError` for dilated or rounded-up windows.
    """
    kernel, stride, padding, dilation = (
        _side(s) for s in (kernel_size, stride or kernel_size, padding, dilation)
    )
    if None in (kernel, stride, padding) or dilation != 1 or ceil_mode or return_indices:
        raise ConfigError(
            "max pooling has a rule for its derivative where its windows are square, not dilated, "
            "not rounded up and give no indices"
        )
    if x.change is None:
        return Streams(F.max_pool2d(x.value, kernel, stride, padding), None)
    around = [padding] * 4
    value = F.pad(x.value, around, value=float("-inf")) if padding else x.value
    change = F.pad(x.change, around) if padding else x.change
    height, width = (((s - kernel) // stride) * stride + 1 for s in value.shape[2:])
    best = along = None
    for top in range(kernel):
        for left in range(kernel):
            window = (..., slice(top, top + height, stride), slice(left, left + width, stride))
            if best is None or along is None:
                best, along = value[window], change[window]
                continue
            larger = value[window] > best
            along = torch.where(larger, change[window], along)
            best = torch.where(larger, value[window], best)
    return Streams(F.max_pool2d(x.value, kernel, stride, padding), along)


def _side(size: Any) -> Any:
    """Of a square, from an int or a pair; None of what is none."""
    pair = size if isinstance(size, tuple | list) else (size, size)
    return pair[0] if len(set(pair)) == 1 else None


FUNCTIONS: dict[Function, Function] = {
    **{f: partial(pointwise, f, slope) for f, slope in SLOPES.items()},
    **{f: partial(linear, f) for f in LINEAR},
    F.max_pool2d: max_pooled,
    F.pad: padded,
    getattr: lambda x, name: getattr(x.value, name),  # a shape
    operator.add: added,
    operator.floordiv: operator.floordiv,  # of sizes
    operator.iadd: added,
    operator.mul: multiplied,
    operator.sub: subtracted,
    operator.truediv: divided,
    torch.add: added,
    torch.cat: joined,
    torch.mul: multiplied,
}
"""Functions that a graph may call."""

METHODS: dict[str, Function] = {
    **{name: partial(linear, getattr(Tensor, name)) for name in LINEAR_METHODS},
    "add": added,
    "dim": lambda x: x.value.dim(),
    "div": divided,
    "mul": multiplied,
    "size": lambda x, *args: x.value.size(*args),
    "sub": subtracted,
}
"""Methods of tensors that a graph may call."""


def is_stream(x: Any) -> bool:
    """Whether `x` is a stream, or has one in it."""
    return isinstance(x, Streams) or (isinstance(x, list | tuple) and any(map(is_stream, x)))


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Streams) else x


def _change(x: Any) -> Tensor | None:
    return x.change if isinstance(x, Streams) else None


def plus(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    """x + y, of changes."""
    if x is None or y is None:
        return y if x is None else x
    return x + y
