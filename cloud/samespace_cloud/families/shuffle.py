"""ShuffleNetV2 blocks (Ma et al. 2018), one of four kinds each (Guo et al. 2020), on ReLU6.

As text: `sh-s16-64:3357-160:3x73-f512` is a stem of 16 channels, stages of CHANNELS:BLOCKS with
one letter a block, and the last 1x1 convolution, if there is one. `s24p` has a max pooling after
the stem. The first block of a stage halves the side, unless the stage says `64s1:...`.

| letter | block |
| --- | --- |
| 3, 5, 7 | shuffle block with a depthwise convolution of that side |
| x | shuffle-xception block: three depthwise 3x3 convolutions, each with its 1x1 |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.families.layers import (
    Backbone,
    Conv,
    ConvBn,
    Layers,
    after,
    malformed,
    pad_same,
    parts_of,
    small_channels,
)
from samespace_edge import ConfigError

BLOCKS = "357x"
_STAGE = re.compile(r"([1-9]\d*)(s[12])?:([357x]+)")


@dataclass(frozen=True)
class ShuffleStage:
    """A run of shuffle blocks.

    Attributes:
        channels: channels that leave the stage, an even number.
        blocks: a letter for each block; the first one carries the stride.
        stride: 1 or 2.
    """

    channels: int
    blocks: str
    stride: int = 2


@dataclass(frozen=True)
class ShuffleSpec:
    """A network of shuffle blocks as data.

    Attributes:
        stem: channels of the first, stride-2 convolution.
        stages: the blocks.
        features: width of the last 1x1 convolution; None pools the last stage itself.
        pool: whether a 3x3 max pooling of stride 2 follows the stem, as in ShuffleNetV2.
    """

    stem: int
    stages: tuple[ShuffleStage, ...]
    features: int | None
    pool: bool = False

    def __post_init__(self) -> None:
        if odd := [s.channels for s in self.stages if s.channels % 2]:
            raise ConfigError(f"shuffle blocks halve their channels: {odd} are not even")

    @property
    def text(self) -> str:
        """The network in a line; see the module."""
        stages = [f"{s.channels}{'s1' if s.stride == 1 else ''}:{s.blocks}" for s in self.stages]
        stem = f"s{self.stem}{'p' if self.pool else ''}"
        return "-".join(["sh", stem, *stages, *([f"f{self.features}"] if self.features else [])])

    @classmethod
    def parse(cls, text: str) -> ShuffleSpec:
        """The opposite of `text`; raises `ConfigError` with the malformed part."""
        stem, *rest = parts_of(text, "sh")
        found = re.fullmatch(r"s([1-9]\d*)(p?)", stem)
        if found is None:
            raise malformed(text, stem, "the stem's channels, such as s16 or s24p")
        features = None
        if re.fullmatch(r"f[1-9]\d*", rest[-1]):
            features = int(rest.pop()[1:])
        stages: list[ShuffleStage] = []
        for part in rest:
            row = _STAGE.fullmatch(part)
            if row is None or int(row[1]) % 2:
                raise malformed(text, part, f"CHANNELS:BLOCKS, blocks of {BLOCKS}: 64:3357")
            stages.append(ShuffleStage(int(row[1]), row[3], int((row[2] or "s2")[1:])))
        if not stages:
            raise malformed(text, f"f{features}", "after at least one stage")
        return cls(int(found[1]), tuple(stages), features, bool(found[2]))

    @property
    def width(self) -> int:
        """Channels that are pooled."""
        return self.features or self.stages[-1].channels

    def widened(self, factor: float) -> ShuffleSpec:
        """All channels times `factor`, rounded by `small_channels`."""
        return replace(
            self,
            stem=small_channels(self.stem * factor),
            stages=tuple(
                replace(s, channels=small_channels(s.channels * factor)) for s in self.stages
            ),
            features=small_channels(self.features * factor) if self.features else None,
        )

    def layers(self, folded: bool) -> Layers:
        """Fresh layers; raises `ConfigError` for `folded`."""
        if folded:
            raise ConfigError(
                "shuffle networks cannot be fine-tuned for int8; use one of inverted residuals"
            )
        first: nn.Module = ConvBn(3, self.stem, 3, 2)
        stem = nn.Sequential(first, MaxPool()) if self.pool else first
        stages: list[nn.Module] = []
        inputs = self.stem
        for stage in self.stages:
            blocks: list[nn.Module] = []
            for i, kind in enumerate(stage.blocks):
                strided = i == 0
                blocks.append(
                    ShuffleBlock(
                        inputs,
                        stage.channels,
                        kind,
                        stage.stride if strided else 1,
                        split=not strided,
                    )
                )
                inputs = stage.channels
            stages.append(nn.Sequential(*blocks))
        head = ConvBn(inputs, self.features, 1) if self.features else nn.Identity()
        return Layers(stem, nn.Sequential(*stages), head, self.width)

    def convolutions(self, size: int) -> Iterator[Conv]:
        """What runs for a square input of side `size`, in pixels."""
        side = after(size, 2)
        yield Conv(3, self.stem, 3, side)
        if self.pool:
            side = after(side, 2)
        inputs = self.stem
        for stage in self.stages:
            half = stage.channels // 2
            for i, kind in enumerate(stage.blocks):
                before, side = side, after(side, stage.stride if i == 0 else 1)
                if i == 0:
                    yield Conv(1, inputs, 3 if kind == "x" else int(kind), side)
                    yield Conv(inputs, half, 1, side)
                entering = inputs if i == 0 else half
                if kind == "x":
                    for part in (entering, half, half):
                        yield Conv(1, part, 3, side)
                        yield Conv(part, half, 1, side)
                else:
                    yield Conv(entering, half, 1, before)
                    yield Conv(1, half, int(kind), side)
                    yield Conv(half, half, 1, side)
                inputs = stage.channels
        if self.features:
            yield Conv(inputs, self.features, 1, side)

    def build(self, folded: bool = False) -> Backbone:
        """The network with random weights."""
        return Backbone(self, folded)


class MaxPool(nn.Module):
    """3x3 max pooling of stride 2, padded as SAME; for what ReLU6 made, which is never below 0."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad_same(x, 3, 2), 3, 2)


