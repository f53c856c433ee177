"""Convolutional backbones of one family: inverted residuals on ReLU6, told as rows of data.

The cloud backbones are EfficientNet-Lite (Liu 2020; MnasNet blocks without squeeze-excite and
swish), the edge backbones are narrower, shallower rows of the same blocks. Because every row is
built from the same blocks, an edge model can inherit its weights from a cloud model
(`samespace_cloud.inherit`). A new backbone is one row of `BACKBONES`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_edge import ConfigError


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


def _round_channels(value: float) -> int:
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def _stages(*rows: tuple[int, int, int, int, int]) -> tuple[Stage, ...]:
    return tuple(Stage(*row) for row in rows)


_LITE0 = BackboneSpec(
    stem=32,
    stages=_stages(
        # expand, channels, blocks, stride, kernel
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ),
    features=1280,
)


def _trunk(spec: BackboneSpec, blocks: tuple[int, ...]) -> BackboneSpec:
    """The network's first stages, each with its first blocks, pooled as they are.

    The last stage and the wide 1x1 convolution are specialised to ImageNet's classes: without
    them the features carry over better to products, and cost less.
    """
    kept = zip(spec.stages, blocks, strict=False)
    return BackboneSpec(spec.stem, tuple(replace(s, blocks=n) for s, n in kept), None)


BACKBONES: dict[str, BackboneSpec] = {
    "lite0": _LITE0,
    "lite0-trunk": _trunk(_LITE0, (1, 2, 2, 3, 3, 4)),
    "lite0-edge": _trunk(_LITE0, (1, 2, 2, 2, 2, 1)),
    "lite1": _LITE0.scaled(depth=1.1),
    "lite2": _LITE0.scaled(width=1.1, depth=1.2),
    "edge-m": BackboneSpec(
        stem=16,
        stages=_stages(
            (1, 8, 1, 1, 3),
            (6, 16, 2, 2, 3),
            (6, 24, 2, 2, 5),
            (6, 48, 2, 2, 3),
            (6, 64, 2, 1, 5),
            (6, 96, 2, 2, 5),
        ),
        features=512,
    ),
    "edge-s": BackboneSpec(
        stem=16,
        stages=_stages(
            (1, 8, 1, 1, 3),
            (4, 16, 2, 2, 3),
            (4, 24, 2, 2, 3),
            (4, 48, 2, 2, 3),
            (4, 64, 1, 1, 3),
        ),
        features=256,
    ),
    "edge-xs": BackboneSpec(
        stem=8,
        stages=_stages((1, 8, 1, 1, 3), (3, 16, 1, 2, 3), (3, 24, 1, 2, 3), (3, 32, 1, 2, 3)),
        features=128,
    ),
}


def backbone_spec(name: str) -> BackboneSpec:
    """The row called `name`; raises `ConfigError` with the known names."""
    try:
        return BACKBONES[name]
    except KeyError:
        known = ", ".join(sorted(BACKBONES))
        raise ConfigError(f"there is no backbone {name!r}; choose one of: {known}") from None


class ConvBn(nn.Module):
    """Convolution padded as TensorFlow's SAME, batch norm and, unless `act=False`, ReLU6.

    SAME pads the right and bottom more when a stride-2 kernel does not fit evenly, which is how
    the published weights were trained. `folded` leaves the batch norm to the convolution's bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
        folded: bool = False,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=padding, groups=groups, bias=folded
        )
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.1)
        self.act = act
        self.stride = stride
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = _pad_same(x, self.kernel, self.stride)
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.act else x


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    pads: list[int] = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


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


class Backbone(nn.Module):
    """Normalised float images (N, 3, H, W) to pooled features (N, `width`), float32.

    Args:
        spec: the network.
        folded: without batch norms, for weights that they were merged into.
    """

    def __init__(self, spec: BackboneSpec, folded: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.stem = ConvBn(3, spec.stem, 3, 2, folded=folded)
        stages: list[nn.Module] = []
        inputs = spec.stem
        for stage in spec.stages:
            blocks: list[nn.Module] = []
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(InvertedResidual(inputs, stage, stride, folded))
                inputs = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = (
            ConvBn(inputs, spec.features, 1, folded=folded) if spec.features else nn.Identity()
        )
        self.width = spec.features or inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(self.head(self.stages(self.stem(x))), dim=(2, 3))
