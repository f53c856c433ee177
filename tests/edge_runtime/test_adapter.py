"""Adapters: what is read is what was fitted, and it computes what it says."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import samespace_edge
from samespace_edge import (
    Adapter,
    AdapterLayers,
    BundleError,
    BundleFormatError,
    BundleTamperedError,
    ConfigError,
    DimensionError,
    Fingerprint,
    InvalidVectorError,
    ModelIdentity,
)

OLD, NEW, SPACE = (Fingerprint(c * 64) for c in "abc")
SCHEMA = json.loads(
    (Path(samespace_edge.__file__).parent / "schemas" / "adapter.schema.json").read_text()
)


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def layers() -> AdapterLayers:
    return AdapterLayers(
        numbers(6),
        (numbers(6, 2), numbers(2, 4)),
        numbers(4),
        ((numbers(6, 5), numbers(5)), (numbers(5, 4), numbers(4, seed=1))),
    )


@pytest.fixture
def adapter() -> Adapter:
    quality = {"cosine": 0.9, "recall_at_1": 0.5, "pairs": 10}
    fitted = {"pairs": 100, "data": "a shop", "held_out": quality, "unadapted": None, "seed": 0}
    preprocessing = {"resize": {"width": 8, "height": 8, "policy": "crop"}, "mean": [0.5] * 3}
    return Adapter(
        "mlp", layers(), OLD, NEW, SPACE, 2, {**preprocessing, "std": [0.5] * 3}, "net", fitted
    )


def test_it_computes_what_its_description_says(adapter: Adapter) -> None:
    vectors, side = 3 * numbers(40, 4), numbers(40, 2)
    x = np.concatenate([vectors / np.linalg.norm(vectors, axis=1, keepdims=True), side], 1)
    c = x.astype(np.float64) - adapter.layers.centre
    (w1, b1), (w2, b2) = adapter.layers.residual
    y = c @ adapter.layers.linear[0] @ adapter.layers.linear[1] + adapter.layers.bias
    y += np.maximum(c @ w1 + b1, 0) @ w2 + b2
    expected = y / np.linalg.norm(y, axis=1, keepdims=True)
    made = adapter.apply(vectors, side)
    assert made.dtype == np.float32
    assert np.abs(made - expected).max() < 1e-6
    assert adapter.layers.macs == 6 * 2 + 2 * 4 + 6 * 5 + 5 * 4
    assert adapter.layers.parameters == adapter.layers.macs + 6 + 4 + 5 + 4
    assert adapter.apply(vectors[:0], side[:0]).shape == (0, 4)


def test_large_inputs_go_block_by_block(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    whole = adapter.apply(numbers(100, 4), numbers(100, 2))
    monkeypatch.setattr("samespace_edge._adapter._ROWS_AT_ONCE", 7)
    assert np.abs(adapter.apply(numbers(100, 4), numbers(100, 2)) - whole).max() < 1e-6


def test_saved_is_loaded_bit_for_bit(adapter: Adapter, tmp_path: Path) -> None:
    adapter.write(tmp_path / "a.adapter")
    loaded = Adapter.read(tmp_path / "a.adapter")
    assert loaded.to_bytes() == adapter.to_bytes() == (tmp_path / "a.adapter").read_bytes()
    assert loaded.header() == adapter.header()
    vectors, side = numbers(40, 4), numbers(40, 2)
    assert np.array_equal(loaded.apply(vectors, side), adapter.apply(vectors, side))
    assert [p.name for p in tmp_path.iterdir()] == ["a.adapter"]
    assert repr(loaded) == "Adapter('mlp', aaaaaaaaaaaa… (4 + 2) -> bbbbbbbbbbbb… (4))"
    with pytest.raises(ConfigError, match="cannot be written"):
        adapter.write(tmp_path / "nowhere" / "a.adapter")


def test_the_file_is_a_safetensors_file_with_a_published_header(
    adapter: Adapter, tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save

    adapter.write(tmp_path / "a.adapter")
    with safe_open(tmp_path / "a.adapter", framework="np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["samespace.adapter"])
    assert {k: v.tolist() for k, v in found.items()} == {
        k: v.tolist() for k, v in adapter.layers.tensors().items()
    }
    jsonschema.validate(header, SCHEMA)
    assert set(SCHEMA["required"]) == set(header)
    foreign = save({"centre": numbers(3)})
    with pytest.raises(BundleFormatError, match="says nothing of an adapter"):
        Adapter.from_bytes(foreign)


def test_every_flipped_byte_is_refused(adapter: Adapter) -> None:
    content = adapter.to_bytes()
    for at in range(len(content)):
        for flip in (0x01, 0x20):
            changed = bytearray(content)
            changed[at] ^= flip
            with pytest.raises(BundleError):
                Adapter.from_bytes(bytes(changed))
    for changed in (content[:-1], content + b"\0", content[:20], b""):
        with pytest.raises(BundleError):
            Adapter.from_bytes(changed)


def test_what_was_changed_says_so(adapter: Adapter, tmp_path: Path) -> None:
    content = bytearray(adapter.to_bytes())
    content[-1] ^= 1
    (tmp_path / "a.adapter").write_bytes(content)
    with pytest.raises(BundleTamperedError, match=r"a\.adapter is not the adapter that was fitted"):
        Adapter.read(tmp_path / "a.adapter")
    with pytest.raises(BundleTamperedError, match="does not have the sha256"):
        Adapter.from_bytes(adapter.to_bytes().replace(b"a shop", b"b shop"))
    narrow = adapter.to_bytes().replace(rb"\"side_dim\":2", rb"\"side_dim\":9")
    with pytest.raises(BundleTamperedError, match="leave nothing of an input of 6"):
        Adapter.from_bytes(narrow)


def test_foreign_files_are_refused(adapter: Adapter, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (pickle.dumps([1]), b"{}", json.dumps([1]).encode() * 9, b"PK\3\4" + b"\0" * 99):
        path.write_bytes(content)
        with pytest.raises(BundleFormatError, match="is not an adapter, or a damaged one"):
            Adapter.read(path)
    with pytest.raises(BundleFormatError, match="cannot be read"):
        Adapter.read(tmp_path / "missing")
    with pytest.raises(BundleFormatError, match="cannot be read"):
        Adapter.read(tmp_path)
    later = adapter.to_bytes().replace(rb"\"schema\":1", rb"\"schema\":2")
    with pytest.raises(BundleFormatError, match="of schema 2; this version reads schema 1"):
        Adapter.from_bytes(later)
    other = adapter.to_bytes().replace(rb"\"kind\"", rb"\"kine\"")
    with pytest.raises(BundleFormatError, match="missing from its header or unknown: kind, kine"):
        Adapter.from_bytes(other)


def test_vectors_of_another_width_or_without_direction_are_refused(adapter: Adapter) -> None:
    vectors, side = numbers(5, 4), numbers(5, 2)
    with pytest.raises(DimensionError, match=r"takes vectors \(N, 4\) with side info"):
        adapter.apply(vectors)
    with pytest.raises(DimensionError, match=r"not vectors \(N, 3\) with side information \(N, 2"):
        adapter.apply(vectors[:, :3], side)
    with pytest.raises(DimensionError, match="row i of both"):
        adapter.apply(vectors, side[:4])
    with pytest.raises(DimensionError, match=r"have to be \(N, D\), not \(4,\)"):
        adapter.apply(vectors[0], side)
    with pytest.raises(InvalidVectorError, match="have to be floats, not int64"):
        adapter.apply(np.ones((5, 4), np.int64), side)
    for value in (np.nan, np.inf, 1e300, 0):
        bad = vectors.astype(np.float64)
        bad[[1, 3]] = value
        with pytest.raises(InvalidVectorError, match=r"vectors: row 1 \(and 1 more\)"):
            adapter.apply(bad, side)
    with pytest.raises(InvalidVectorError, match="side information: row 0"):
        adapter.apply(vectors, side * np.nan)
    flat = AdapterLayers(np.zeros(4), (np.zeros((4, 4)),), np.zeros(4))
    with pytest.raises(InvalidVectorError, match="no direction is left"):
        Adapter("affine", flat, OLD, NEW, NEW).apply(vectors)


def test_who_made_a_lifted_vector(adapter: Adapter) -> None:
    old = ModelIdentity("old", OLD, "onnx-fp32", "d" * 64, OLD, 4)
    lifted = adapter.identity(old)
    assert lifted.space == SPACE
    assert lifted.dim == 4
    assert lifted.variant == "onnx-fp32+mlp"
    assert lifted.fingerprint == adapter.fingerprint
    assert not lifted.is_anchor
    assert str(lifted).startswith("old+mlp ")
    # A label and what people read change nothing; arrays, source and preprocessing do.
    same = replace(adapter, fitted={}, target=OLD)
    assert same.fingerprint == adapter.fingerprint
    moved = replace(adapter.layers, bias=adapter.layers.bias + np.float32(1e-6))
    for change in ({"layers": moved}, {"source": NEW}, {"preprocessing": {}}):
        assert replace(adapter, **change).fingerprint != adapter.fingerprint
    int8 = adapter.identity(replace(old, variant="onnx-int8", variant_sha256="e" * 64))
    assert int8.fingerprint == lifted.fingerprint
    assert int8.variant_sha256 != lifted.variant_sha256
    with pytest.raises(ConfigError, match=r"fitted for vectors of model a+…; new b+ "):
        adapter.identity(replace(old, name="new", fingerprint=NEW))


def test_arrays_that_do_not_go_together_are_refused(adapter: Adapter) -> None:
    four = AdapterLayers(np.zeros(3), (np.zeros((3, 4)),), np.zeros(4))
    for wrong, message in (
        ({"centre": np.zeros(2)}, "linear part of an adapter does not lead from 2 to 4"),
        ({"bias": np.zeros(5)}, "linear part of an adapter does not lead from 3 to 5"),
        ({"linear": ()}, "one matrix or two factors, not 0"),
        ({"linear": (np.zeros(3),)}, r"array 'linear.0' of an adapter cannot be \(3,\)"),
        ({"bias": np.full(4, np.nan)}, "array 'bias' of an adapter holds NaN"),
        ({"residual": ((np.zeros((3, 5)), np.zeros(5)),)}, "residual part of an adapter"),
        ({"residual": ((np.zeros((3, 4)), np.zeros(5)),)}, "bias 0 of the residual"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(four, **wrong)
    with pytest.raises(ValueError, match="read-only"):
        four.bias[0] = 1
    with pytest.raises(ConfigError, match="'bias' of an adapter is missing"):
        AdapterLayers.from_tensors({"centre": numbers(3), "linear.0": numbers(3, 4)})
    with pytest.raises(ConfigError, match="has no array extra"):
        AdapterLayers.from_tensors({**four.tensors(), "extra": numbers(3)})
    with pytest.raises(ConfigError, match="of what kind"):
        replace(adapter, kind="")


def test_a_device_needs_no_more_than_numpy(adapter: Adapter, tmp_path: Path) -> None:
    adapter.write(tmp_path / "a.adapter")
    np.save(tmp_path / "v.npy", numbers(3, 6))
    code = (
        "import sys, numpy as np\n"
        "from samespace_edge import Adapter\n"
        "v = np.load('v.npy')\n"
        "print(Adapter.read('a.adapter').apply(v[:, :4], v[:, 4:]).shape)\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'scipy', 'sklearn', 'safetensors', 'samespace'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "(3, 4)\n[]\n"