class ShuffleBlock(nn.Module):
    """One block: a branch of convolutions beside what it leaves as it is, then a shuffle.

    Args:
        inputs, outputs: channels.
        kind: a letter of `BLOCKS`.
        stride: 1 or 2.
        split: whether the branch works on half of the channels and the other half stays as it is;
            otherwise, in the first block of a stage, both halves of the output read all of them.
    """

    def __init__(self, inputs: int, outputs: int, kind: str, stride: int, split: bool) -> None:
        super().__init__()
        half = outputs // 2
        kernel = 3 if kind == "x" else int(kind)
        self.split = inputs // 2 if split else 0
        self.aside = (
            nn.Identity()
            if split
            else nn.Sequential(
                ConvBn(inputs, inputs, kernel, stride, groups=inputs, act=False),
                ConvBn(inputs, half, 1),
            )
        )
        entering = half if split else inputs
        self.branch = nn.Sequential(
            *(
                _separable(entering, half, stride)
                + _separable(half, half, 1)
                + _separable(half, half, 1)
                if kind == "x"
                else [
                    ConvBn(entering, half, 1),
                    ConvBn(half, half, kernel, stride, groups=half, act=False),
                    ConvBn(half, half, 1),
                ]
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x[:, : self.split], x[:, self.split :]) if self.split else (x, x)
        return shuffled(torch.cat([self.aside(left), self.branch(right)], 1))


def shuffled(x: Tensor) -> Tensor:
    """Channels (N, C, H, W) of the first half between those of the second."""
    n, channels, height, width = x.shape
    # Four axes at most: mobile runtimes are poor at transposing more.
    y = x.reshape(n, 2, channels // 2, height * width).transpose(1, 2)
    return y.reshape(n, channels, height, width)


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        ConvBn(inputs, inputs, 3, stride, groups=inputs, act=False),
        ConvBn(inputs, outputs, 1),
    ]
