"""Parity: every file in every runtime against the model it came from, in terms of what is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import samespace
from samespace import Dataset
from samespace.cli._root import root, run
from samespace.verification import FLOORS, Floor, parity, query_pixels, write_parity
from samespace_edge import (
    Bundle,
    BundleFormatError,
    ConfigError,
    Measured,
    RuntimeUnavailableError,
    SamespaceError,
    VerificationError,
    load_measured,
    measure,
    save_measured,
)
from samespace_edge._measure import main as measure_main
from samespace_export import TARGETS, Calibration, export_bundle, torch_embedder
from tests.conftest import Colours, spec

FILES = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic", "coreml-fp16")


@pytest.fixture(scope="module")
def bundle(shop: Dataset, tmp_path_factory: pytest.TempPathFactory, golden: list[bytes]) -> Path:
    """The compatible edge model in five files."""
    module = Colours(seed=1, noise=0.05)
    calibration = Calibration.of([shop.read(i) for i in shop.train], spec("edge").resize)
    out = tmp_path_factory.mktemp("parity") / "edge.bundle"
    export_bundle(module, spec("edge"), out, targets=FILES, calibration=calibration, golden=golden)
    return out


def test_every_file_and_runtime_is_in_the_report(
    bundle: Path, bundles: dict[str, Path], shop: Dataset, tmp_path: Path
) -> None:
    reference = torch_embedder(Colours(seed=1, noise=0.05), spec("edge"))
    report = parity(bundle, bundles["cloud"], shop, reference=reference)
    status = {(r.variant, r.runtime): r.status for r in report.rows}
    assert set(status) == {
        ("onnx-fp32", "onnxruntime"),
        ("onnx-int8", "onnxruntime"),
        ("tflite-fp32", "ai_edge_litert"),
        ("tflite-fp32", "tflite_runtime"),
        ("tflite-dynamic", "ai_edge_litert"),
        ("tflite-dynamic", "tflite_runtime"),
        ("coreml-fp16", "coremltools"),
        ("coreml-fp16", "mil-interpreter"),
    }
    assert status["coreml-fp16", "coremltools"] == "not run"
    assert report.reference == "torch"
    assert report.reference_recall_at_1 > 0.5
    for row in report.rows:
        if row.figures is None:
            assert row.status == "not run"
            assert row.reason
            continue
        f = row.figures
        assert f.cosine_min <= f.cosine_p1 <= f.cosine_mean + 1e-12
        assert f.cosine_mean > 0.99
        assert f.agreement == 1 - len(f.flips) / len(shop.queries)
        assert f.label_agreement >= f.agreement
        moved = f.positive - f.negative
        assert f.difference == pytest.approx(moved / len(shop.queries))
        assert f.recall_at_1 == pytest.approx(report.reference_recall_at_1 + f.difference)
        if row.precision == "fp32":
            assert f.cosine_min > 1 - 1e-6
            assert f.agreement == 1
        assert 0 < f.p50_ms <= f.p95_ms
    proves = {r.runtime: r.proves for r in report.rows}
    assert proves["mil-interpreter"] == "the exported Core ML program, not Apple's kernels"

    folder = Path(samespace.__file__).parent / "schemas"
    schema = json.loads((folder / "parity.schema.json").read_text())
    write_parity(report, tmp_path)
    jsonschema.validate(json.loads((tmp_path / "parity.json").read_text()), schema)
    for page in ("parity.md", "parity.html"):
        text = (tmp_path / page).read_text()
        assert all(variant in text for variant in FILES)
        assert "runs Core ML packages on macOS only" in text
    table = [x for x in (tmp_path / "parity.md").read_text().splitlines() if x.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


def vectors_of(bundle: Path, pixels: NDArray[np.uint8], variant: str) -> Measured:
    return measure(Bundle.open(bundle), variant, TARGETS[variant].runtime, pixels)


def test_floors_decide_and_flips_are_listed(
    bundle: Path, bundles: dict[str, Path], shop: Dataset
) -> None:
    pixels = query_pixels(bundle, shop)
    good = vectors_of(bundle, pixels, "tflite-fp32")
    spoilt = good.vectors.copy()
    spoilt[:3] = -spoilt[:3]  # three queries now find what is least like them
    result = replace(good, vectors=spoilt, runtime="tflite_runtime")
    report = parity(bundle, bundles["cloud"], shop, elsewhere=[result])
    assert report.reference == "onnx-fp32 file"
    (row,) = [r for r in report.rows if r.runtime == "tflite_runtime" and r.figures]
    assert row.status == "fail"
    assert row.reason is not None
    assert "same first hit for" in row.reason
    assert not report.passed
    assert row.figures is not None
    assert row.figures.cosine_min == pytest.approx(-1, abs=1e-5)
    assert {f.query for f in row.figures.flips} == {q.path for q in shop.queries[:3]}
    lenient = {**FLOORS, "fp32": Floor(1, 0), "int8": Floor(1, 0), "dynamic": Floor(1, 0)}
    assert parity(bundle, bundles["cloud"], shop, elsewhere=[result], floors=lenient).passed


def test_results_of_other_files_and_queries_are_refused(
    bundle: Path, bundles: dict[str, Path], shop: Dataset
) -> None:
    good = vectors_of(bundle, query_pixels(bundle, shop), "tflite-fp32")
    for wrong, message in (
        (replace(good, variant_sha256="0" * 64), "measured on another file"),
        (replace(good, vectors=good.vectors[:-1]), "this dataset has 32 queries"),
        (replace(good, runtime="abacus"), "no runtime 'abacus'"),
        (replace(good, runtime="onnxruntime"), "onnxruntime runs onnx files; tflite-fp32 is none"),
        (replace(good, vectors=good.vectors * np.nan), "holds NaN, infinity or a vector of zeros"),
        (replace(good, vectors=good.vectors * 0), "holds NaN, infinity or a vector of zeros"),
        (replace(good, variant="onnx-fp64"), "no variant 'onnx-fp64'"),
    ):
        with pytest.raises(SamespaceError, match=message):
            parity(bundle, bundles["cloud"], shop, elsewhere=[wrong])


def test_models_that_cannot_be_compared_are_refused(
    bundle: Path, bundles: dict[str, Path], shop: Dataset, tmp_path: Path
) -> None:
    other = tmp_path / "wide.bundle"
    export_bundle(Colours(seed=1, dim=32), spec("wide"), other)
    with pytest.raises(VerificationError, match=r"width 24, the gallery's wide of 32"):
        parity(bundle, other, shop)
    with pytest.raises(VerificationError, match="no test queries"):
        parity(bundle, bundles["cloud"], shop.subset(shop.train))
    with pytest.raises(ConfigError, match="two fractions between 0 and 1"):
        Floor(0.5, 97)


def test_a_device_measures_and_the_server_reads(
    bundle: Path, bundles: dict[str, Path], shop_csv: Path, tmp_path: Path
) -> None:
    pixels, out = tmp_path / "pixels.npy", tmp_path / "out.npz"
    shared = ["parity", str(bundle), "--gallery", str(bundles["cloud"]), "--data", str(shop_csv)]
    assert run([*shared, "--pixels", str(pixels)]) == 0
    measure_main([str(bundle), str(pixels), str(out), "--runtime", "ai_edge_litert"])
    assert [r.variant for r in load_measured(out)] == ["tflite-dynamic", "tflite-fp32"]
    easy = [x for p in ("int8", "dynamic", "fp16") for x in ("--floor", f"{p}=1,0")]
    assert run([*shared, *easy, "--from", str(out), "--gate"]) == 0
    spoilt = [replace(r, vectors=-r.vectors) for r in load_measured(out)]
    save_measured(spoilt, out)
    assert run([*shared, *easy, "--from", str(out), "--gate"]) == 1
    assert run([*shared, *easy, "--from", str(out)]) == 0
    with pytest.raises(ConfigError, match="takes uint8 pixels"):
        measure(Bundle.open(bundle), "onnx-fp32", "onnxruntime", np.zeros((1, 8, 8, 3), np.uint8))
    np.savez(tmp_path / "bad.npz", a=np.zeros(3))
    with pytest.raises(BundleFormatError, match="is not what"):
        load_measured(tmp_path / "bad.npz")
    only_coreml = tmp_path / "coreml.bundle"
    export_bundle(Colours(seed=1), spec("edge"), only_coreml, targets=("coreml-fp32",))
    with pytest.raises(RuntimeUnavailableError, match="nothing of edge runs here"):
        measure_main([str(only_coreml), str(pixels), str(out)])


def test_measured_results_survive_the_file(bundle: Path, shop: Dataset, tmp_path: Path) -> None:
    made = vectors_of(bundle, query_pixels(bundle, shop)[:4], "onnx-fp32")
    save_measured([made], tmp_path / "a.npz")
    (read,) = load_measured(tmp_path / "a.npz")
    assert np.array_equal(read.vectors, made.vectors)
    assert np.array_equal(read.times_ms, made.times_ms)
    assert (read.variant, read.variant_sha256, read.runtime, read.load_ms) == (
        made.variant,
        made.variant_sha256,
        made.runtime,
        made.load_ms,
    )


def test_the_gate_and_what_the_command_prints(
    bundle: Path, bundles: dict[str, Path], shop_csv: Path, tmp_path: Path
) -> None:
    shared = ["parity", str(bundle), "--gallery", str(bundles["cloud"]), "--data", str(shop_csv)]
    easy = [x for p in ("int8", "dynamic", "fp16") for x in ("--floor", f"{p}=1,0")]
    result = CliRunner().invoke(root, [*shared, *easy, "--out", str(tmp_path / "out")])
    assert "At parity: all 5 that ran hold their floors; 3 could not be run here." in result.output
    assert (tmp_path / "out" / "parity.html").exists()
    assert run([*shared, *easy, "--gate"]) == 0
    assert run([*shared, "--floor", "int8=much"]) == 3
    assert run([*shared, "--floor", "int4=0.1,0.9"]) == 3
