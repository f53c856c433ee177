"""Bundles: what is inside is what was exported, or it does not run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import samespace_edge
from samespace_edge import (
    Bundle,
    BundleFormatError,
    BundleTamperedError,
    ConfigError,
    Embedder,
    Manifest,
    RuntimeUnavailableError,
    UnsafePathError,
    check_bundle,
)

SCHEMA = json.loads(
    (Path(samespace_edge.__file__).parent / "schemas" / "bundle.schema.json").read_text()
)


def edit(bundle: Path, **changes: Any) -> None:
    file = bundle / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_manifest_follows_the_published_schema(copied: Path) -> None:
    jsonschema.validate(json.loads((copied / "manifest.json").read_text()), SCHEMA)
    assert set(SCHEMA["required"]) == set(Manifest.__dataclass_fields__) | {"schema"}


def test_check_passes_where_it_was_made(copied: Path) -> None:
    result = check_bundle(copied)
    assert result.ok
    assert result.departs_at is None
    assert {r.stage for r in result.results} == {"decode", "resize", "embed", "end to end"}
    # Two pictures were given; the EXIF-rotated one is added by the exporter.
    assert len(result.results) == 3 * 4


def test_changed_graph_is_not_run(copied: Path) -> None:
    graph = copied / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(BundleTamperedError, match=r"model\.onnx is not the file that was exported"):
        Embedder(copied)
    result = check_bundle(copied)
    assert not result.ok
    assert result.departs_at == "files"


def test_missing_and_unlisted_files_are_found(copied: Path) -> None:
    (copied / "golden" / "0.png").unlink()
    (copied / "notes.txt").write_text("mine")
    problems = " ".join(check_bundle(copied).problems)
    assert "0.png cannot be read" in problems
    assert "notes.txt is not listed" in problems


def test_edited_preprocessing_breaks_the_fingerprint(copied: Path) -> None:
    edit(copied, mean=[0.4, 0.5, 0.5])
    with pytest.raises(BundleTamperedError, match="edited after export"):
        Bundle.open(copied)


def test_renaming_changes_nothing_that_counts(copied: Path) -> None:
    before = Bundle.open(copied).manifest.fingerprint
    edit(copied, name="another")
    assert Bundle.open(copied).manifest.fingerprint == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99 is not known"),
        ({"surprise": 1}, "unknown keys in the manifest: surprise"),
        ({"dim": "many"}, "malformed manifest"),
        ({"role": "fog"}, "neither 'cloud' nor 'edge'"),
        ({"variants": []}, "lists no variant"),
        ({"fingerprint": "abc"}, "64 lower-case hexadecimal digits"),
    ],
)
def test_malformed_manifests(copied: Path, changes: dict[str, Any], message: str) -> None:
    edit(copied, **changes)
    with pytest.raises(BundleFormatError, match=message):
        Bundle.open(copied)


def test_missing_keys_not_json_and_no_folder(copied: Path, tmp_path: Path) -> None:
    file = copied / "manifest.json"
    file.write_text(json.dumps({"schema": 2, "name": "x"}))
    with pytest.raises(BundleFormatError, match="keys missing from the manifest: architecture"):
        Bundle.open(copied)
    file.write_text("{")
    with pytest.raises(BundleFormatError, match="cannot be read"):
        Bundle.open(copied)
    with pytest.raises(BundleFormatError, match="is not a bundle"):
        Bundle.open(tmp_path / "nowhere")


@pytest.mark.parametrize("member", ["../evil.onnx", "/etc/passwd", "a\\..\\b", "c:/x"])
def test_paths_that_leave_the_bundle(copied: Path, member: str) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"][member] = manifest["files"]["model.onnx"]
    manifest["variants"][0]["file"] = member
    edit(copied, **manifest)
    with pytest.raises(UnsafePathError, match="does not stay inside"):
        Bundle.open(copied)


def test_links_out_of_the_bundle(copied: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    (copied / "model.onnx").rename(outside)
    (copied / "model.onnx").symlink_to(outside)
    with pytest.raises(UnsafePathError, match="link out of the bundle"):
        Embedder(copied)


def test_a_pickle_is_never_read(copied: Path) -> None:
    (copied / "weights.pt").write_bytes(pickle.dumps({"w": 1}))
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"]["weights.pt"] = "0" * 64
    edit(copied, **manifest)
    with pytest.raises(UnsafePathError, match="pickle"):
        Bundle.open(copied)


def test_unknown_variant_and_runtime(copied: Path) -> None:
    with pytest.raises(BundleFormatError, match="it has: onnx-fp32"):
        Embedder(copied, variant="onnx-int4")
    manifest = json.loads((copied / "manifest.json").read_text())
    with pytest.raises(RuntimeUnavailableError, match="no runtime 'abacus'; it has: onnxruntime"):
        Embedder(copied, runtime="abacus")
    with pytest.raises(ConfigError, match=r"ai_edge_litert runs tflite files; .* has: onnx-fp32"):
        Embedder(copied, runtime="ai_edge_litert")
    manifest["variants"][0]["format"] = "abacus"
    edit(copied, **manifest)
    with pytest.raises(RuntimeUnavailableError, match="knows no format abacus"):
        Embedder(copied)


def test_departure_is_named_by_stage(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that resizes by nearest neighbour is found at 'resize', not somewhere behind it."""
    from PIL import Image

    original = Image.Image.resize

    def nearest(self: Image.Image, size: Any, resample: Any = None, **more: Any) -> Image.Image:
        return original(self, size, Image.Resampling.NEAREST, **more)

    monkeypatch.setattr(Image.Image, "resize", nearest)
    result = check_bundle(copied)
    assert result.departs_at == "resize"
    assert all(r.ok for r in result.results if r.stage in ("decode", "embed"))


def test_batch_size_is_checked(copied: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size has to be 1 or more"):
        Embedder(copied).embed([], batch_size=0)


def test_vectors_that_are_no_unit_vectors_are_a_departure() -> None:
    import numpy as np

    from samespace_edge._golden import angle

    unit = np.array([1, 0], np.float32)
    assert angle(unit, unit) == 0
    for bad in (unit * 3, unit * np.nan, unit * 0):
        assert angle(bad.astype(np.float32), unit) == float("inf")


def test_manifests_with_values_of_the_wrong_kind(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    for changes in ({"mean": [float("nan"), 0, 0]}, {"variants": [{"file": 5}]}, {"files": 3}):
        edit(copied, **{**manifest, **changes})
        with pytest.raises(BundleFormatError, match="malformed manifest"):
            Bundle.open(copied)
