"""The models of a verification: opened, told apart, and what they make of the pictures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace._dataset import Dataset
from samespace.verification._inputs import Progress, batches
from samespace.verification._report import ModelEntry
from samespace_edge import Bundle, Embedder, VerificationError
from samespace_edge._runtimes import find_runtime

BundleLike = str | Path | Bundle | Embedder

_TIMED_PICTURES = 32


@dataclass
class Model:
    """A model that takes part.

    Attributes:
        label: what it is called in the report; unique.
        declared: `query`, `gallery`, `baseline`, `paragon`, or several, as the caller named it.
        queries, gallery: unit vectors (Q, D) and (G, D).
        place: its place among the gallery bundles, from 0; None where it is not among them.
        bank: vectors (B, D) of the hub correction's pictures.
    """

    label: str
    embedder: Embedder
    declared: list[str]
    queries: NDArray[np.float32]
    gallery: NDArray[np.float32]
    place: int | None = None
    bank: NDArray[np.float32] | None = None
    decode_ms: float = 0.0
    embed_ms: float = 0.0

    @property
    def manifest(self) -> Any:
        """Of its bundle."""
        return self.embedder.bundle.manifest


def open_models(
    query: Sequence[BundleLike],
    gallery: Sequence[BundleLike],
    baseline: BundleLike | None = None,
    paragon: BundleLike | None = None,
) -> list[Model]:
    """Every model once, whatever it is named as; raises `VerificationError` and bundle errors."""
    if not query or not gallery:
        raise VerificationError("name at least one query bundle and one gallery bundle")
    models: dict[tuple[str, str], Model] = {}
    roles = [("query", b) for b in query] + [("gallery", b) for b in gallery]
    roles += [("baseline", b) for b in (baseline,) if b is not None]
    roles += [("paragon", b) for b in (paragon,) if b is not None]
    for declared, bundle in roles:
        embedder = bundle if isinstance(bundle, Embedder) else Embedder(bundle)
        identity = embedder.identity
        key = (identity.fingerprint.hex, identity.variant_sha256)
        if key not in models:
            empty = np.empty((0, embedder.dim), np.float32)
            models[key] = Model(identity.name, embedder, [], empty, empty)
        model = models[key]
        model.declared.append(declared)
        if declared == "gallery" and model.place is None:
            model.place = len([m for m in models.values() if m.place is not None])
    found = list(models.values())
    names = Counter(m.label for m in found)
    for model in found:
        if names[model.label] > 1:  # a name is only a label: tell them apart by what they are
            identity = model.embedder.identity
            model.label = f"{identity.name}-{identity.fingerprint.short}-{identity.variant}"
    return found


def interpreted(models: Sequence[Model]) -> Iterator[str]:
    """What has to be said of runtimes that are not a device's own."""
    for model in models:
        if proves := find_runtime(model.embedder.runtime).proves:
            yield (
                f"{model.label} ({model.embedder.variant.name}) was run by "
                f"{model.embedder.runtime}, which proves {proves}."
            )


def embed_all(models: Sequence[Model], data: Dataset, progress: Progress) -> None:
    """Fill in every model's vectors, and how long one picture takes it.

    Raises `VerificationError` naming a picture of which a model makes no unit vector.
    """
    for model in models:
        total = len(data.queries) + len(data.gallery)
        done = 0
        sides = []
        for items in (data.queries, data.gallery):
            vectors = []
            for pixels in batches(model.manifest.resize, data, items):
                vectors.append(model.embedder.embed_pixels(pixels))
                done += len(pixels)
                progress(f"embed with {model.label}", done, total)
            sides.append(np.concatenate(vectors))
        model.queries, model.gallery = sides
        for side, items in ((sides[0], data.queries), (sides[1], data.gallery)):
            bad = np.flatnonzero(~(np.abs(np.linalg.norm(side, axis=1) - 1) < 1e-2))
            if len(bad):
                raise VerificationError(
                    f"{model.embedder.identity} makes no unit vector of {items[bad[0]].path}, "
                    "so it cannot be searched with; export the model again"
                )
        model.decode_ms, model.embed_ms = _latency(model.embedder, data)


def _latency(embedder: Embedder, data: Dataset) -> tuple[float, float]:
    encoded = [data.read(item) for item in data.queries[:_TIMED_PICTURES]]
    decode, embed = [], []
    for content in (encoded[0], *encoded):  # the first one warms up
        start = time.perf_counter()
        pixels = embedder.preprocess(content)
        middle = time.perf_counter()
        embedder.embed_pixels(pixels[None])
        decode.append(middle - start)
        embed.append(time.perf_counter() - middle)
    return float(np.median(decode[1:]) * 1e3), float(np.median(embed[1:]) * 1e3)


def entry(model: Model) -> ModelEntry:
    """A model as it stands in a report."""
    manifest = model.manifest
    return ModelEntry(
        label=model.label,
        identity=model.embedder.identity,
        role=manifest.role,
        declared=tuple(model.declared),
        macs=manifest.macs,
        parameters=manifest.parameters,
        bytes=model.embedder.variant.bytes,
        decode_ms=model.decode_ms,
        embed_ms=model.embed_ms,
        card=manifest.card,
    )
