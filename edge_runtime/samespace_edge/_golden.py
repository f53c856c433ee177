"""Golden pictures: what a bundle's files should make of them, and whether they do here.

An int8 file can give other vectors on another processor, without any error (see `agreement`). So a
file is compared with its golden vectors when it is opened. The verdict is kept by the file, the
runtime and the processor, so that each file is compared once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samespace_edge._bundle import GOLDEN, Bundle, Variant
from samespace_edge._errors import BundleFormatError
from samespace_edge._processor import instruction_set, processor_name

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Preprocessed pixels, uint8 RGB (N, H, W, 3), to unit vectors (N, D)."""

CACHE_VARIABLE = "SAMESPACE_CACHE"
"""Environment variable that names another folder than ~/.cache/samespace for what is kept."""

# Named providers may be accelerators, which compute in 16 bits: what a golden vector of an fp16
# file may depart by.
_ACCELERATED = 1e-3
# A vector's length may be off by so much and still be a unit vector.
_UNIT = 1e-2
# Distributions whose version decides over a runtime's kernels.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"),
    "ai_edge_litert": ("ai-edge-litert",),
    "tflite_runtime": ("tflite-runtime",),
    "coremltools": ("coremltools",),
}


@dataclass(frozen=True)
class Agreement:
    """How far a file's vectors are from its golden vectors on this processor.

    Attributes:
        error: largest 1 - cosine over the golden pictures; infinity for vectors without length 1.
        tolerance: the largest error that passes.
    """

    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the file computes here what the exporter expects."""
        return self.error <= self.tolerance


def agreement(
    bundle: Bundle, variant: Variant, runtime: str, providers: Sequence[str], run: Run
) -> Agreement | None:
    """Compare a file with its golden vectors, or look the verdict up.

    Args:
        run: the loaded file.

    Returns:
        None for a bundle without golden vectors of this file.

    Raises `BundleFormatError` for golden vectors that cannot be read.
    """
    if GOLDEN not in bundle.manifest.files:
        return None
    folder = _cache_folder()
    file = folder / "verdicts" / _key(bundle, variant, runtime, providers) if folder else None
    kept = _read(file) if file else None
    if kept is None:
        kept = _compare(bundle, variant, bool(providers), run)
        if file and kept:
            _write(file, kept)
    return kept


def _compare(bundle: Bundle, variant: Variant, has_providers: bool, run: Run) -> Agreement | None:
    golden = read_golden(bundle)
    try:
        if variant.name not in golden["tolerance"]["embed"] or not golden["images"]:
            return None
        tolerance = float(golden["tolerance"]["embed"][variant.name])
        entries = golden["images"]
        pixels = np.stack([png_pixels(bundle.read(f"golden/{e['resized']}")) for e in entries])
        expected = [np.asarray(e["embedded"][variant.name], np.float32) for e in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleFormatError(
            f"{bundle.path / GOLDEN} is malformed: {error!r}. Export the bundle again."
        ) from None
    vectors = run(pixels)
    if vectors.shape != (len(expected), bundle.manifest.dim):
        return None  # `Embedder.embed_pixels` refuses such vectors by their shape.
    largest = max(angle(v, e) for v, e in zip(vectors, expected, strict=True))
    return Agreement(largest, max(tolerance, _ACCELERATED) if has_providers else tolerance)


def read_golden(bundle: Bundle) -> Any:
    """Return the content of `golden.json`; raise `BundleFormatError` where it is no JSON."""
    try:
        return json.loads(bundle.read(GOLDEN))
    except ValueError as error:
        raise BundleFormatError(
            f"{bundle.path / GOLDEN} is no JSON: {error}. Export the bundle again."
        ) from None


def png_pixels(content: bytes) -> NDArray[np.uint8]:
    """Return a golden PNG as uint8 RGB (H, W, 3)."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def angle(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return 1 - cosine of two unit vectors (D,); infinity where `a` is none.

    A model may give zeros for a picture. Then `b` is zero, and the largest number of `a` counts.
    """
    wide = a.astype(np.float64)
    if not np.any(b):
        return float(np.abs(wide).max())
    if not abs(float(np.linalg.norm(wide)) - 1) < _UNIT:
        return float("inf")
    return max(0.0, 1.0 - float(wide @ b.astype(np.float64)))


def _key(bundle: Bundle, variant: Variant, runtime: str, providers: Sequence[str]) -> str:
    versions = []
    for name in _DISTRIBUTIONS.get(runtime, ()):
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    decisive = [
        variant.sha256,
        bundle.manifest.files[GOLDEN],
        runtime,
        versions,
        list(providers),
        processor_name(),
        instruction_set(),
    ]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _cache_folder() -> Path | None:
    """Return where verdicts are kept; None for a user without a home."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    with suppress(RuntimeError):
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "samespace"
    return None


def _read(path: Path) -> Agreement | None:
    try:
        error, tolerance = path.read_text(encoding="ascii").split()
        return Agreement(float(error), float(tolerance))
    except (OSError, ValueError):
        return None


def _write(path: Path, verdict: Agreement) -> None:
    """Keep a verdict. A folder that cannot be written costs a comparison at every open."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"{verdict.error!r} {verdict.tolerance!r}")
        Path(temporary).replace(path)
