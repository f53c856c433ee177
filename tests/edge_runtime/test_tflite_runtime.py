"""tflite-runtime, in an environment of its own: `make test-tflite-runtime` makes it and a bundle.

Everywhere else it is left out: tflite-runtime cannot be installed beside numpy 2.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from samespace_edge import (
    Bundle,
    Embedder,
    RuntimeUnavailableError,
    check_bundle,
    load_measured,
)
from samespace_edge._measure import main
from tests.threads import THREADS, at_once

pytest.importorskip("tflite_runtime", reason="only in its own environment")

FILES = ("tflite-fp32", "tflite-fp16", "tflite-dynamic", "tflite-int8")


@pytest.fixture(scope="module")
def bundle() -> Path:
    return Path(os.environ["SAMESPACE_TFLITE_BUNDLE"])


def test_this_is_the_environment_that_is_meant() -> None:
    assert np.__version__.startswith("1.")
    with pytest.raises(ImportError):
        __import__("ai_edge_litert")


def test_every_tflite_file_passes_the_golden_check(bundle: Path) -> None:
    result = check_bundle(bundle)
    assert result.ok, [r for r in result.results if not r.ok]
    ran = {r.subject.split()[-1] for r in result.results if r.stage == "embed"}
    assert ran == set(FILES)
    assert all("onnx" in line or "coreml" in line for line in result.skipped)


@pytest.mark.parametrize("variant", FILES)
def test_a_black_picture_gives_no_nan(variant: str, bundle: Path) -> None:
    embedder = Embedder(bundle, variant=variant)
    assert embedder.runtime == "tflite_runtime"
    size = embedder.bundle.manifest.resize
    vector = embedder.embed(np.zeros((size.height, size.width, 3), np.uint8))
    assert np.isfinite(vector).all()


def test_what_is_measured_here_is_read_elsewhere(bundle: Path, tmp_path: Path) -> None:
    resize = Bundle.open(bundle).manifest.resize
    pixels = np.random.default_rng(0).integers(
        0, 256, (5, resize.height, resize.width, 3), dtype=np.uint8
    )
    np.save(tmp_path / "pixels.npy", pixels)
    main([str(bundle), str(tmp_path / "pixels.npy"), str(tmp_path / "out.npz")])
    results = load_measured(tmp_path / "out.npz")
    assert {r.variant for r in results} == set(FILES)
    for result in results:
        embedder = Embedder(bundle, variant=result.variant)
        assert np.array_equal(result.vectors, embedder.embed_pixels(pixels))
        assert result.variant_sha256 == embedder.variant.sha256


def test_other_formats_name_what_is_missing(bundle: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r'pip install "samespace\[onnx\]"'):
        Embedder(bundle, variant="onnx-fp32")


@pytest.mark.parametrize("variant", FILES)
def test_every_thread_gets_the_vectors_of_its_own_pictures(variant: str, bundle: Path) -> None:
    embedder = Embedder(bundle, variant=variant)
    size = embedder.bundle.manifest.resize
    shape = (THREADS, 2, size.height, size.width, 3)
    own = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    alone = [embedder.embed_pixels(pixels) for pixels in own]

    def work(number: int) -> float:
        made = [embedder.embed_pixels(own[number]) for _ in range(100)]
        return float(np.abs(np.stack(made) - alone[number]).max())

    assert max(at_once(work)) < 1e-6
    assert np.abs(np.stack(alone[1:]) - np.stack(alone[:-1])).max() > 1e-2
