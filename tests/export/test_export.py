"""Export: what is written is what was trained, and says so itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from samespace_edge import Bundle, BundleFormatError, ConfigError, Embedder, Resize
from samespace_export import count_cost, export_bundle, model_fingerprint
from samespace_export._onnx import OPSET
from samespace_export._operators import kept_operators
from tests.conftest import Brightness, Colours, spec


def test_cost_of_a_network_counted_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),  # 16x16 out: 16*16*8*3*9 = 55,296
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),  # 16*16*8*1*9 = 18,432
        nn.Conv2d(8, 10, 1),  # 16*16*10*8 = 20,480
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 4),  # 40
    )
    cost = count_cost(net, 32, 32)
    assert cost.macs == 55_296 + 18_432 + 20_480 + 40
    assert cost.parameters == 3 * 8 * 9 + 2 * 8 + 8 * 9 + (8 * 10 + 10) + (10 * 4 + 4)
    assert net.training


def test_exported_vectors_are_the_torch_models(
    bundles: dict[str, Path], shop: object, golden: list[bytes]
) -> None:
    embedder = Embedder(bundles["edge"])
    pixels = np.stack([embedder.preprocess(g) for g in golden])
    module = Colours(seed=1, noise=0.05)
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    expected = nn.functional.normalize(module(x)).detach().numpy()
    assert np.abs(embedder.embed_pixels(pixels) - expected).max() < 1e-5


def test_graph_is_clean_dynamic_and_normalised(bundles: dict[str, Path]) -> None:
    model = onnx.load(bundles["edge"] / "model.onnx")
    assert [i.name for i in model.graph.input] == ["image"]
    assert [o.name for o in model.graph.output] == ["embedding"]
    shape = model.graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_param
    assert [d.dim_value for d in shape.dim[1:]] == [16, 16, 3]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert not any(n.metadata_props or n.doc_string for n in model.graph.node)
    embedder = Embedder(bundles["edge"])
    black = np.zeros((5, 16, 16, 3), np.uint8)
    assert np.isfinite(embedder.embed_pixels(black)).all()


def test_fingerprint_follows_weights_and_preprocessing_not_the_name(
    bundles: dict[str, Path],
) -> None:
    module = Colours(seed=1)
    base = spec("cloud", "cloud")
    fingerprint = model_fingerprint(module, base, 24)
    assert Bundle.open(bundles["cloud"]).manifest.fingerprint == fingerprint
    assert model_fingerprint(module, replace(base, name="x", card={"a": 1}), 24) == fingerprint
    for other in (
        replace(base, mean=(0.4, 0.5, 0.5)),
        replace(base, resize=Resize(16, 16, "crop")),
        replace(base, architecture="z"),
    ):
        assert model_fingerprint(module, other, 24) != fingerprint
    with torch.no_grad():
        module.linear.weight[0, 0] += 1e-6
    assert model_fingerprint(module, base, 24) != fingerprint


def test_an_existing_bundle_is_only_replaced_on_request(tmp_path: Path) -> None:
    out = tmp_path / "a.bundle"
    export_bundle(Brightness(), spec("a"), out)
    before = Bundle.open(out).manifest
    with pytest.raises(ConfigError, match="already there"):
        export_bundle(Brightness(), spec("b"), out)
    assert Bundle.open(out).manifest == before
    export_bundle(Brightness(), spec("b"), out, overwrite=True)
    assert Bundle.open(out).manifest.name == "b"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bundle"]


class _Noisy(nn.Module):
    """Adds random numbers: no two runs agree."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Colours(seed=3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y + torch.rand_like(y)


def test_a_model_that_the_exporter_cannot_follow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="departs from the torch model"):
        export_bundle(_Noisy(), spec("a"), tmp_path / "a.bundle")
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_a_bundle_is_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "documents"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleFormatError, match="is not a bundle"):
        export_bundle(Brightness(), spec("a"), precious, overwrite=True)
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_the_table_of_operators_is_built_once_and_torch_is_left_as_it_was() -> None:
    """If this fails with a new torch, exports are right, and slower: `_operators.py`."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    given = ONNXRegistry.__dict__["from_torchlib"]
    with kept_operators():
        kept = ONNXRegistry.from_torchlib(opset_version=OPSET)
    with kept_operators():
        assert ONNXRegistry.from_torchlib(opset_version=OPSET) is kept
    with pytest.raises(ZeroDivisionError), kept_operators():
        raise ZeroDivisionError
    assert ONNXRegistry.__dict__["from_torchlib"] is given
    assert ONNXRegistry.from_torchlib(opset_version=OPSET).functions.keys() == kept.functions.keys()
