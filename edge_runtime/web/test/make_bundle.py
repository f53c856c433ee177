"""Writes a tiny bundle, pictures, and what Python makes of them, into a folder for the tests.

python test/make_bundle.py FOLDER
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from pictures import damaged, file, foreign, jpegs, lossless, lossy, photo, transparent
from torch import nn

from samespace_edge import Embedder, ImageError, Resize, decode
from samespace_export import Calibration, ExportSpec, export_bundle

HALF = (0.5, 0.5, 0.5)
GROUPS = {
    "jpeg": jpegs,
    "lossless": lossless,
    "transparent": transparent,
    "lossy": lossy,
    "foreign": foreign,
    "damaged": damaged,
}


def network() -> nn.Module:
    """A small convolutional network with fixed random weights."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.Hardswish(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        nn.Conv2d(16, 32, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(32 * 9, 24),
    )


def make_bundle(folder: Path) -> None:
    """`edge.bundle`: every ONNX file, and golden pictures of the kinds that go wrong."""
    spec = ExportSpec(
        name="edge",
        role="edge",
        resize=Resize(48, 48, "crop"),
        mean=HALF,
        std=HALF,
        architecture="test network",
    )
    golden = [
        file(photo(320, 240, seed=2), "jpeg", quality=85),
        transparent()["rgba.png"],
        lossy()["lossy.webp"],
    ]
    calibration = Calibration.of([photo(64, 64, seed) for seed in range(24)], spec.resize, 100)
    export_bundle(
        network(),
        spec,
        folder / "edge.bundle",
        targets=("onnx-fp32", "onnx-fp16", "onnx-int8"),
        calibration=calibration,
        golden=golden,
    )


def make_pictures(folder: Path) -> None:
    """`pictures/`, their decoded pixels as `*.rgb`, and `expected.json` with the vectors."""
    embedder = Embedder(folder / "edge.bundle", variant="onnx-fp32")
    (folder / "pictures").mkdir()
    pictures: dict[str, Any] = {}
    for group, make in GROUPS.items():
        for name, encoded in make().items():
            (folder / "pictures" / name).write_bytes(encoded)
            pictures[name] = {"group": group}
            try:
                pixels = decode(encoded)
            except ImageError as error:
                pictures[name]["error"] = type(error).__name__
                continue
            (folder / "pictures" / f"{name}.rgb").write_bytes(pixels.tobytes())
            pictures[name] |= {
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "vector": embedder.embed(encoded)[0].tolist(),
            }
    expected = {"identity": embedder.identity.to_json(), "pictures": pictures}
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    make_bundle(Path(sys.argv[1]))
    make_pictures(Path(sys.argv[1]))
