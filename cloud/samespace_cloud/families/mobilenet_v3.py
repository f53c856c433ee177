"""MobileNetV3 blocks (Howard et al. 2019): squeeze-and-excite and hard swish. For comparison.

As text: `v3-s16-16x16s2k3q-240x40s1k5qh-f576` is a stem of 16 channels, blocks of
INNER x CHANNELS with stride, kernel, `q` for squeeze-and-excite and `h` for hard swish in place of
ReLU6, and the last 1x1 convolution. Stem and last convolution have hard swish.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.families.layers import (
    Backbone,
    Conv,
    ConvBn,
    Layers,
    after,
    malformed,
    parts_of,
    small_channels,
)
from samespace_edge import ConfigError

_BLOCK = re.compile(r"([1-9]\d*)x([1-9]\d*)s([12])k([1357])(q?)(h?)")


@dataclass(frozen=True)
class V3Block:
    """A block: `inner` channels between, `channels` that leave it, and what the letters say."""

    inner: int
    channels: int
    stride: int
    kernel: int
    squeeze: bool
    swish: bool


@dataclass(frozen=True)
class V3Spec:
    """A MobileNetV3 as data.

    Attributes:
        stem: channels of the first, stride-2 convolution.
        blocks: the blocks.
        features: width of the last 1x1 convolution.
    """

    stem: int
    blocks: tuple[V3Block, ...]
    features: int

    @property
    def text(self) -> str:
        """The network in a line; see the module."""
        blocks = [
            f"{b.inner}x{b.channels}s{b.stride}k{b.kernel}{'q' * b.squeeze}{'h' * b.swish}"
            for b in self.blocks
        ]
        return "-".join(["v3", f"s{self.stem}", *blocks, f"f{self.features}"])

    @classmethod
    def parse(cls, text: str) -> V3Spec:
        """The opposite of `text`; raises `ConfigError` with the malformed part."""
        stem, *parts, features = parts_of(text, "v3")
        if not re.fullmatch(r"s[1-9]\d*", stem):
            raise malformed(text, stem, "the stem's channels, such as s16")
        if not re.fullmatch(r"f[1-9]\d*", features):
            raise malformed(text, features, "the last convolution's channels, such as f576")
        blocks = []
        for part in parts:
            found = _BLOCK.fullmatch(part)
            if found is None:
                raise malformed(text, part, "INNERxCHANNELSsSTRIDEkKERNEL, q, h: 240x40s1k5qh")
            inner, channels, stride, kernel = (int(n) for n in found.groups()[:4])
            blocks.append(V3Block(inner, channels, stride, kernel, bool(found[5]), bool(found[6])))
        return cls(int(stem[1:]), tuple(blocks), int(features[1:]))

    @property
    def width(self) -> int:
        """Channels that are pooled."""
        return self.features

    def widened(self, factor: float) -> V3Spec:
        """All channels times `factor`, rounded by `small_channels`."""
        return V3Spec(
            small_channels(self.stem * factor),
            tuple(
                replace(
                    b,
                    inner=small_channels(b.inner * factor),
                    channels=small_channels(b.channels * factor),
                )
                for b in self.blocks
            ),
            small_channels(self.features * factor),
        )

    def layers(self, folded: bool) -> Layers:
        """Fresh layers; raises `ConfigError` for `folded`."""
        if folded:
            raise ConfigError(
                "MobileNetV3 cannot be fine-tuned for int8; use one of inverted residuals"
            )
        inputs, blocks = self.stem, []
        for block in self.blocks:
            blocks.append(V3Residual(inputs, block))
            inputs = block.channels
        stem = nn.Sequential(ConvBn(3, self.stem, 3, 2, act=False), HardSwish())
        head = nn.Sequential(ConvBn(inputs, self.features, 1, act=False), HardSwish())
        return Layers(stem, nn.Sequential(*blocks), head, self.features)

    def convolutions(self, size: int) -> Iterator[Conv]:
        """What runs for a square input of side `size`, in pixels."""
        side = after(size, 2)
        yield Conv(3, self.stem, 3, side)
        inputs = self.stem
        for b in self.blocks:
            if b.inner != inputs:
                yield Conv(inputs, b.inner, 1, side)
            side = after(side, b.stride)
            yield Conv(1, b.inner, b.kernel, side)
            if b.squeeze:
                yield Conv(b.inner, _squeezed(b.inner), 1, 1, bias=True)
                yield Conv(_squeezed(b.inner), b.inner, 1, 1, bias=True)
            yield Conv(b.inner, b.channels, 1, side)
            inputs = b.channels
        yield Conv(inputs, self.features, 1, side)

    def build(self, folded: bool = False) -> Backbone:
        """The network with random weights."""
        return Backbone(self, folded)


class HardSwish(nn.Module):
    """x relu6(x + 3) / 6, of operations that every format has."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.relu6(x + 3) / 6


class SqueezeExcite(nn.Module):
    """Channels weighted by what is seen in the whole picture (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, _squeezed(channels), 1)
        self.restore = nn.Conv2d(_squeezed(channels), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * F.relu6(self.restore(seen) + 3) / 6


class V3Residual(nn.Module):
    """1x1 expand, depthwise, squeeze-and-excite, 1x1 project, and the shortcut where it fits."""

    def __init__(self, inputs: int, block: V3Block) -> None:
        super().__init__()
        inner = block.inner
        act = HardSwish() if block.swish else nn.ReLU6()
        layers: list[nn.Module] = []
        if inner != inputs:
            layers += [ConvBn(inputs, inner, 1, act=False), act]
        layers += [
            ConvBn(inner, inner, block.kernel, block.stride, groups=inner, act=False),
            act,
        ]
        if block.squeeze:
            layers.append(SqueezeExcite(inner))
        layers.append(ConvBn(inner, block.channels, 1, act=False))
        self.layers = nn.Sequential(*layers)
        self.shortcut = block.stride == 1 and inputs == block.channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


def _squeezed(channels: int) -> int:
    """A quarter, to the nearest multiple of 8 that is not far below."""
    rounded = max(8, (channels // 4 + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * (channels // 4) else rounded
