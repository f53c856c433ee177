"""A file that this processor computes otherwise than the exporter is refused, or passed over."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from samespace_edge import (
    Bundle,
    DepartingGraphError,
    Embedder,
    check_bundle,
    decode,
    instruction_set,
)
from samespace_edge._bundle import GOLDEN
from samespace_export import Calibration, Exported, export_bundle
from samespace_export._deployed import Deployed
from samespace_export._exact import exact
from samespace_export._onnx import onnx_ranges, onnx_scales, to_int8, to_onnx
from tests import older_processor
from tests.export.conftest import SIZE, SmallNet, colourful, net_spec
from tests.export.test_processors import naive

INT8 = "onnx-int8"


def edited(bundle: Path, out: Path, order: list[str], files: dict[str, bytes]) -> Path:
    """A copy with other files, as an exporter elsewhere could have written it."""
    shutil.copytree(bundle, out)
    manifest = json.loads((out / "manifest.json").read_text())
    for path, content in files.items():
        (out / path).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        manifest["files"][path] = sha256
        for variant in manifest["variants"]:
            if variant["file"] == path:
                variant |= {"sha256": sha256, "bytes": len(content)}
    of = {v["name"]: v for v in manifest["variants"]}
    manifest["variants"] = [of[name] for name in order]
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def golden(bundle: Bundle, variants: dict[str, float]) -> bytes:
    """The golden file with these variants' vectors turned by an angle: 1 - cosine."""
    value = json.loads(bundle.read(GOLDEN))
    for entry in value["images"]:
        for name, departure in variants.items():
            v = np.array(entry["embedded"][name])
            other = np.roll(v, 1) - (np.roll(v, 1) @ v) * v
            other /= np.linalg.norm(other)
            turned = (1 - departure) * v + np.sqrt(1 - (1 - departure) ** 2) * other
            entry["embedded"][name] = turned.tolist()
    return json.dumps(value).encode()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMESPACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def departing(every_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle whose int8 file comes first and was computed otherwise where it was exported."""
    order = [INT8, "onnx-fp32", "tflite-fp32"]
    files = {GOLDEN: golden(every_bundle, {INT8: 0.1})}
    return edited(every_bundle.path, tmp_path / "x.bundle", order, files)


def test_it_is_passed_over_where_nothing_was_named(departing: Path) -> None:
    assert Embedder(departing).variant.name == "onnx-fp32"
    assert Embedder(departing, check=False).variant.name == INT8


@pytest.mark.parametrize("named", [{"variant": INT8}, {"runtime": "onnxruntime"}])
def test_it_is_refused_where_it_was_named(departing: Path, named: dict[str, str]) -> None:
    with pytest.raises(DepartingGraphError) as caught:
        Embedder(departing, **named)
    message = str(caught.value)
    assert f"({instruction_set()})" in message
    assert "onnx-int8 in onnxruntime by 0.1, where 0.005 passes" in message
    assert "Use variant 'onnx-fp32' (runtime 'onnxruntime'), which agrees here." in message


def test_nothing_agrees(every_bundle: Bundle, tmp_path: Path) -> None:
    order = [INT8, "onnx-fp32"]
    files = {GOLDEN: golden(every_bundle, dict.fromkeys(order, 0.1))}
    bundle = edited(every_bundle.path, tmp_path / "x.bundle", order, files)
    with pytest.raises(DepartingGraphError, match=r"onnx-int8 .*; onnx-fp32 .* Export the bundle"):
        Embedder(bundle)


def test_the_check_reports_it_all_the_same(departing: Path) -> None:
    result = check_bundle(departing, runtime="onnxruntime")
    assert result.departs_at == "embed"
    assert {r.subject.split()[-1] for r in result.results if not r.ok} == {INT8}


def test_the_verdict_is_kept_and_found(departing: Path, own_cache: Path) -> None:
    Embedder(departing, variant="onnx-fp32")
    (kept,) = (own_cache / "verdicts").iterdir()
    assert float(kept.read_text().split()[0]) < 1e-6
    kept.write_text("0.5 0.1")  # what is kept decides
    with pytest.raises(DepartingGraphError, match=r"onnx-fp32 in onnxruntime by 0\.5"):
        Embedder(departing, variant="onnx-fp32")
    kept.write_text("damaged")
    Embedder(departing, variant="onnx-fp32")
    assert float(kept.read_text().split()[0]) < 1e-6


def test_a_cache_that_cannot_be_written_is_no_error(
    departing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAMESPACE_CACHE", str(tmp_path / "file"))
    assert Embedder(departing).variant.name == "onnx-fp32"


def test_bundles_without_golden_vectors_open(everything: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "x.bundle"
    shutil.copytree(everything.bundle.path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["files"][GOLDEN]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert Embedder(copy, variant=INT8)


_OPEN = """
import sys
from samespace_edge import DepartingGraphError, Embedder
print(Embedder(sys.argv[1]).variant.name)
try:
    print(Embedder(sys.argv[1], variant="onnx-int8").variant.name)
except DepartingGraphError as error:
    print(error)
"""


def test_saturating_kernels_are_found(photographs: NDArray[np.uint8], tmp_path: Path) -> None:
    """A file with the usual scales, as earlier versions wrote it, on a processor without VNNI."""
    variables = older_processor.environment()
    if isinstance(variables, str):
        pytest.skip(variables)
    net = colourful(SmallNet())
    with torch.no_grad():  # neighbours of one sign: the sums are largest
        for weight in (net.block[0].weight, net.block[6].weight):
            weight.abs_()
    fp32 = to_onnx(Deployed(net, (0.5,) * 3, (0.5,) * 3), SIZE, SIZE)
    ranges = onnx_ranges(fp32, Calibration(photographs, percentile=100))[100]
    saturating = to_int8(fp32, ranges, naive(onnx_scales(fp32), fp32))
    made = export_bundle(
        net,
        net_spec(),
        tmp_path / "ours",
        targets=("onnx-fp32", INT8),
        calibration=Calibration(photographs),
        golden=[png(pixels) for pixels in photographs[::32]],
    )
    value = json.loads(made.bundle.read(GOLDEN))
    run = exact("onnx", saturating)
    for entry in value["images"]:
        pixels = decode(made.bundle.read(f"golden/{entry['resized']}"))
        entry["embedded"][INT8] = run(pixels[None])[0].tolist()
    value["tolerance"]["embed"][INT8] = 1e-3  # so small a net departs by less than a deep one
    files = {"model.int8.onnx": saturating, GOLDEN: json.dumps(value).encode()}
    order = [INT8, "onnx-fp32"]
    earlier = edited(made.bundle.path, tmp_path / "earlier", order, files)
    opened, refusal = older_processor.run(["-c", _OPEN, str(earlier)], variables).splitlines()
    assert opened == "onnx-fp32"
    assert "onnx-int8 in onnxruntime by" in refusal
    ours = edited(made.bundle.path, tmp_path / "now", order, {})
    assert older_processor.run(["-c", _OPEN, str(ours)], variables).split() == [INT8, INT8]
