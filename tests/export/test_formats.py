"""Every file of a bundle: same names, same vectors, no NaN, and clear errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import samespace_edge
from samespace_edge import (
    Bundle,
    BundleTamperedError,
    ConfigError,
    Embedder,
    RuntimeUnavailableError,
    check_bundle,
)
from samespace_export import (
    TARGETS,
    Calibration,
    Exported,
    export_bundle,
    select_targets,
    torch_embedder,
)
from tests.export.conftest import SIZE, SmallNet, colourful, net_spec

# mean of 1 - cosine to torch, and the worst picture's
BOUNDS = {
    "fp32": (1e-6, 1e-6),
    "fp16": (1e-5, 1e-4),
    "int8": (2e-3, 1e-2),
    "dynamic": (2e-3, 1e-2),
}


def embedder(bundle: Bundle, name: str) -> Embedder:
    return Embedder(bundle, variant=name, runtime=TARGETS[name].runtime)


@pytest.mark.parametrize("name", TARGETS)
def test_vectors_are_the_torch_models(
    name: str, every_bundle: Bundle, net: nn.Module, photographs: NDArray[np.uint8]
) -> None:
    expected = torch_embedder(net, net_spec())(photographs)
    vectors = embedder(every_bundle, name).embed_pixels(photographs)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    errors = 1 - (vectors.astype(np.float64) * expected).sum(1)
    mean, worst = BOUNDS[TARGETS[name].precision]
    assert errors.mean() < mean
    assert errors.max() < worst


@pytest.mark.parametrize("name", TARGETS)
def test_pictures_without_any_feature_give_no_nan(name: str, every_bundle: Bundle) -> None:
    flat = np.stack([np.full((SIZE, SIZE, 3), v, np.uint8) for v in (0, 255)])
    vectors = embedder(every_bundle, name).embed_pixels(flat)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("name", ["onnx-fp16", "tflite-fp16", "coreml-fp16", "coreml-int8"])
@pytest.mark.parametrize("length", [0.0, 1e-3, 300.0])
def test_l2_holds_where_fp16_ends(
    name: str, length: float, tmp_path: Path, photographs: NDArray[np.uint8]
) -> None:
    net = colourful(SmallNet())
    assert isinstance(net, SmallNet)
    with torch.no_grad():
        raw = net(torch.from_numpy(photographs[:1]).permute(0, 3, 1, 2) / 127.5 - 1)
        net.embed.weight *= length / raw.norm()
        net.embed.bias *= length / raw.norm()
    made = export_bundle(net, net_spec(), tmp_path / "x.bundle", targets=(name,))
    vector = embedder(made.bundle, name).embed_pixels(photographs[:1])[0]
    expected = torch_embedder(net, net_spec())(photographs[:1])[0]
    assert np.isfinite(vector).all()
    assert np.abs(vector - expected).max() < 1e-2


def test_precisions_have_the_sizes_that_they_promise(every_bundle: Bundle) -> None:
    size = {v.name: v.bytes for v in every_bundle.manifest.variants}
    weights = 4 * every_bundle.manifest.parameters
    for format_ in ("onnx", "tflite"):
        saved = size[f"{format_}-fp32"] - size[f"{format_}-fp16"]
        # Fewer bytes for the weights, more for the conversions of so small a net.
        assert saved < weights / 2 + 1000
    assert size["tflite-dynamic"] < size["tflite-fp32"]


def test_manifest_follows_its_schema_and_the_check_passes(every_bundle: Bundle) -> None:
    folder = Path(samespace_edge.__file__).parent / "schemas"
    schema = json.loads((folder / "bundle.schema.json").read_text())
    manifest = json.loads((every_bundle.path / "manifest.json").read_text())
    jsonschema.validate(manifest, schema)
    result = check_bundle(every_bundle.path)
    assert result.ok
    assert {r.stage for r in result.results} == {"decode", "resize", "embed", "end to end"}
    assert all(line.startswith("coreml-") for line in result.skipped)
    only = check_bundle(every_bundle.path, runtime="ai_edge_litert")
    assert only.ok
    assert {r.subject.split()[-1] for r in only.results if r.stage == "embed"} == {
        name for name in TARGETS if name.startswith("tflite")
    }


def test_a_changed_file_inside_a_core_ml_package_is_found(
    every_bundle: Bundle, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(every_bundle.path, copy)
    weights = next(copy.glob("model.mlpackage/**/weight.bin"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(BundleTamperedError, match=r"weight\.bin is not the file"):
        Embedder(copy, variant="coreml-fp32", runtime="mil-interpreter")
    assert Embedder(copy, variant="onnx-fp32")


def test_the_first_runtime_that_is_installed_is_taken(every_bundle: Bundle) -> None:
    assert Embedder(every_bundle).runtime == "onnxruntime"
    assert Embedder(every_bundle, variant="tflite-int8").runtime == "ai_edge_litert"
    assert Embedder(every_bundle, runtime="ai_edge_litert").variant.name == "tflite-fp32"
    with pytest.raises(RuntimeUnavailableError, match="on macOS only"):
        Embedder(every_bundle, variant="coreml-fp32")
    with pytest.raises(RuntimeUnavailableError, match=r"samespace\[tflite-runtime\]"):
        Embedder(every_bundle, runtime="tflite_runtime")
    with pytest.raises(RuntimeUnavailableError, match="no provider AbacusExecutionProvider"):
        Embedder(every_bundle, providers=["AbacusExecutionProvider"])
    with pytest.raises(ConfigError, match="takes no providers"):
        Embedder(every_bundle, runtime="ai_edge_litert", providers=["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match="threads has to be 1 or more"):
        Embedder(every_bundle, threads=0)


@pytest.mark.parametrize("name", ["onnx-int8", "tflite-int8"])
def test_int8_says_how_it_came_about(name: str, everything: Exported, every_bundle: Bundle) -> None:
    kept = json.loads(every_bundle.read("quantization.json"))[name]
    (made,) = [q for q in everything.quantizations if q.variant == name]
    assert kept == json.loads(json.dumps(made.to_json()))
    assert made.percentile_errors[made.percentile] == min(made.percentile_errors.values())
    paths = [layer.layer for layer in made.layers]
    assert paths == ["stem.0", "block.0", "block.3", "block.6", "embed"]
    assert set(made.keep_float) <= set(paths)
    assert made.error < 2e-3


def test_targets_are_chosen_by_format_and_precision() -> None:
    assert select_targets(["tflite", "onnx"], ["fp32", "dynamic"]) == (
        "onnx-fp32",
        "tflite-fp32",
        "tflite-dynamic",
    )
    with pytest.raises(ConfigError, match="no openvino; there are coreml, onnx, tflite"):
        select_targets(["openvino"], ["fp32"])
    with pytest.raises(ConfigError, match="no int4; there are dynamic, fp16, fp32, int8"):
        select_targets(["onnx"], ["int4"])
    with pytest.raises(ConfigError, match="no onnx file in dynamic"):
        select_targets(["onnx"], ["dynamic"])


class _Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class _Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.mean() > 0 else x


def odd(inner: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), inner, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("name", ["onnx-fp32", "tflite-fp32", "coreml-fp32"])
def test_an_operation_that_a_format_has_not_is_named_with_its_module(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: .*special_bessel_j0.* in 1 \(_Bessel\)"):
        export_bundle(odd(_Bessel()), net_spec(), tmp_path / "x.bundle", targets=(name,))
    assert list(tmp_path.iterdir()) == []


def test_control_flow_over_values_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot follow the module \(at test_formats\.py:"):
        export_bundle(odd(_Branch()), net_spec(), tmp_path / "x.bundle")


def bad_calls(pixels: NDArray[np.uint8]) -> dict[str, tuple[Any, str]]:
    return {
        "missing": (lambda: None, "onnx-int8: ranges are taken from real pictures"),
        "empty": (lambda: Calibration(pixels[:0]), "0 pictures are too few"),
        "floats": (lambda: Calibration(pixels / 255), "uint8 RGB"),
        "size": (lambda: Calibration(pixels[:, ::2, ::2]), "are 16x16, the model takes 32x32"),
        "percentile": (lambda: Calibration(pixels, 20.0), "outside 50 to 100"),
    }


@pytest.mark.parametrize("kind", ["missing", "empty", "floats", "size", "percentile"])
def test_calibration_that_is_none_is_refused(
    kind: str, net: nn.Module, photographs: NDArray[np.uint8], tmp_path: Path
) -> None:
    make, message = bad_calls(photographs)[kind]
    with pytest.raises(ConfigError, match=message):
        export_bundle(net, net_spec(), tmp_path / "x", targets=("onnx-int8",), calibration=make())
    assert list(tmp_path.iterdir()) == []


class _Attention(nn.Module):
    """Products of two activations beside layers with weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.mix = nn.Linear(16, 48)
        self.embed = nn.Linear(16, 24)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        query, key, value = self.mix(tokens).chunk(3, dim=-1)
        weights = (query @ key.transpose(1, 2) / 4).softmax(-1)
        y: Tensor = self.embed((tokens + weights @ value).mean(1))
        return y


@pytest.mark.parametrize("name", ["onnx-int8", "tflite-int8", "coreml-int8"])
def test_a_network_of_the_users_own(
    name: str, photographs: NDArray[np.uint8], tmp_path: Path
) -> None:
    made = export_bundle(
        _Attention().eval(),
        net_spec(),
        tmp_path / "x.bundle",
        targets=(name,),
        calibration=Calibration(photographs),
    )
    expected = torch_embedder(_Attention().eval(), net_spec())(photographs)
    vectors = embedder(made.bundle, name).embed_pixels(photographs)
    assert (1 - (vectors.astype(np.float64) * expected).sum(1)).mean() < 5e-3


def test_modules_that_make_no_embedding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"makes \(2, 8, 30, 30\) of 2 pictures"):
        export_bundle(nn.Conv2d(3, 8, 3), net_spec(), tmp_path / "x")
    with pytest.raises(ConfigError, match="no target onnx-int4"):
        export_bundle(SmallNet(), net_spec(), tmp_path / "x", targets=("onnx-int4",))
    with pytest.raises(ConfigError, match="no target was asked for"):
        export_bundle(SmallNet(), net_spec(), tmp_path / "x", targets=())
