"""Does every file of a bundle, in every runtime, find what the model that was trained finds?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace._dataset import Dataset
from samespace._machine import machine
from samespace.verification._inputs import BATCH, Progress, batches, label_codes, silent
from samespace.verification._parity_report import (
    FLOORS,
    Figures,
    Floor,
    ParityFlip,
    ParityReport,
    ParityRow,
    Status,
)
from samespace_edge import Bundle, Embedder, Measured, VerificationError, measure
from samespace_edge._runtimes import RuntimeKind, find_runtime, runtimes_for

Reference = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Preprocessed pixels, uint8 RGB (N, H, W, 3), to unit vectors (N, D)."""


def parity(
    bundle: str | Path | Bundle,
    gallery: str | Path | Bundle,
    dataset: Dataset | str | Path,
    *,
    reference: Reference | None = None,
    reference_name: str = "torch",
    elsewhere: Sequence[Measured] = (),
    floors: Mapping[str, Floor] = FLOORS,
    progress: Progress = silent,
) -> ParityReport:
    """Run every file of a bundle in every runtime that there is here, and search with it.

    Args:
        bundle: whose files are examined; its model embeds the dataset's test queries.
        gallery: bundle of the model that embeds the gallery.
        dataset: a dataset, or what `Dataset.open` takes.
        reference: the model as it was trained; by default the bundle's fp32 ONNX file, else its
            first fp32 file.
        reference_name: what reports call it.
        elsewhere: results from other machines, over the same queries in the same order (see
            `query_pixels` and `python -m samespace_edge`).
        floors: by precision, what a file has to reach.
        progress: is told the stage and how much of how much is done.

    Raises `VerificationError` where there is nothing to measure or a result is of another bundle,
    and the errors of datasets and bundles.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    gallery = gallery if isinstance(gallery, Bundle) else Bundle.open(gallery)
    data = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    if not data.queries or not data.gallery:
        raise VerificationError(f"{data.source} has no test queries or no test gallery")
    if bundle.manifest.dim != gallery.manifest.dim:
        raise VerificationError(
            f"{bundle.manifest.name} makes vectors of width {bundle.manifest.dim}, the gallery's "
            f"{gallery.manifest.name} of {gallery.manifest.dim}; they cannot be compared"
        )
    pixels = query_pixels(bundle, data, progress)
    if reference is None:
        embedder = _default_reference(bundle)
        reference, reference_name = embedder.embed_pixels, f"{embedder.variant.name} file"
    expected = np.concatenate(
        [reference(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    )
    search = _Search(data, _gallery_vectors(gallery, data, progress), expected)

    runs = list(_runs(bundle))
    rows = []
    for done, (variant, runtime, kind) in enumerate(runs):
        progress("run every file", done, len(runs))
        if reason := kind.missing():
            rows.append(_row(bundle, variant, runtime, kind, None, floors, reason))
            continue
        measured = measure(bundle, variant, runtime, pixels)
        rows.append(_row(bundle, variant, runtime, kind, search.figures(measured), floors))
    progress("run every file", len(runs), len(runs))
    for result in elsewhere:
        _check_elsewhere(bundle, result, len(pixels))
        kind = find_runtime(result.runtime)
        if kind.format != bundle.variant(result.variant).format:
            raise VerificationError(
                f"{result.runtime} runs {kind.format} files; {result.variant} is none"
            )
        rows = [r for r in rows if (r.variant, r.runtime) != (result.variant, result.runtime)]
        figures = search.figures(result)
        rows.append(_row(bundle, result.variant, result.runtime, kind, figures, floors))
    order = {(variant, runtime): i for i, (variant, runtime, _) in enumerate(runs)}
    rows.sort(key=lambda row: order[row.variant, row.runtime])
    return ParityReport(
        bundle=_named(bundle),
        gallery=_named(gallery),
        dataset={
            "name": data.name,
            "sha256": data.sha256((*data.queries, *data.gallery)),
            "queries": len(data.queries),
            "gallery": len(data.gallery),
        },
        reference=reference_name,
        reference_recall_at_1=search.recall,
        floors=dict(floors),
        rows=tuple(rows),
        machine=machine(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("samespace"),
    )


def _gallery_vectors(gallery: Bundle, data: Dataset, progress: Progress) -> NDArray[np.float32]:
    embedder = Embedder(gallery)
    vectors: list[NDArray[np.float32]] = []
    for start, pixels in enumerate(batches(gallery.manifest.resize, data, data.gallery)):
        progress("embed the gallery", start * BATCH, len(data.gallery))
        vectors.append(embedder.embed_pixels(pixels))
    progress("embed the gallery", len(data.gallery), len(data.gallery))
    return np.concatenate(vectors)


def query_pixels(
    bundle: str | Path | Bundle,
    dataset: Dataset | str | Path,
    progress: Progress = silent,
) -> NDArray[np.uint8]:
    """The dataset's test queries as the bundle's graphs take them: uint8 RGB (Q, H, W, 3)."""
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    data = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    found: list[NDArray[np.uint8]] = []
    for start, pixels in enumerate(batches(bundle.manifest.resize, data, data.queries)):
        progress("decode the queries", start * BATCH, len(data.queries))
        found.append(pixels)
    progress("decode the queries", len(data.queries), len(data.queries))
    return np.concatenate(found)


class _Search:
    """The gallery, and what the reference finds in it."""

    def __init__(
        self, data: Dataset, gallery: NDArray[np.float32], expected: NDArray[np.float32]
    ) -> None:
        self._data = data
        self._gallery = gallery
        self._query_labels, self._gallery_labels = label_codes(data.queries, data.gallery)
        self._expected = expected
        self._first, self._right = self._search(expected)
        self._intervals = metrics.ClusterRobust(self._query_labels)

    @property
    def recall(self) -> float:
        """R@1 of the reference."""
        return float(self._right.mean())

    def figures(self, measured: Measured) -> Figures:
        """Compare with the reference."""
        wide = measured.vectors.astype(np.float64)
        cosine = (wide * self._expected).sum(1) / np.linalg.norm(wide, axis=1)
        first, right = self._search(measured.vectors)
        interval = self._intervals.difference(right.astype(float) - self._right)
        return Figures(
            load_ms=measured.load_ms,
            p50_ms=float(np.percentile(measured.times_ms, 50)),
            p95_ms=float(np.percentile(measured.times_ms, 95)),
            cosine_min=float(cosine.min()),
            cosine_p1=float(np.percentile(cosine, 1)),
            cosine_mean=float(cosine.mean()),
            agreement=float((first == self._first).mean()),
            label_agreement=float(
                (self._gallery_labels[first] == self._gallery_labels[self._first]).mean()
            ),
            recall_at_1=float(right.mean()),
            difference=float(right.mean() - self._right.mean()),
            difference_ci=(interval.low, interval.high),
            flips=tuple(self._flips(first, right)),
        )

    def _search(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        ranking = metrics.rank(
            vectors, self._gallery, self._query_labels, self._gallery_labels, keep=1
        )
        return ranking.top[:, 0], ranking.hits(1)

    def _flips(self, first: NDArray[np.int64], right: NDArray[np.bool_]) -> Iterator[ParityFlip]:
        for i in np.flatnonzero(first != self._first):
            before, after = bool(self._right[i]), bool(right[i])
            yield ParityFlip(
                self._data.queries[i].path,
                "none" if before == after else "negative" if before else "positive",
                self._data.gallery[self._first[i]].path,
                self._data.gallery[first[i]].path,
            )


def _runs(bundle: Bundle) -> Iterator[tuple[str, str, RuntimeKind]]:
    for variant in bundle.manifest.variants:
        for runtime, kind in runtimes_for(variant.format).items():
            yield variant.name, runtime, kind


def _row(
    bundle: Bundle,
    name: str,
    runtime: str,
    kind: RuntimeKind,
    figures: Figures | None,
    floors: Mapping[str, Floor],
    reason: str | None = None,
) -> ParityRow:
    variant = bundle.variant(name)
    status: Status = "not run"
    if figures:
        reason = _below(figures, floors.get(variant.precision))
        status = "fail" if reason else "pass"
    return ParityRow(
        name, variant.precision, runtime, variant.bytes, status, reason, kind.proves, figures
    )


def _below(figures: Figures, floor: Floor | None) -> str | None:
    if floor is None:
        return None
    reasons = []
    if -figures.difference > floor.drop + 1e-9:
        reasons.append(f"R@1 {100 * figures.difference:+.2f} points, floor -{100 * floor.drop:g}")
    if figures.agreement < floor.agreement - 1e-9:
        share, least = 100 * figures.agreement, 100 * floor.agreement
        reasons.append(f"same first hit for {share:.2f} %, floor {least:g}")
    return "; ".join(reasons) or None


def _check_elsewhere(bundle: Bundle, result: Measured, queries: int) -> None:
    variant = bundle.variant(result.variant)
    if variant.sha256 != result.variant_sha256:
        raise VerificationError(
            f"the result for {result.variant} was measured on another file "
            f"({result.variant_sha256[:12]}…) than this bundle's ({variant.sha256[:12]}…)"
        )
    if not np.isfinite(result.vectors).all() or not np.any(result.vectors, axis=-1).all():
        raise VerificationError(
            f"the result for {result.variant} in {result.runtime} holds NaN, infinity or a vector "
            "of zeros; run the golden check on that device"
        )
    if result.vectors.shape != (queries, bundle.manifest.dim):
        raise VerificationError(
            f"the result for {result.variant} in {result.runtime} has {result.vectors.shape} "
            f"vectors; this dataset has {queries} queries. Measure with the pixels that "
            "--pixels writes for this dataset."
        )


def _default_reference(bundle: Bundle) -> Embedder:
    for variant in bundle.manifest.variants:
        if variant.name == "onnx-fp32":
            return Embedder(bundle, variant=variant.name)
    for variant in bundle.manifest.variants:
        if variant.precision == "fp32":
            return Embedder(bundle, variant=variant.name)
    raise VerificationError(
        f"bundle {bundle.manifest.name!r} has no fp32 file to compare the others with; give the "
        "checkpoint it was exported from"
    )


def _named(bundle: Bundle) -> dict[str, str]:
    return {"name": bundle.manifest.name, "fingerprint": bundle.manifest.fingerprint.hex}
