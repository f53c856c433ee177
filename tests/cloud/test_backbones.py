"""Backbones: the published network exactly, and rows cut from it."""

from __future__ import annotations

import pytest
import torch

from samespace_cloud.backbones import BACKBONES, Backbone, BackboneSpec, Stage, backbone_spec
from samespace_cloud.inherit import inherit
from samespace_cloud.pretrained import load_pretrained
from samespace_edge import ConfigError
from samespace_export import count_cost

TINY = BackboneSpec(8, (Stage(1, 8, 1, 1, 3), Stage(2, 16, 2, 2, 3)), 32)


def test_cost_of_a_tiny_backbone_counted_by_hand() -> None:
    # 32 px: stem 16x16; stage 1 at 16x16; stage 2 at 8x8 after its first, stride-2 depthwise.
    stem = 16 * 16 * 8 * 3 * 9
    first = 16 * 16 * 8 * 9 + 16 * 16 * 8 * 8
    second = 16 * 16 * 16 * 8 + 8 * 8 * 16 * 9 + 8 * 8 * 16 * 16
    third = 8 * 8 * 32 * 16 + 8 * 8 * 32 * 9 + 8 * 8 * 16 * 32
    head = 8 * 8 * 32 * 16
    assert count_cost(Backbone(TINY), 32, 32).macs == stem + first + second + third + head


def test_lite0_is_efficientnet_lite0() -> None:
    backbone = Backbone(BACKBONES["lite0"])
    assert count_cost(backbone, 224, 224).parameters == 3_371_008
    # The published 407 M at 224 px count the classifier and round otherwise; within 6 %.
    assert count_cost(backbone, 224, 224).mmacs == pytest.approx(407, rel=0.06)
    # The published parameter counts, less the classifier of 1,281,000.
    for name, published in (("lite1", 5.4e6), ("lite2", 6.1e6)):
        parameters = count_cost(Backbone(BACKBONES[name]), 64, 64).parameters
        assert parameters + 1_281_000 == pytest.approx(published, rel=0.02)


def test_imagenet_weights_land_where_they_belong() -> None:
    """The network gives on a picture what the published network gives (recorded features)."""
    backbone = Backbone(BACKBONES["lite0"])
    load_pretrained(backbone, "lite0")
    backbone.eval()
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        features = backbone(x)[0]
    assert features.shape == (1280,)
    assert features.mean().item() == pytest.approx(MEAN_FEATURE, rel=1e-3)
    assert features.max().item() == pytest.approx(MAX_FEATURE, rel=1e-3)


# Made with efficientnet-lite-pytorch 0.1.0, extract_features(x).mean((2, 3)), same weights.
MEAN_FEATURE = 0.04117754474282265
MAX_FEATURE = 4.1889238357543945


def test_rows_cut_from_lite0_take_its_weights() -> None:
    whole, cut = Backbone(BACKBONES["lite0"]), Backbone(BACKBONES["lite0-edge"])
    load_pretrained(whole, "lite0")
    load_pretrained(cut, "lite0-edge")
    theirs = whole.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in cut.state_dict().items())
    with pytest.raises(ConfigError, match="there are no pretrained weights for 'edge-s'"):
        load_pretrained(Backbone(BACKBONES["edge-s"]), "edge-s")


def test_a_narrower_model_inherits_leading_channels() -> None:
    wide = Backbone(TINY)
    narrow = Backbone(BackboneSpec(4, (Stage(1, 8, 1, 1, 3), Stage(2, 8, 3, 2, 3)), 16))
    found = inherit(narrow, wide)
    assert torch.equal(narrow.stem.conv.weight, wide.stem.conv.weight[:4])
    assert found.sliced > 0
    assert found.fresh > 0  # the third block of the second stage
    assert found.whole + found.sliced + found.fresh == len(narrow.state_dict())
    same = Backbone(TINY)
    assert inherit(same, wide).whole == len(wide.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(same.eval()(x), wide.eval()(x))


def test_scaling_rounds_channels_and_keeps_the_ends() -> None:
    spec = BACKBONES["lite0"].scaled(width=1.1, depth=1.2)
    assert [s.channels for s in spec.stages] == [16, 24, 48, 88, 120, 208, 352]
    assert [s.blocks for s in spec.stages] == [1, 3, 3, 4, 4, 5, 1]
    assert (spec.stem, spec.features) == (32, 1280)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_row_builds_and_takes_odd_sizes(name: str) -> None:
    backbone = Backbone(backbone_spec(name)).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(2, 3, 33, 47)).shape == (2, backbone.width)


def test_unknown_backbones_name_the_known() -> None:
    with pytest.raises(ConfigError, match="edge-m, edge-s"):
        backbone_spec("resnet")


@pytest.mark.parametrize("name", ["lite1", "lite2"])
def test_the_larger_networks_take_their_weights(name: str) -> None:
    backbone = Backbone(BACKBONES[name])
    before = backbone.state_dict()["stages.3.2.project.conv.weight"].clone()
    load_pretrained(backbone, name)
    assert not torch.equal(before, backbone.state_dict()["stages.3.2.project.conv.weight"])


def test_a_smaller_kernel_takes_the_centre_of_a_larger_one() -> None:
    larger, smaller = torch.nn.Conv2d(4, 6, 5), torch.nn.Conv2d(2, 3, 3)
    inherit(smaller, larger)
    assert torch.equal(smaller.weight, larger.weight[:3, :2, 1:4, 1:4])
    assert torch.equal(smaller.bias, larger.bias[:3])
