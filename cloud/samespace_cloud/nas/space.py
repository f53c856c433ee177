"""Search spaces as data: named dimensions with choices, and how choices become a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any, TypeAlias

from samespace_cloud.backbones import BackboneSpec, NetworkSpec, ShuffleSpec, Stage, cost
from samespace_cloud.families.shuffle import BLOCKS, ShuffleStage
from samespace_edge import ConfigError
from samespace_export import Cost

Genotype: TypeAlias = tuple[int, ...]
"""The place of the choice made in every dimension of a space."""

SIZES = (32, 40, 48, 56, 64)
WIDTHS = (0.25, 0.375, 0.5, 0.75, 1.0)
_EXPANDS = (2, 3, 4, 6)
_SHUFFLE = ShuffleSpec.parse("sh-s16-64:3333-160:3333-320:33333333-640:3333-f1024")


@dataclass(frozen=True)
class Dimension:
    """Something to choose; the cheapest choice first."""

    name: str
    choices: tuple[int | str, ...]


@dataclass(frozen=True)
class Architecture:
    """A network at an input size.

    Attributes:
        spec: the network.
        input_size: side of the square input, in pixels.
        dim: width of the embedding, which is part of the cost.
    """

    spec: NetworkSpec
    input_size: int
    dim: int = 128

    @property
    def backbone(self) -> str:
        """The network as text, for `ModelConfig` and `--backbone`."""
        return self.spec.text

    @cached_property
    def _cost(self) -> Cost:
        return cost(self.spec, self.input_size, self.dim)

    @property
    def mmacs(self) -> float:
        """Millions of multiply-accumulates for one picture."""
        return self._cost.mmacs

    @property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return self._cost.parameters

    def to_json(self) -> dict[str, Any]:
        """As it stands in `architectures.json`."""
        return {
            "backbone": self.backbone,
            "input_size": self.input_size,
            "mmacs": self.mmacs,
            "parameters": self.parameters,
        }


@dataclass(frozen=True)
class SearchSpace:
    """Everything that may be chosen.

    Attributes:
        name: a row of `SPACES`.
        base: the network that the choices are cut from.
        dimensions: what is chosen, one gene each.
        dim: width of the embedding.
    """

    name: str
    base: NetworkSpec
    dimensions: tuple[Dimension, ...]
    dim: int = 128

    @property
    def smallest(self) -> Genotype:
        """The first choice everywhere."""
        return (0,) * len(self.dimensions)

    @property
    def largest(self) -> Genotype:
        """The last choice everywhere."""
        return tuple(len(d.choices) - 1 for d in self.dimensions)

    @property
    def size(self) -> int:
        """Number of different architectures."""
        droppable = [d for d in self.dimensions if d.choices[0] == 0]
        count = 1
        for dimension in self.dimensions:
            if not any(_of_stage(dimension, d) for d in droppable):
                count *= len(dimension.choices)
        for dropped in droppable:
            inside = [d for d in self.dimensions if _of_stage(d, dropped)]
            there = math.prod(len(d.choices) for d in inside if d != dropped)
            count *= 1 + (len(dropped.choices) - 1) * there
        return count

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Sides of the inputs that may be chosen, in pixels."""
        return tuple(int(c) for d in self.dimensions if d.name == "input_size" for c in d.choices)

    def decode(self, genotype: Sequence[int]) -> Architecture:
        """The network that a genotype stands for; raises `ConfigError` for a malformed one."""
        values = self.values(genotype)
        spec = _DECODERS[self.name](self.base, values)
        return Architecture(spec, int(values["input_size"]), self.dim)

    def values(self, genotype: Sequence[int]) -> dict[str, int | str]:
        """What a genotype chooses, by dimension; raises `ConfigError` for a malformed one."""
        if len(genotype) != len(self.dimensions):
            raise ConfigError(
                f"a genotype of the space {self.name!r} has {len(self.dimensions)} genes, "
                f"not {len(genotype)}"
            )
        for gene, dimension in zip(genotype, self.dimensions, strict=True):
            if not 0 <= gene < len(dimension.choices):
                raise ConfigError(
                    f"gene {gene} of {dimension.name} is not 0 to {len(dimension.choices) - 1}"
                )
        return {d.name: d.choices[g] for g, d in zip(genotype, self.dimensions, strict=True)}

    def canonical(self, genotype: Sequence[int]) -> Genotype:
        """The same architecture with 0 for genes that decide nothing, those of a dropped stage."""
        values = self.values(genotype)
        dropped = [d for d in self.dimensions if values[d.name] == 0]
        return tuple(
            0 if any(_of_stage(d, gone) for gone in dropped) else g
            for g, d in zip(genotype, self.dimensions, strict=True)
        )

    def sample(self, rng: Random) -> Genotype:
        """A choice at random, each gene by itself."""
        return self.canonical([rng.randrange(len(d.choices)) for d in self.dimensions])

    def sample_within(self, rng: Random, fits: Callable[[Genotype], bool]) -> Genotype:
        """A choice at random, made smaller gene by gene, at random, until it fits.

        Under a tight budget hardly any plain sample fits. What is returned fits, or is `smallest`.
        """
        genotype = self.sample(rng)
        while not fits(genotype) and (large := [i for i, g in enumerate(genotype) if g]):
            place = rng.choice(large)
            genes = list(genotype)
            genes[place] = rng.randrange(genes[place])
            genotype = self.canonical(genes)
        return genotype

    def mutate(self, genotype: Sequence[int], rng: Random, probability: float) -> Genotype:
        """Each gene drawn anew with `probability`, one at least."""
        sure = rng.randrange(len(genotype))
        return self.canonical(
            [
                rng.randrange(len(d.choices)) if i == sure or rng.random() < probability else g
                for i, (g, d) in enumerate(zip(genotype, self.dimensions, strict=True))
            ]
        )

    def crossover(self, one: Sequence[int], other: Sequence[int], rng: Random) -> Genotype:
        """Each gene from one parent or the other."""
        return self.canonical([rng.choice(pair) for pair in zip(one, other, strict=True)])


