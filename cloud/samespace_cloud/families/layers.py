"""What every family of networks is built from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_edge import ConfigError


class Layers(NamedTuple):
    """The parts of a network; `width` is how many channels leave `head`."""

    stem: nn.Module
    stages: nn.Sequential
    head: nn.Module
    width: int


@dataclass(frozen=True)
class Conv:
    """A convolution as it runs, for counting.

    Attributes:
        inputs: channels that each output channel reads.
        outputs: channels that it makes.
        kernel: side of the kernel, in pixels.
        side: side of what it makes, in pixels.
        bias: whether a bias follows, rather than a batch norm.
    """

    inputs: int
    outputs: int
    kernel: int
    side: int
    bias: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.inputs * self.outputs * self.kernel**2 * self.side**2

    @property
    def parameters(self) -> int:
        """Weights, and the bias or the norm's scale and shift."""
        return self.outputs * (self.inputs * self.kernel**2 + (1 if self.bias else 2))


class NetworkSpec(Protocol):
    """A network as data."""

    @property
    def text(self) -> str:
        """The network in a line, which `parse` reads."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The opposite of `text`; raises `ConfigError` with the malformed part."""

    @property
    def width(self) -> int:
        """Channels that are pooled."""

    def widened(self, factor: float) -> Self:
        """The same network with all channels times `factor`, rounded by `small_channels`."""

    def layers(self, folded: bool) -> Layers:
        """Fresh layers; `folded` without batch norms. Raises `ConfigError` where it cannot be."""

    def convolutions(self, size: int) -> Iterator[Conv]:
        """What runs for a square input of side `size`, in pixels."""

    def build(self, folded: bool = False) -> Backbone:
        """The network with random weights."""


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
            x = pad_same(x, self.kernel, self.stride)
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.act else x


class Backbone(nn.Module):
    """Normalised float images (N, 3, H, W) to pooled features (N, `width`), float32.

    Args:
        spec: the network.
        folded: without batch norms, for weights that they were merged into.
    """

    def __init__(self, spec: NetworkSpec, folded: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.stem, self.stages, self.head, self.width = spec.layers(folded)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(self.head(self.stages(self.stem(x))), dim=(2, 3))


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around (N, C, H, W) as TensorFlow's SAME has them."""
    pads: list[int] = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def small_channels(value: float) -> int:
    """The nearest multiple of 8, or of 4 below 16; at least 4."""
    step = 4 if value < 14 else 8
    return max(4, int(value / step + 0.5) * step)


def after(size: int, stride: int) -> int:
    """Side of what a convolution of that stride makes of side `size`."""
    return -(-size // stride)


def parts_of(text: str, family: str) -> list[str]:
    """The dash-separated parts of a network's text, without its family."""
    first, *parts = text.split("-")
    if first != family or len(parts) < 2:
        raise ConfigError(f"the backbone text {text!r} is not {family}-STEM-STAGE-...")
    return parts


def malformed(text: str, part: str, wanted: str) -> ConfigError:
    """The error that names the part of a network's text that cannot be read."""
    return ConfigError(f"the part {part!r} of the backbone text {text!r} should be {wanted}")
