"""Golden pictures: what every device has to arrive at, stage by stage."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samespace_edge import Pixels, Resize, decode
from samespace_export._exact import Run

TOLERANCE: dict[str, Any] = {
    # Decoders of lossy formats may differ by rounding in the inverse DCT and the colour
    # conversion; libjpeg and a browser's decoder stay within a few levels.
    "decode": 4,
    "resize": 1,
    "end to end": 1e-3,
}
EMBED_TOLERANCE = {"fp32": 1e-5, "fp16": 1e-3, "int8": 5e-3, "dynamic": 5e-3}
"""Least tolerance of a file's vectors, as 1 - cosine, by precision."""

Vectors = NDArray[np.float32]

_ORIENTATION = 0x0112
_ROTATED_90 = 6


def synthetic_pictures(count: int = 3, size: int = 96) -> list[bytes]:
    """Deterministic PNG pictures, for models that come without any: waves, with a grain that a
    resize without antialiasing does not get right."""
    y, x = np.mgrid[0:size, 0 : size * 4 // 3].astype(np.float64)
    pictures = []
    for i in range(count):
        waves = [np.sin((x * (c + 1) + y * (i + 2)) / (7 + 3 * c)) for c in range(3)]
        grain = (7 * x + 13 * y + 3 * i * x * y) % 11 / 5 - 1
        pixels = (127.5 + 80 * np.stack(waves, -1) + 47 * grain[..., None]).astype(np.uint8)
        pictures.append(_png(pixels))
    return pictures


def stage_files(pictures: Sequence[bytes], resize: Resize) -> tuple[dict[str, bytes], list[Any]]:
    """The golden files of `pictures`, and their entries without the embeddings.

    The first picture is added once more as a JPEG with an EXIF rotation, the commonest way in
    which a phone's vectors go wrong.
    """
    files: dict[str, bytes] = {}
    entries: list[Any] = []
    for i, encoded in enumerate([*pictures, _exif_rotated(pictures[0])]):
        with Image.open(io.BytesIO(encoded)) as image:
            suffix = (image.format or "png").lower()
        decoded = decode(encoded)
        name = f"{i}.{suffix}"
        files |= {
            f"golden/{name}": encoded,
            f"golden/{i}.decoded.png": _png(decoded),
            f"golden/{i}.resized.png": _png(resize(decoded)),
        }
        entries.append(
            {
                "image": name,
                "decoded": f"{i}.decoded.png",
                "resized": f"{i}.resized.png",
                "embedded": {},
            }
        )
    return files, entries


def golden_json(entries: list[Any], tolerances: Mapping[str, float]) -> bytes:
    """Return `golden.json` for entries whose embeddings are filled in; tolerances by variant."""
    embed = dict(tolerances)
    value = {"schema": 1, "tolerance": {**TOLERANCE, "embed": embed}, "images": entries}
    return json.dumps(value, indent=1).encode()


def embed_tolerance(precision: str, exact: Vectors, unrounded: Vectors) -> float:
    """Return how far a kernel's vectors may be from a file's exact ones, as 1 - cosine.

    Kernels that are all right round in another order, or merge operations. Where a value lies
    between two levels of int8 they choose differently, and layers after that magnify it. The two
    are then about as far apart as each is from the unrounded model, so that is what passes. A
    saturating kernel is ten times as far.

    Args:
        exact: the file's vectors (N, D), from `exact`.
        unrounded: the model's own vectors of the same pictures.
    """
    if precision == "fp32":
        return EMBED_TOLERANCE[precision]
    worst = float((1 - (exact.astype(np.float64) * unrounded).sum(1)).max())
    return max(EMBED_TOLERANCE[precision], worst)


def fill_embeddings(entries: list[Any], files: dict[str, bytes], variant: str, run: Run) -> None:
    """Add the vectors that `run`, from `exact`, makes of the resized golden pictures."""
    for entry in entries:
        pixels = decode(files[f"golden/{entry['resized']}"])
        entry["embedded"][variant] = [float(v) for v in run(pixels[None])[0]]


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _exif_rotated(encoded: bytes) -> bytes:
    image = Image.fromarray(decode(encoded))
    exif = Image.Exif()
    exif[_ORIENTATION] = _ROTATED_90
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=92, exif=exif)
    return buffer.getvalue()