def elastic(
    cloud: NetworkSpec,
    dim: int = 128,
    sizes: Sequence[int] = SIZES,
    widths: Sequence[float] = WIDTHS,
) -> SearchSpace:
    """Networks carved out of the cloud's: fewer blocks, fewer channels, smaller kernels.

    Per stage the number of its first blocks, its channels, its expansion and its kernel; the stem's
    and the last convolution's channels; and the input size. Where nothing follows the last stage,
    all of it may be dropped.

    Args:
        cloud: a network of inverted residuals; raises `ConfigError` for another.
        dim: width of the embedding.
        sizes: sides of the inputs, in pixels.
        widths: channels, as shares of the cloud's; rounded to multiples of 8.
    """
    if not isinstance(cloud, BackboneSpec):
        raise ConfigError(
            f"the elastic space is carved out of inverted residuals, not out of {cloud.text}; "
            "take the shuffle space"
        )
    found = [
        Dimension("input_size", tuple(sorted(set(sizes)))),
        Dimension("stem", _channels(cloud.stem, widths)),
    ]
    last = len(cloud.stages) - 1
    for i, stage in enumerate(cloud.stages):
        may_go = i == last > 0 and cloud.features is None
        expands = tuple(e for e in _EXPANDS if e < stage.expand) if stage.expand > 1 else ()
        kernels = tuple(k for k in (3, 5) if k < stage.kernel)
        found += [
            Dimension(f"stage{i}.blocks", tuple(range(0 if may_go else 1, stage.blocks + 1))),
            Dimension(f"stage{i}.channels", _channels(stage.channels, widths)),
            Dimension(f"stage{i}.expand", (*expands, stage.expand)),
            Dimension(f"stage{i}.kernel", (*kernels, stage.kernel)),
        ]
    if cloud.features:
        found.append(Dimension("features", _channels(cloud.features, widths)))
    return SearchSpace("elastic", cloud, tuple(found), dim)


def shuffle(width: float = 0.5, dim: int = 128, sizes: Sequence[int] = SIZES) -> SearchSpace:
    """The space of Single-Path One-Shot and CMP-NAS: twenty blocks of four kinds each.

    Args:
        width: of all channels, as a share of the paper's; fixed, and to be chosen by the budget.
        dim: width of the embedding.
        sizes: sides of the inputs, in pixels.
    """
    base = _SHUFFLE.widened(width)
    blocks = [
        Dimension(f"stage{i}.block{j}", _kinds(base, i, j, max(sizes)))
        for i, stage in enumerate(base.stages)
        for j in range(len(stage.blocks))
    ]
    return SearchSpace(
        "shuffle", base, (Dimension("input_size", tuple(sorted(set(sizes)))), *blocks), dim
    )


def _channels(full: int, widths: Sequence[float]) -> tuple[int, ...]:
    return (
        tuple(sorted({full} | {max(8, round(full * w / 8) * 8) for w in widths if w < 1}))
        if (full > 8)
        else (full,)
    )


def _kinds(base: ShuffleSpec, stage: int, block: int, size: int) -> tuple[str, ...]:
    """The kinds of one block, the cheapest first: in narrow networks 7 costs more than x."""

    def macs(kind: str) -> int:
        kinds = base.stages[stage].blocks
        changed = replace(base.stages[stage], blocks=kinds[:block] + kind + kinds[block + 1 :])
        stages = (*base.stages[:stage], changed, *base.stages[stage + 1 :])
        return cost(replace(base, stages=stages), size).macs

    return tuple(sorted(BLOCKS, key=macs))


def _of_stage(dimension: Dimension, blocks: Dimension) -> bool:
    return dimension.name.split(".")[0] == blocks.name.split(".")[0]


def _decode_elastic(base: NetworkSpec, values: Mapping[str, int | str]) -> NetworkSpec:
    assert isinstance(base, BackboneSpec)
    stages = []
    for i, stage in enumerate(base.stages):
        expand, channels, blocks, kernel = (
            int(values[f"stage{i}.{what}"]) for what in ("expand", "channels", "blocks", "kernel")
        )
        if blocks:
            stages.append(Stage(expand, channels, blocks, stage.stride, kernel))
    features = int(values["features"]) if base.features else None
    return BackboneSpec(int(values["stem"]), tuple(stages), features)


def _decode_shuffle(base: NetworkSpec, values: Mapping[str, int | str]) -> NetworkSpec:
    assert isinstance(base, ShuffleSpec)
    stages = tuple(
        ShuffleStage(
            stage.channels,
            "".join(str(values[f"stage{i}.block{j}"]) for j in range(len(stage.blocks))),
            stage.stride,
        )
        for i, stage in enumerate(base.stages)
    )
    return ShuffleSpec(base.stem, stages, base.features, base.pool)


_DECODERS: dict[str, Callable[[NetworkSpec, Mapping[str, int | str]], NetworkSpec]] = {
    "elastic": _decode_elastic,
    "shuffle": _decode_shuffle,
}
