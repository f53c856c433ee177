"""Networks as text: there and back, what they cost, and the published ones exactly."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch

from samespace_cloud.backbones import (
    BACKBONES,
    BackboneSpec,
    ShuffleSpec,
    Stage,
    backbone_spec,
    cost,
    macs,
    scaled_to,
)
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.families.shuffle import shuffled
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_edge import ConfigError
from samespace_export import count_cost, export_bundle

TEXTS = [
    "ir-s16-1x8x1s1k3-3x16x2s2k5",
    "ir-s8-2x8x1s2k7-f64",
    "sh-s8-16:3x-32s1:75-f24",
    "sh-s12p-24:35",
    "v3-s8-16x8s2k3q-24x8s1k5h-32x16s2k3qh-f32",
]


def random_spec(rng: Random) -> BackboneSpec:
    stages = tuple(
        Stage(
            rng.randint(1, 6),
            8 * rng.randint(1, 5),
            rng.randint(1, 3),
            rng.randint(1, 2),
            rng.choice([1, 3, 5, 7]),
        )
        for _ in range(rng.randint(1, 4))
    )
    return BackboneSpec(8 * rng.randint(1, 3), stages, rng.choice([None, 8 * rng.randint(1, 9)]))


@pytest.mark.parametrize("name", [*sorted(BACKBONES), *TEXTS])
def test_text_says_all_of_a_network(name: str) -> None:
    spec = backbone_spec(name)
    assert backbone_spec(spec.text) == spec
    if name in TEXTS:
        assert spec.text == name


def test_any_inverted_network_comes_back_and_costs_what_runs() -> None:
    for seed in range(12):
        spec = random_spec(Random(seed))
        assert backbone_spec(spec.text) == spec
        model = EmbeddingModel(ModelConfig(spec.text, 33, dim=8))
        assert count_cost(model, 33, 33) == cost(spec, 33, dim=8)


@pytest.mark.parametrize("name", [*sorted(BACKBONES), *TEXTS])
def test_cost_is_what_the_layers_that_run_cost(name: str) -> None:
    model = EmbeddingModel(ModelConfig(name, 40, dim=24))
    assert cost(backbone_spec(name), 40, dim=24) == count_cost(model, 40, 40)
    assert macs(model, 40) == macs(backbone_spec(name), 40, dim=24)
    assert model.backbone.width == backbone_spec(name).width


def test_a_bundle_says_the_same_cost(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "sh-s8-16:3x-32:57-f24"
    checkpoint = Checkpoint(EmbeddingModel(ModelConfig(name, 32, dim=8)).eval(), "edge")
    exported = export_bundle(checkpoint.model, checkpoint.export_spec("x"), tmp_path / "x.bundle")
    manifest = exported.bundle.manifest
    assert manifest.macs == macs(backbone_spec(name), 32, dim=8)
    assert manifest.parameters == cost(backbone_spec(name), 32, dim=8).parameters
    assert manifest.architecture == f"{name}-32px-8d"


@pytest.mark.parametrize(
    ("name", "parameters"),
    # torchvision's numbers of weights, less the classifiers.
    [
        ("mobilenetv2", 3_504_872 - 1_281_000),
        ("mobilenetv3-small", 927_008),
        ("shufflenetv2", 2_278_604 - 1_025_000),
    ],
)
def test_hand_made_networks_have_the_published_size(name: str, parameters: int) -> None:
    spec = backbone_spec(name)
    assert cost(spec, 224, dim=1).parameters - spec.width - 1 == parameters


def test_hand_made_networks_cost_what_was_published() -> None:
    # 300 M (Sandler et al. 2018) and 146 M (Ma et al. 2018), with the classifier.
    for name, published in (("mobilenetv2", 300e6), ("shufflenetv2", 146e6)):
        spec = backbone_spec(name)
        assert macs(spec, 224, dim=1000) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", ["mobilenetv2", "mobilenetv3-small", "shufflenetv2", "edge-s"])
def test_the_widest_network_within_a_budget(name: str) -> None:
    spec = backbone_spec(scaled_to(name, 3.0, 48))
    found = macs(spec, 48) / 1e6
    assert 2.2 < found <= 3.0
    wider = [backbone_spec(name).widened(percent / 100) for percent in range(1, 400)]
    fits = [w for w in wider if macs(w, 48) <= 3e6]
    assert spec == fits[-1]
    channels = spec.stages if isinstance(spec, BackboneSpec | ShuffleSpec) else spec.blocks
    assert all(c.channels % 8 == 0 or c.channels in (4, 12) for c in channels)


def test_a_budget_below_the_narrowest_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mobilenetv2 at 48 px costs 0\.\d+ MMACs at its narr"):
        scaled_to("mobilenetv2", 0.001, 48)


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("ir-s16-6x24x2s3k3", "'6x24x2s3k3'"),
        ("ir-16-6x24x2s2k3", "'16'"),
        ("ir-s16-6x24s2k3-f64", "'6x24s2k3'"),
        ("ir-s16-f64", "'f64'"),
        ("ir-s16", "is not ir-STEM-STAGE"),
        ("sh-s16-64:39", "'64:39'"),
        ("sh-s16-33:33", "'33:33'"),
        ("sh-sp-64:3", "'sp'"),
        ("v3-s16-16x16s2k3hq-f8", "'16x16s2k3hq'"),
        ("v3-s16-16x16s2k3", "'16x16s2k3'"),
    ],
)
def test_a_malformed_text_names_the_part(text: str, culprit: str) -> None:
    with pytest.raises(ConfigError, match=culprit):
        ModelConfig(text, 32)


def test_what_has_no_int8_training_says_so() -> None:
    for name in ("shufflenetv2", "mobilenetv3-small"):
        with pytest.raises(ConfigError, match="cannot be fine-tuned for int8"):
            EmbeddingModel(ModelConfig(name, 32, folded=True))


def test_a_shuffle_takes_channels_from_both_halves_in_turn() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 2)
    assert shuffled(x)[1, :, 2, 1].tolist() == [0, 3, 1, 4, 2, 5]


def test_half_of_the_channels_pass_a_shuffle_block_untouched() -> None:
    backbone = backbone_spec("sh-s8-16:33").build().eval()
    block = backbone.stages[0][1]
    x = torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        assert torch.equal(block(x)[:, ::2], x[:, :8])


def test_a_text_travels_in_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(EmbeddingModel(ModelConfig("sh-s8-16:3x-f24", 32, dim=8)), "edge")
    checkpoint.save(tmp_path / "c")
    again = Checkpoint.load(tmp_path / "c")
    assert again.model.config.backbone == "sh-s8-16:3x-f24"
    assert again.fingerprint == checkpoint.fingerprint
