"""Search spaces: every genotype is a network, and the ends of a space are where they should be."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import pytest

from samespace_cloud.backbones import BACKBONES, BackboneSpec, backbone_spec
from samespace_cloud.config import TrainConfig
from samespace_cloud.model import ModelConfig
from samespace_cloud.nas.config import SPACES, NasConfig
from samespace_cloud.nas.evolution import Budget
from samespace_cloud.nas.space import Dimension, SearchSpace, elastic, shuffle
from samespace_edge import ConfigError

CONFIG = TrainConfig(ModelConfig("edge-xs", 24, dim=16), (("cosine-regression", 1.0),))

SPEC = backbone_spec("ir-s16-1x8x1s1k3-4x32x2s2k5-3x64x2s2k3")
SMALL = elastic(SPEC, dim=8, sizes=(16, 24), widths=(0.5, 1.0))
HEADED = elastic(backbone_spec("ir-s16-4x32x2s2k5-f64"), dim=8, sizes=(32,))
SHUFFLE = shuffle(0.25, dim=8, sizes=(32, 48))


@pytest.mark.parametrize("space", [SMALL, HEADED, SHUFFLE], ids=["small", "headed", "shuffle"])
def test_every_genotype_is_a_network(space: SearchSpace) -> None:
    rng = Random(0)
    least, most = space.decode(space.smallest), space.decode(space.largest)
    one, other = space.sample(rng), space.sample(rng)
    for _ in range(200):
        one = space.mutate(space.crossover(one, other, rng), rng, 0.2)
        other = space.sample(rng)
        for genotype in (one, other):
            found = space.decode(genotype)
            assert backbone_spec(found.backbone) == found.spec
            assert found.input_size in space.input_sizes
            assert least.mmacs <= found.mmacs <= most.mmacs
            if space.name == "elastic":
                assert least.parameters <= found.parameters <= most.parameters
            assert space.canonical(genotype) == genotype


def test_the_largest_elastic_network_is_the_cloud() -> None:
    for name in ("lite0-trunk", "lite0", "edge-s"):
        space = elastic(BACKBONES[name])
        assert space.decode(space.largest).spec == BACKBONES[name]
        assert space.decode(space.largest).input_size == 64


def test_the_smallest_elastic_network_by_hand() -> None:
    found = SMALL.decode(SMALL.smallest)
    # Half the stem, one block a stage, the last stage dropped, kernel 5 cropped to 3.
    assert found.backbone == "ir-s8-1x8x1s1k3-2x16x1s2k3"
    assert found.input_size == 16
    assert found.to_json() == {
        "backbone": found.backbone,
        "input_size": 16,
        "mmacs": found.mmacs,
        "parameters": found.parameters,
    }


def test_a_stage_before_a_last_convolution_is_never_dropped() -> None:
    found = HEADED.decode(HEADED.smallest).spec
    assert isinstance(found, BackboneSpec)
    assert len(found.stages) == 1
    assert found.features == 16


def test_genes_of_a_dropped_stage_decide_nothing() -> None:
    names = [d.name for d in SMALL.dimensions]
    genes = list(SMALL.smallest)
    genes[names.index("stage2.expand")] = 1
    assert SMALL.decode(genes) == SMALL.decode(SMALL.smallest)
    assert SMALL.canonical(genes) == SMALL.smallest


def test_the_size_of_a_space_counts_architectures() -> None:
    every = itertools.product(*(range(len(d.choices)) for d in SMALL.dimensions))
    different = {(a.backbone, a.input_size) for a in map(SMALL.decode, every)}
    assert SMALL.size == len(different)
    assert SHUFFLE.size == 2 * 4**20


def test_what_is_made_smaller_fits_or_is_the_smallest() -> None:
    rng = Random(1)
    limit = 2 * SMALL.decode(SMALL.smallest).mmacs

    def fits(genotype: tuple[int, ...]) -> bool:
        return SMALL.decode(genotype).mmacs <= limit

    found = [SMALL.sample_within(rng, fits) for _ in range(100)]
    assert all(fits(g) for g in found)
    assert len(set(found)) > 20
    assert SMALL.sample_within(rng, lambda g: False) == SMALL.smallest


def test_a_mutation_without_luck_still_draws_one_gene() -> None:
    rng = Random(0)
    start = SHUFFLE.largest
    changed = [SHUFFLE.mutate(start, rng, 0.0) for _ in range(40)]
    assert {sum(a != b for a, b in zip(start, c, strict=True)) for c in changed} == {0, 1}


def test_malformed_genotypes_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 14 genes, not 2"):
        SMALL.decode((0, 0))
    with pytest.raises(ConfigError, match="gene 9 of stem is not 0 to 1"):
        SMALL.decode((0, 9, *SMALL.smallest[2:]))


def test_an_elastic_space_needs_inverted_residuals() -> None:
    with pytest.raises(ConfigError, match="take the shuffle space"):
        elastic(BACKBONES["shufflenetv2"])


def test_dimensions_are_data() -> None:
    assert SMALL.dimensions[1] == Dimension("stem", (8, 16))
    assert Dimension("stage1.kernel", (3, 5)) in SMALL.dimensions
    assert Dimension("stage1.expand", (2, 3, 4)) in SMALL.dimensions
    assert Dimension("stage2.blocks", (0, 1, 2)) in SMALL.dimensions


def test_settings_of_a_search_name_what_is_wrong() -> None:
    config = NasConfig(CONFIG)
    for name, known in (("space", "elastic, shuffle"), ("reward", "r1, r2, r3")):
        with pytest.raises(ConfigError, match=f"there is no {name} 'x'; choose one of: {known}"):
            replace(config, **{name: "x"})
    with pytest.raises(ConfigError, match="no rule 'x'"):
        replace(config, rule="x")
    with pytest.raises(ConfigError, match=r"out of range: sizes = \(8,\), score_views = 0"):
        replace(config, sizes=(8,), score_views=0)
    with pytest.raises(ConfigError, match="population = 0"):
        replace(config, population=0)
    with pytest.raises(ConfigError, match="above 0: mmacs = -1"):
        Budget(mmacs=-1)
    assert set(SPACES) == {"elastic", "shuffle"}
