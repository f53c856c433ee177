"""Depthwise convolutions whose weight gradient does not wait for oneDNN.

oneDNN needs up to 25 times as long for the weight gradient of a large depthwise kernel on a small
map as matrix products do: for 5x5 kernels on 3x3 maps half of a whole training step, on AVX2 and on
AVX-512 (torch 2.13).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Measured, for 64 and 128 pictures: on larger maps, and for 3x3 kernels, oneDNN is as fast.
_SMALLEST_KERNEL = 5
_LARGEST_MAP, _LARGEST_STRIDED_MAP = 6, 3


def quicken(module: nn.Module) -> None:
    """Make the depthwise convolutions in `module` compute their weight gradients here.

    Values and gradients stay the same but for rounding; on other devices than a CPU, and outside
    training, nothing changes.
    """
    for part in module.modules():
        if type(part) is nn.Conv2d and part.groups == part.in_channels == part.out_channels:
            part.__class__ = _Depthwise


class _Depthwise(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._is_slow(input):
            y: Tensor = _Convolve.apply(  # type: ignore[no-untyped-call]
                input, weight, bias, self.stride[0], int(self.padding[0])
            )
            return y
        plain: Tensor = super()._conv_forward(input, weight, bias)
        return plain

    def _is_slow(self, x: Tensor) -> bool:
        kernel, stride, padding = self.kernel_size, self.stride, self.padding
        if not (
            self.training
            and torch.is_grad_enabled()
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and kernel[0] == kernel[1] >= _SMALLEST_KERNEL
            and stride[0] == stride[1]
            and padding[0] == padding[1]
            and self.dilation == (1, 1)
            and self.padding_mode == "zeros"
        ):
            return False
        side = (max(x.shape[-2:]) + 2 * int(padding[0]) - kernel[0]) // stride[0] + 1
        return side <= (_LARGEST_MAP if stride[0] == 1 else _LARGEST_STRIDED_MAP)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = [ctx.stride] * 2, [ctx.padding] * 2
        wanted = [ctx.needs_input_grad[0], False, ctx.needs_input_grad[2]]
        of_x, _, of_bias = torch.ops.aten.convolution_backward(
            grad, x, weight, [len(weight)], stride, padding, [1, 1], False, [0, 0], len(weight),
            wanted,
        )  # fmt: skip
        of_weight = weight_gradient(x, grad, weight.shape[-1], ctx.stride, ctx.padding)
        return of_x, of_weight, of_bias, None, None


def weight_gradient(x: Tensor, grad: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """The gradient (C, 1, K, K) of a depthwise convolution's weight.

    Args:
        x: its input (N, C, H, W).
        grad: the gradient of its output (N, C, H', W').
        kernel: K.
    """
    if stride == 1:
        found = _by_products(x, grad, kernel, padding)
    else:
        found = _by_shifts(x, grad, kernel, stride, padding)
    return found.reshape(-1, 1, kernel, kernel)


def _by_products(x: Tensor, grad: Tensor, kernel: int, padding: int) -> Tensor:
    """The gradient (C, K²): a product of maps by channel, whose entries are then sorted."""
    count, channels, height, width = x.shape
    # Contiguous, or bmm multiplies one channel at a time.
    ours = x.permute(1, 2, 3, 0).reshape(channels, height * width, count).contiguous()
    theirs = grad.permute(1, 0, 2, 3).reshape(channels, count, -1).contiguous()
    pairs = torch.bmm(ours, theirs).view(channels, -1)
    return pairs @ _places(height, width, kernel, padding)


@lru_cache(maxsize=32)
def _places(height: int, width: int, kernel: int, padding: int) -> Tensor:
    """Which weight a pair of input and output pixels belongs to, 0 or 1, float32 (P P', K²)."""

    def offsets(side: int) -> Tensor:
        made = side + 2 * padding - kernel + 1
        apart = torch.arange(side)[:, None] - torch.arange(made)[None] + padding
        return F.one_hot(apart.clamp(-1, kernel) + 1, kernel + 2)[..., 1:-1].to(torch.float32)

    rows, columns = offsets(height), offsets(width)
    return torch.einsum("iak,jbl->ijabkl", rows, columns).reshape(-1, kernel * kernel)


def _by_shifts(x: Tensor, grad: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """The gradient (C, K²): a sum for every weight, of input pixels times output gradients."""
    sums = x.new_zeros(kernel, kernel, x.shape[1])
    for i in range(kernel):
        ours_y, theirs_y = _overlap(x.shape[2], grad.shape[2], i - padding, stride)
        for j in range(kernel):
            ours_x, theirs_x = _overlap(x.shape[3], grad.shape[3], j - padding, stride)
            product = x[:, :, ours_y, ours_x] * grad[:, :, theirs_y, theirs_x]
            sums[i, j] = product.sum((0, 2, 3))
    return sums.flatten(0, 1).T


def _overlap(side: int, made: int, offset: int, stride: int) -> tuple[slice, slice]:
    """Which inputs of a row, and which outputs, meet at one weight."""
    first = max(0, -(offset // stride))
    last = max(first, min(made, (side - 1 - offset) // stride + 1))
    start = first * stride + offset
    return slice(start, start + (last - first) * stride, stride), slice(first, last)
