"""Replay a bundle's golden pictures here, and name the stage at which this device departs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from samespace_edge._bundle import GOLDEN, Bundle
from samespace_edge._embedder import Embedder
from samespace_edge._errors import BundleError, BundleFormatError, RuntimeUnavailableError
from samespace_edge._golden import angle, png_pixels, read_golden
from samespace_edge._image import decode
from samespace_edge._runtimes import find_runtime

StageName = Literal["files", "decode", "resize", "embed", "end to end"]


@dataclass(frozen=True)
class StageResult:
    """One stage of one golden picture, replayed from what the stage before should have given.

    Attributes:
        stage: which one.
        subject: the picture, the variant or the file.
        error: largest difference of a pixel (0 to 255), or 1 - cosine for vectors.
        tolerance: the largest error that passes, from the bundle.
    """

    stage: StageName
    subject: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the device stays within the tolerance."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class BundleCheck:
    """What `check_bundle` found.

    Attributes:
        results: every stage of every golden picture, in the order in which they run.
        problems: files that are missing, changed or unlisted.
        skipped: variants that no installed runtime runs, and what to install.
    """

    name: str
    results: tuple[StageResult, ...]
    problems: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything is as it was exported, at least one variant ran here, and this device
        agrees with the exporter."""
        return not self.problems and bool(self.results) and all(r.ok for r in self.results)

    @property
    def departs_at(self) -> StageName | None:
        """The first stage at which this device departs; None if it does not."""
        if self.problems:
            return "files"
        order: tuple[StageName, ...] = ("decode", "resize", "embed", "end to end")
        failed = {r.stage for r in self.results if not r.ok}
        return next((stage for stage in order if stage in failed), None)


def check_bundle(path: str | Path, runtime: str | None = None) -> BundleCheck:
    """Check every hash of the bundle in folder `path` and replay its golden pictures.

    Args:
        runtime: run this one only; by default every variant runs in the runtime that `Embedder`
            would choose for it.

    Raises the errors of `Bundle.open` where there is nothing to check; whatever is wrong
    inside is in the result.
    """
    bundle = Bundle.open(path)
    problems = list(_file_problems(bundle))
    if problems:
        return BundleCheck(bundle.manifest.name, (), tuple(problems))
    golden = read_golden(bundle)
    results: list[StageResult] = []
    skipped: list[str] = []
    for variant in bundle.manifest.variants:
        if runtime and find_runtime(runtime).format != variant.format:
            skipped.append(f"{variant.name}: {runtime} does not run {variant.format} files")
            continue
        try:
            embedder = Embedder(bundle, variant=variant.name, runtime=runtime, check=False)
        except RuntimeUnavailableError as error:
            skipped.append(f"{variant.name}: {error}")
            continue
        for entry in golden["images"]:
            results += _replay(embedder, entry, golden["tolerance"])
    return BundleCheck(bundle.manifest.name, tuple(results), tuple(problems), tuple(skipped))


def _file_problems(bundle: Bundle) -> Iterator[str]:
    listed = set(bundle.manifest.files)
    for member in sorted(listed):
        try:
            bundle.read(member)
        except BundleError as error:
            yield str(error)
    found = {
        p.relative_to(bundle.path).as_posix()
        for p in bundle.path.rglob("*")
        if p.is_file() or p.is_symlink()
    }
    for extra in sorted(found - listed - {"manifest.json"}):
        yield f"{bundle.path / extra} is not listed in the manifest"
    if GOLDEN not in listed:
        yield f"the bundle has no {GOLDEN}, so this device cannot be checked"


def _replay(
    embedder: Embedder, entry: dict[str, Any], tolerance: dict[str, Any]
) -> Iterator[StageResult]:
    bundle = embedder.bundle
    image = f"golden/{entry['image']}"
    expected_pixels = png_pixels(bundle.read(f"golden/{entry['decoded']}"))
    expected_input = png_pixels(bundle.read(f"golden/{entry['resized']}"))
    try:
        expected = np.asarray(entry["embedded"][embedder.variant.name], np.float32)
        vector_tolerance = float(tolerance["embed"][embedder.variant.name])
    except KeyError:
        raise BundleFormatError(
            f"{bundle.path / GOLDEN} says nothing of variant {embedder.variant.name}"
        ) from None

    encoded = bundle.read(image)
    decoded = decode(encoded)
    yield StageResult("decode", image, _difference(decoded, expected_pixels), tolerance["decode"])
    resized = bundle.manifest.resize(expected_pixels)
    yield StageResult("resize", image, _difference(resized, expected_input), tolerance["resize"])
    vector = embedder.embed_pixels(expected_input[None])[0]
    subject = f"{image} {embedder.variant.name}"
    yield StageResult("embed", subject, angle(vector, expected), vector_tolerance)
    whole = embedder.embed(encoded)[0]
    # Never less than what the graph alone is allowed.
    whole_tolerance = max(float(tolerance["end to end"]), vector_tolerance)
    yield StageResult("end to end", subject, angle(whole, expected), whole_tolerance)


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())
