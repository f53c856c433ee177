"""Convolutional backbones, told as rows of data.

The cloud backbones are EfficientNet-Lite (Liu 2020; MnasNet blocks without squeeze-excite and
swish), the edge backbones are narrower, shallower rows of the same blocks. Because every row is
built from the same blocks, an edge model can inherit its weights from a cloud model
(`samespace_cloud.inherit`). A new backbone is one row of `BACKBONES`, or a text that says all of
it, such as `ir-s16-1x8x1s1k3-4x16x2s2k3`: see `samespace_cloud.families` for how to read one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from torch import nn

from samespace_cloud.families.inverted import BackboneSpec, InvertedResidual, Stage
from samespace_cloud.families.layers import Backbone, ConvBn, NetworkSpec
from samespace_cloud.families.mobilenet_v3 import V3Spec
from samespace_cloud.families.shuffle import ShuffleSpec
from samespace_edge import ConfigError
from samespace_export import Cost, count_cost

__all__ = [
    "BACKBONES",
    "FAMILIES",
    "Backbone",
    "BackboneSpec",
    "ConvBn",
    "InvertedResidual",
    "NetworkSpec",
    "ShuffleSpec",
    "Stage",
    "V3Spec",
    "backbone_spec",
    "cost",
    "macs",
    "scaled_to",
]


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


_LITE2 = _LITE0.scaled(width=1.1, depth=1.2)

BACKBONES: dict[str, NetworkSpec] = {
    "lite0": _LITE0,
    "lite0-trunk": _trunk(_LITE0, (1, 2, 2, 3, 3, 4)),
    "lite0-edge": _trunk(_LITE0, (1, 2, 2, 2, 2, 1)),
    "lite1": _LITE0.scaled(depth=1.1),
    "lite2": _LITE2,
    "lite2-trunk": _trunk(_LITE2, (1, 3, 3, 4, 4, 5)),
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
    # Made by hand at other places, for comparison.
    "mobilenetv2": BackboneSpec(
        stem=32,
        stages=_stages(
            (1, 16, 1, 1, 3),
            (6, 24, 2, 2, 3),
            (6, 32, 3, 2, 3),
            (6, 64, 4, 2, 3),
            (6, 96, 3, 1, 3),
            (6, 160, 3, 2, 3),
            (6, 320, 1, 1, 3),
        ),
        features=1280,
    ),
    "mobilenetv3-small": V3Spec.parse(
        "v3-s16-16x16s2k3q-72x24s2k3-88x24s1k3-96x40s2k5qh-240x40s1k5qh-240x40s1k5qh"
        "-120x48s1k5qh-144x48s1k5qh-288x96s2k5qh-576x96s1k5qh-576x96s1k5qh-f576"
    ),
    "shufflenetv2": ShuffleSpec.parse("sh-s24p-116:3333-232:33333333-464:3333-f1024"),
}

FAMILIES: dict[str, type[NetworkSpec]] = {
    "ir": BackboneSpec,
    "sh": ShuffleSpec,
    "v3": V3Spec,
}
"""What a network's text begins with, and who reads it."""


@cache
def backbone_spec(name: str) -> NetworkSpec:
    """The row called `name`, or the network that the text `name` says.

    Raises `ConfigError` with the known names, or with the malformed part of a text.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    family = FAMILIES.get(name.split("-")[0])
    if family is None:
        known = ", ".join(sorted(BACKBONES))
        raise ConfigError(
            f"there is no backbone {name!r}; choose one of: {known}; "
            "or say all of it, such as ir-s16-1x8x1s1k3-4x16x2s2k3"
        )
    return family.parse(name)


def cost(spec: NetworkSpec, input_size: int, dim: int = 128) -> Cost:
    """What one picture costs a network with its embedding head, without building it.

    Args:
        spec: the network.
        input_size: side of the square input, in pixels.
        dim: width of the embedding.
    """
    rows = list(spec.convolutions(input_size))
    head = spec.width * dim
    return Cost(sum(r.macs for r in rows) + head, sum(r.parameters for r in rows) + head + dim)


def macs(model: nn.Module | NetworkSpec, input_size: int, dim: int = 128) -> int:
    """Multiply-accumulates of convolutions and linear layers for one picture, as a bundle's
    manifest has them; of a network as data with the head to an embedding of `dim`."""
    if isinstance(model, nn.Module):
        return count_cost(model, input_size, input_size).macs
    return cost(model, input_size, dim).macs


def scaled_to(name: str, mmacs: float, input_size: int, dim: int = 128) -> str:
    """The text of the network `name` at the width that comes nearest below a budget.

    Args:
        name: a row of `BACKBONES`, or a text.
        mmacs: the budget, in millions of multiply-accumulates, embedding head included.
        input_size: side of the square input, in pixels.
        dim: width of the embedding.

    All channels are multiplied by one factor, to multiples of 8, or of 4 below 16. Raises
    `ConfigError` where even the narrowest costs more.
    """
    spec = backbone_spec(name)
    low, high = 0, 800
    narrowest = spec.widened(low / 100)
    if (least := macs(narrowest, input_size, dim) / 1e6) > mmacs:
        raise ConfigError(
            f"{name} at {input_size} px costs {least:.2f} MMACs at its narrowest, more than "
            f"{mmacs:g}; take fewer pixels or another backbone"
        )
    # The cost never falls as the width grows, so the widest that fits is found by halving.
    while high - low > 1:
        middle = (low + high) // 2
        fits = macs(spec.widened(middle / 100), input_size, dim) <= mmacs * 1e6
        low, high = (middle, high) if fits else (low, middle)
    return spec.widened(low / 100).text
