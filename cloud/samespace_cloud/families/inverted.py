"""Inverted residuals on ReLU6 (MobileNetV2, Sandler et al. 2018), told as rows of data.

As text: `ir-s32-1x16x1s1k3-6x24x2s2k3-f1280` is a stem of 32 channels, stages of
EXPAND x CHANNELS x BLOCKS with stride and kernel, and the last 1x1 convolution, if there is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

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

_STAGE = re.compile(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)s([12])k([1357])")


@dataclass(frozen=True)
class Stage:
    """A run of inverted-residual blocks.

    Attributes:
        expand: channels inside a block, as a multiple of the channels that enter it.
        channels: channels that leave the stage.
        blocks: number of blocks; the first one carries the stride.
        stride: 1 or 2.
        kernel: side of the depthwise kernel, in pixels.
    """

    expand: int
    channels: int
    blocks: int
    stride: int
    kernel: int


@dataclass(frozen=True)
class BackboneSpec:
    """An inverted-residual network as data.

    Attributes:
        stem: channels of the first, stride-2 convolution.
        stages: the blocks.
        features: width of the last 1x1 convolution, which is what gets pooled; None pools the
            last stage itself.
    """

    stem: int
    stages: tuple[Stage, ...]
    features: int | None

    @property
    def text(self) -> str:
        """The network in a line; see the module."""
        stages = [f"{s.expand}x{s.channels}x{s.blocks}s{s.stride}k{s.kernel}" for s in self.stages]
        return "-".join(
            ["ir", f"s{self.stem}", *stages, *([f"f{self.features}"] if self.features else [])]
        )

    @classmethod
    def parse(cls, text: str) -> BackboneSpec:
        """The opposite of `text`; raises `ConfigError` with the malformed part."""
        stem, *rest = parts_of(text, "ir")
        if not re.fullmatch(r"s[1-9]\d*", stem):
            raise malformed(text, stem, "the stem's channels, such as s32")
        features = None
        if re.fullmatch(r"f[1-9]\d*", rest[-1]):
            features = int(rest.pop()[1:])
        stages: list[Stage] = []
        for part in rest:
            found = _STAGE.fullmatch(part)
            if found is None:
                raise malformed(text, part, "EXPANDxCHANNELSxBLOCKSsSTRIDEkKERNEL: 6x24x2s2k3")
            stages.append(Stage(*(int(n) for n in found.groups())))
        if not stages:
            raise malformed(text, f"f{features}", "after at least one stage")
        return cls(int(stem[1:]), tuple(stages), features)

    @property
    def width(self) -> int:
        """Channels that are pooled."""
        return self.features or self.stages[-1].channels

    def scaled(self, width: float = 1.0, depth: float = 1.0) -> BackboneSpec:
        """The same network, wider or narrower, deeper or shallower.

        Stem and features keep their size and the first and last stage their depth, as
        EfficientNet-Lite does (`fix_head_stem`). Channels are rounded to multiples of 8.
        """
        last = len(self.stages) - 1
        stages = tuple(
            replace(
                stage,
                channels=_round_channels(stage.channels * width),
                blocks=stage.blocks if i in (0, last) else math.ceil(stage.blocks * depth),
            )
            for i, stage in enumerate(self.stages)
        )
        return replace(self, stages=stages)

    def widened(self, factor: float) -> BackboneSpec:
        """All channels times `factor`, stem and features too, rounded by `small_channels`."""
        return BackboneSpec(
            small_channels(self.stem * factor),
            tuple(replace(s, channels=small_channels(s.channels * factor)) for s in self.stages),
            small_channels(self.features * factor) if self.features else None,
        )

    def layers(self, folded: bool) -> Layers:
        """Fresh layers; `folded` without batch norms."""
        stem = ConvBn(3, self.stem, 3, 2, folded=folded)
        stages: list[nn.Module] = []
        inputs = self.stem
        for stage in self.stages:
            blocks: list[nn.Module] = []
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(InvertedResidual(inputs, stage, stride, folded))
                inputs = stage.channels
            stages.append(nn.Sequential(*blocks))
        head = ConvBn(inputs, self.features, 1, folded=folded) if self.features else nn.Identity()
        return Layers(stem, nn.Sequential(*stages), head, self.width)

    def convolutions(self, size: int) -> Iterator[Conv]:
        """What runs for a square input of side `size`, in pixels."""
        side = after(size, 2)
        yield Conv(3, self.stem, 3, side)
        inputs = self.stem
        for stage in self.stages:
            for i in range(stage.blocks):
                inner = inputs * stage.expand
                if stage.expand != 1:
                    yield Conv(inputs, inner, 1, side)
                side = after(side, stage.stride if i == 0 else 1)
                yield Conv(1, inner, stage.kernel, side)
                yield Conv(inner, stage.channels, 1, side)
                inputs = stage.channels
        if self.features:
            yield Conv(inputs, self.features, 1, side)

    def build(self, folded: bool = False) -> Backbone:
        """The network with random weights."""
        return Backbone(self, folded)


class InvertedResidual(nn.Module):
    """1x1 expand, depthwise, 1x1 project; with a shortcut where the shapes allow it
    (MobileNetV2, Sandler et al. 2018, section 3)."""

    def __init__(self, inputs: int, stage: Stage, stride: int, folded: bool = False) -> None:
        super().__init__()
        inner = inputs * stage.expand
        outputs = stage.channels
        self.expand = (
            ConvBn(inputs, inner, 1, folded=folded) if stage.expand != 1 else nn.Identity()
        )
        self.depthwise = ConvBn(inner, inner, stage.kernel, stride, groups=inner, folded=folded)
        self.project = ConvBn(inner, outputs, 1, act=False, folded=folded)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


def _round_channels(value: float) -> int:
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded
