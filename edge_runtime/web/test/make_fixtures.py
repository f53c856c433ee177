"""Writes test/fixtures/python.json: what Python makes of small cases, for TypeScript to meet.

../../.venv/bin/python test/make_fixtures.py
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samespace_edge import Fingerprint, Manifest, Resize, Variant, decode
from samespace_edge._bundle import folder_sha256, output_json, preprocessing_json
from samespace_edge._identity import canonical_json

OUT = Path(__file__).parent / "fixtures" / "python.json"

# Source width, height; target width, height, policy: both directions, one alone and none, up and
# down, single pixels.
RESIZES = [
    (37, 23, 16, 16, "crop"),
    (23, 37, 16, 12, "crop"),
    (33, 1, 7, 5, "crop"),
    (1, 1, 8, 8, "crop"),
    (21, 34, 10, 10, "crop"),
    (40, 30, 40, 30, "squash"),
    (40, 30, 40, 7, "squash"),
    (40, 30, 13, 30, "squash"),
    (5, 4, 17, 19, "squash"),
    (31, 17, 1, 1, "squash"),
    (33, 12, 16, 16, "pad"),
    (12, 31, 9, 16, "pad"),
    (1, 29, 6, 6, "pad"),
    (7, 5, 20, 30, "pad"),
]

FLOATS = [
    0.0, -0.0, 1.0, -1.0, 0.5, 0.485, 0.225, 1 / 3, 2 / 3, 0.1 + 0.2, 0.001, 0.0001, 0.00012,
    0.00001, 1.5e-05, -1.25e-07, 1e-10, 5e-324, 9.999999999999999, 10.0, 123.456, 100.0, 1e15,
    9999999999999998.0, 1e16, 1.5e16, 123456789012345680.0, 1e21, 1e22, 1e100,
    1.7976931348623157e308, 2.2250738585072014e-308,
]  # fmt: skip

# The same values stand in test/unit/canonical.test.mjs.
CANONICAL: list[Any] = [
    {"b": 1, "a": [0.5, 1.0, -2, 1e-05], "aa": {}},
    {"text": 'quote " backslash \\ tab \t bell \x07 delete \x7f é 猫 \u2028', "": []},
    {"\U0001f408": 1, "\ufb01": 2, "Z": 3, "a": 4, "é": 5},
]


def _text(pixels: bytes) -> str:
    return base64.b64encode(pixels).decode()


def resize_case(
    rng: np.random.Generator, source: tuple[int, int], target: Resize
) -> dict[str, Any]:
    """One picture of noise, half of it black and white, and what `Resize` makes of it."""
    noise = rng.integers(0, 256, (source[1], source[0], 3))
    extreme = rng.integers(0, 2, (source[1], source[0], 1)).astype(bool)
    pixels = np.where(extreme, (noise > 127) * 255, noise).astype(np.uint8)
    return {
        "width": source[0],
        "height": source[1],
        "pixels": _text(pixels.tobytes()),
        "resize": target.to_json(),
        "expected": _text(target(pixels).tobytes()),
    }


def white_case(rng: np.random.Generator) -> dict[str, Any]:
    """Every opacity over some colours, laid on white."""
    rgba = rng.integers(0, 256, (16, 256, 4)).astype(np.uint8)
    rgba[..., 3] = np.arange(256)
    return {
        "width": 256,
        "height": 16,
        "rgba": _text(rgba.tobytes()),
        "expected": _text(decode(Image.fromarray(rgba)).tobytes()),
    }


def filtered_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG whose lines have filters 0 to 4 in turn, in two chunks of data."""
    height, width, _ = pixels.shape
    wide = np.pad(pixels.astype(np.int16), ((1, 0), (1, 0), (0, 0)))
    left, above, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    distances = np.stack([abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)])
    paeth = np.choose(distances.argmin(0), [left, above, corner])
    predicted = np.stack([np.zeros_like(left), left, above, (left + above) >> 1, paeth])
    lines = b"".join(
        bytes([y % 5]) + ((pixels[y] - predicted[y % 5][y]) & 255).astype(np.uint8).tobytes()
        for y in range(height)
    )
    packed = zlib.compress(lines)
    half = len(packed) // 2
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"tEXt", b"Comment\0ignored"),
        (b"IDAT", packed[:half]),
        (b"IDAT", packed[half:]),
        (b"IEND", b""),
    ]
    framed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def png_cases(rng: np.random.Generator) -> dict[str, Any]:
    """PNG files, and their pixels where they are 8-bit RGB and not interlaced."""
    noise = rng.integers(0, 256, (11, 13, 3)).astype(np.uint8)
    y, x = np.mgrid[0:24, 0:31]
    smooth = np.stack([8 * x, 10 * y, 4 * (x + y)], -1).astype(np.uint8)
    cases = {"every filter": filtered_png(noise)}
    for name, image in {
        "noise": Image.fromarray(noise),
        "smooth": Image.fromarray(smooth),
        "one pixel": Image.new("RGB", (1, 1), (1, 2, 3)),
        "grey": Image.fromarray(noise[..., 0]),
        "palette": Image.fromarray(smooth).quantize(8),
        "transparent": Image.new("RGBA", (3, 2), (1, 2, 3, 4)),
    }.items():
        buffer = io.BytesIO()
        image.save(buffer, "png", optimize=True)
        cases[name] = buffer.getvalue()
    plain = ("every filter", "noise", "smooth", "one pixel")
    found = {}
    for name, content in cases.items():
        pixels = decode(content)
        found[name] = {
            "png": _text(content),
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "pixels": _text(pixels.tobytes()) if name in plain else None,
        }
    return found


def manifest() -> dict[str, Any]:
    """A manifest as an exporter writes it, with a file for every format."""
    resize, mean, std = Resize(48, 32, "crop"), (0.485, 1e-05, 0.0), (1.0, 0.224, 1 / 3)
    weights = "ab" * 32
    coreml = {"Data/weights.bin": "0c" * 32, "Manifest.json": "0d" * 32}
    folder = "model.mlpackage"
    files = {"model.onnx": "0a" * 32, "model.tflite": "0b" * 32, "golden/golden.json": "0e" * 32}
    files |= {f"{folder}/{path}": sha for path, sha in coreml.items()}
    made = Fingerprint.of(
        weights, preprocessing_json(resize, mean, std), output_json(24, "naïve-net")
    )
    return Manifest(
        name="fixture",
        fingerprint=made,
        space=made,
        role="edge",
        dim=24,
        resize=resize,
        mean=mean,
        std=std,
        architecture="naïve-net",
        weights_sha256=weights,
        variants=(
            Variant("tflite-fp32", "tflite", "fp32", "model.tflite", "0b" * 32, 1),
            Variant("coreml-fp16", "coreml", "fp16", folder, folder_sha256(coreml), 2),
            Variant("onnx-fp32", "onnx", "fp32", "model.onnx", "0a" * 32, 3),
        ),
        files=files,
        macs=1,
        parameters=1,
        created="2026-01-01T00:00:00+00:00",
        producer="make_fixtures.py",
        card={},
    ).to_json()


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(2)
    fixtures = {
        "resize": [resize_case(rng, (w, h), Resize(*target)) for w, h, *target in RESIZES],
        "white": white_case(rng),
        "floats": [repr(value) for value in FLOATS],
        "canonical": [canonical_json(value) for value in CANONICAL],
        "manifest": manifest(),
        "png": png_cases(rng),
    }
    Manifest.from_json(fixtures["manifest"])
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(fixtures, indent=1) + "\n")


if __name__ == "__main__":
    main()
