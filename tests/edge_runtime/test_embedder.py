"""The one door: every form of input, one result; and nothing heavy behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from samespace import Dataset
from samespace_edge import DecodeError, Embedder, decode


def test_every_form_of_input_gives_the_same_vectors(
    bundles: dict[str, Path], shop: Dataset
) -> None:
    embedder = Embedder(bundles["edge"])
    contents = [shop.read(item) for item in shop.gallery[:5]]
    pixels = [decode(c) for c in contents]
    expected = embedder.embed(contents)
    assert expected.shape == (5, embedder.dim)
    assert expected.dtype == np.float32
    assert np.abs(np.linalg.norm(expected, axis=1) - 1).max() < 1e-6
    for form in (pixels, np.stack(pixels), iter(contents), tuple(contents)):
        assert np.array_equal(embedder.embed(form), expected)
    assert np.abs(embedder.embed(contents, batch_size=2) - expected).max() < 1e-6
    assert embedder.embed(contents[0]).shape == (1, embedder.dim)
    assert embedder.embed(pixels[0]).shape == (1, embedder.dim)
    assert embedder.embed([]).shape == (0, embedder.dim)


def test_a_bad_picture_is_named_by_its_place(bundles: dict[str, Path], shop: Dataset) -> None:
    good = shop.read(shop.gallery[0])
    with pytest.raises(DecodeError, match="picture 2: the 3 bytes given: not an image"):
        Embedder(bundles["edge"]).embed([good, good, b"abc"])


def test_identity_names_model_file_and_space(bundles: dict[str, Path]) -> None:
    cloud, edge = Embedder(bundles["cloud"]).identity, Embedder(bundles["edge"]).identity
    assert cloud.is_anchor
    assert not edge.is_anchor
    assert edge.space == cloud.fingerprint
    assert edge.variant == "onnx-fp32"
    assert edge.variant_sha256 != cloud.variant_sha256


@pytest.mark.parametrize("package", ["samespace_edge", "samespace", "samespace.cli._root"])
def test_no_torch_below_the_training_floor(package: str) -> None:
    code = f"import {package}, sys; bad = {{'torch', 'faiss', 'kornia'}} & set(sys.modules); "
    code += "sys.exit(str(bad) if bad else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_embedding_needs_only_numpy_pillow_and_the_runtime(
    bundles: dict[str, Path], tmp_path: Path, shop: Dataset
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(shop.read(shop.gallery[0]))
    code = (
        "import sys; from samespace_edge import Embedder; "
        f"Embedder({str(bundles['edge'])!r}).embed({str(picture)!r}); "
        "print(' '.join({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"numpy", "PIL", "onnxruntime"} <= loaded
    assert not loaded & {"torch", "faiss", "rich", "click", "matplotlib", "samespace"}
