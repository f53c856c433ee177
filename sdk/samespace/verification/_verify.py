"""Do these models retrieve against one another? Measured on pictures, with intervals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace._dataset import Dataset
from samespace._machine import machine
from samespace.verification._bank import (
    BankLike,
    bank_entry,
    embed_bank,
    open_bank,
    refuse_test_pictures,
)
from samespace.verification._cells import cell, corrected_ranking
from samespace.verification._criteria import Rankings, criterion
from samespace.verification._inputs import Progress, batches, label_codes, silent
from samespace.verification._prefixes import checked_widths, shorter_rankings
from samespace.verification._report import (
    Example,
    FlipCount,
    ModelEntry,
    Report,
    Threshold,
)
from samespace_edge import Bundle, Embedder, VerificationError
from samespace_edge._runtimes import find_runtime

BundleLike = str | Path | Bundle | Embedder

FAR = 0.01
_HITS_SHOWN = 3
_EXAMPLES = 24
_TIMED_PICTURES = 32
_BINS = np.linspace(-1.0, 1.0, 41)


@dataclass
class _Model:
    label: str
    embedder: Embedder
    declared: list[str]
    queries: NDArray[np.float32]
    gallery: NDArray[np.float32]
    bank: NDArray[np.float32] | None = None
    decode_ms: float = 0.0
    embed_ms: float = 0.0

    @property
    def manifest(self) -> Any:
        return self.embedder.bundle.manifest


def verify(
    query: Sequence[BundleLike],
    gallery: Sequence[BundleLike],
    dataset: Dataset | str | Path,
    *,
    baseline: BundleLike | None = None,
    bank: BankLike | None = None,
    prefixes: Sequence[int] = (),
    notes: Sequence[str] = (),
    progress: Progress = silent,
    seed: int = 0,
) -> Report:
    """Measure every pair of models on a dataset's test queries and gallery.

    Args:
        query: bundles that embed queries.
        gallery: bundles that embed the gallery.
        dataset: a dataset, or what `Dataset.open` takes.
        baseline: the query model that would be used without compatible training, typically the
            same architecture trained alone. With it, M(query, gallery) has to beat
            M(baseline, baseline); without it, M(query, query).
        bank: pictures without labels. With them, every pair is also measured with the hub
            correction that they give (`samespace.metrics.hub_bias`), beside the plain figures; the
            criterion goes by the plain ones. A dataset's train pictures, a folder of pictures,
            of both at most 2,000, or a sequence of paths and encoded pictures.
        prefixes: widths from 2 to below the full one. Every pair is also measured with vectors cut
            to their first so many numbers (`samespace.metrics.shorten`), and so is the criterion:
            a certificate lists the widths at which it holds as well.
        notes: what a reader has to know before the figures.
        progress: is told the stage and how many pictures of how many are done.
        seed: of the bootstrap.

    A criterion is stated for every query and gallery model that claim the same space. Models of
    other spaces stay in the matrix, for comparison. Raises `VerificationError` where there is
    nothing to compare, where the bank holds a test picture, where a prefix is not shorter than the
    vectors, and the errors of datasets and bundles.
    """
    data = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    if not data.queries or not data.gallery:
        raise VerificationError(f"{data.source} has no test queries or no test gallery")
    known = {i.label for i in data.gallery}
    if lost := sorted({i.label for i in data.queries} - known):
        raise VerificationError(
            f"{data.source}: {len(lost)} label(s) are queried but not in the gallery, such as "
            f"{lost[0]!r}; no model could find them"
        )
    if seen := known & {i.label for i in data.train}:
        notes = [*notes, f"{len(seen)} test labels are in the train part too."]
    pictures = None if bank is None else open_bank(bank)
    if pictures is not None:
        refuse_test_pictures(pictures, data)
    models = _open(query, gallery, baseline)
    widths = checked_widths(prefixes, {m.label: m.embedder.dim for m in models})
    notes = [*notes, *_interpreted(models)]
    _embed(models, data, progress)
    if pictures is not None:
        for model in models:
            model.bank = embed_bank(model.embedder, pictures, model.label, progress)

    query_labels, gallery_labels = label_codes(data.queries, data.gallery)
    labels = (query_labels, gallery_labels)
    pairs = [(q, g) for q in models for g in models if q.embedder.dim == g.embedder.dim]
    rankings = {(q.label, g.label): metrics.rank(q.queries, g.gallery, *labels) for q, g in pairs}
    corrected = {
        (q.label, g.label): corrected_ranking(q.queries, g.gallery, q.bank, *labels)
        for q, g in pairs
        if q.bank is not None
    }
    sides = {m.label: (m.queries, m.gallery) for m in models}
    shorter = {width: shorter_rankings(sides, list(rankings), width, *labels) for width in widths}
    bootstrap = metrics.Bootstrap(query_labels, seed=seed)
    matrix = tuple(
        cell(
            pair,
            ranking,
            corrected.get(pair),
            {width: found[pair] for width, found in shorter.items()},
            bootstrap,
        )
        for pair, ranking in rankings.items()
    )
    claims = _claims(models)
    criteria = tuple(
        criterion(
            q.label,
            g.label,
            reference.label,
            rankings,
            shorter,
            bootstrap,
            cost_ratio=g.manifest.macs / max(1, q.manifest.macs),
            decides=decides,
        )
        for q, g in claims
        for reference, decides in _references(q, models)
    )
    flip_counts = tuple(_flips(q, g, rankings, data) for q, g in claims)
    return Report(
        dataset={
            "name": data.name,
            "sha256": data.sha256((*data.queries, *data.gallery)),
            "queries": len(data.queries),
            "gallery": len(data.gallery),
            "labels": len(set(query_labels.tolist())),
        },
        models=tuple(_entry(m) for m in models),
        matrix=matrix,
        criteria=criteria,
        flips=flip_counts,
        thresholds=tuple(_threshold(q, g, query_labels, gallery_labels) for q, g in claims),
        examples=_examples(claims, rankings, data, flip_counts),
        notes=tuple(notes),
        machine=machine(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("samespace"),
        bank=None if pictures is None else bank_entry(pictures),
    )


def _open(
    query: Sequence[BundleLike], gallery: Sequence[BundleLike], baseline: BundleLike | None
) -> list[_Model]:
    if not query or not gallery:
        raise VerificationError("name at least one query bundle and one gallery bundle")
    models: dict[tuple[str, str], _Model] = {}
    roles = [("query", b) for b in query] + [("gallery", b) for b in gallery]
    if baseline is not None:
        roles.append(("baseline", baseline))
    for declared, bundle in roles:
        embedder = bundle if isinstance(bundle, Embedder) else Embedder(bundle)
        identity = embedder.identity
        key = (identity.fingerprint.hex, identity.variant_sha256)
        if key in models:
            models[key].declared.append(declared)
        else:
            empty = np.empty((0, embedder.dim), np.float32)
            models[key] = _Model(identity.name, embedder, [declared], empty, empty)
    found = list(models.values())
    names = Counter(m.label for m in found)
    for model in found:
        if names[model.label] > 1:  # a name is only a label: tell them apart by what they are
            identity = model.embedder.identity
            model.label = f"{identity.name}-{identity.fingerprint.short}-{identity.variant}"
    return found


def _interpreted(models: Sequence[_Model]) -> Iterator[str]:
    """What has to be said of runtimes that are not a device's own."""
    for model in models:
        if proves := find_runtime(model.embedder.runtime).proves:
            yield (
                f"{model.label} ({model.embedder.variant.name}) was run by "
                f"{model.embedder.runtime}, which proves {proves}."
            )


def _embed(models: Sequence[_Model], data: Dataset, progress: Progress) -> None:
    """Fill in every model's vectors, and how long one picture takes it."""
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


def _claims(models: Sequence[_Model]) -> list[tuple[_Model, _Model]]:
    return [
        (q, g)
        for q in models
        for g in models
        if q is not g
        and "query" in q.declared
        and "gallery" in g.declared
        and q.embedder.identity.space == g.embedder.identity.space
        and q.embedder.dim == g.embedder.dim
    ]


def _references(query: _Model, models: Sequence[_Model]) -> list[tuple[_Model, bool]]:
    baselines = [m for m in models if "baseline" in m.declared and m is not query]
    return [(query, not baselines)] + [(b, True) for b in baselines]


def _flips(query: _Model, gallery: _Model, rankings: Rankings, data: Dataset) -> FlipCount:
    before = rankings[gallery.label, gallery.label].hits(1)
    after = rankings[query.label, gallery.label].hits(1)
    found = metrics.flips(before, after)
    return FlipCount(
        query=query.label,
        gallery=gallery.label,
        negative_rate=found.negative_rate,
        positive_rate=found.positive_rate,
        negative=tuple(data.queries[i].path for i in found.negative),
        positive=tuple(data.queries[i].path for i in found.positive),
    )


def _threshold(
    query: _Model,
    gallery: _Model,
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
) -> Threshold:
    labels = (query_labels, gallery_labels)
    at = metrics.threshold_at_far(gallery.queries, gallery.gallery, *labels, FAR)
    own = metrics.operating_point(gallery.queries, gallery.gallery, *labels, at)
    other = metrics.operating_point(query.queries, gallery.gallery, *labels, at)
    similarity = np.clip(query.queries @ gallery.gallery.T, -1, 1)
    match = query_labels[:, None] == gallery_labels[None, :]
    same, _ = np.histogram(similarity[match], _BINS)
    different, _ = np.histogram(similarity[~match], _BINS)
    return Threshold(
        query=query.label,
        gallery=gallery.label,
        threshold=_finite(at),
        own_far=_finite(own.far),
        own_tar=_finite(own.tar),
        far=_finite(other.far),
        tar=_finite(other.tar),
        bins=tuple(round(float(b), 3) for b in _BINS),
        same=tuple(int(n) for n in same),
        different=tuple(int(n) for n in different),
    )


def _finite(value: float) -> float:
    """JSON has no NaN; a gallery of one label has no pairs of different ones, so 1 and 0."""
    return value if np.isfinite(value) else 0.0


def _examples(
    claims: Sequence[tuple[_Model, _Model]],
    rankings: Rankings,
    data: Dataset,
    flip_counts: Sequence[FlipCount],
) -> tuple[Example, ...]:
    """Queries worth looking at: negative flips first, then positive ones, then any."""
    place = {item.path: i for i, item in enumerate(data.queries)}
    kinds: dict[int, str] = {}
    for kind in ("negative", "positive"):
        for count in flip_counts:
            paths = getattr(count, kind)
            step = max(1, len(paths) * 2 // _EXAMPLES)
            for path in paths[::step]:
                kinds.setdefault(place[path], f"{kind} flip of {count.query}")
    step = max(1, len(data.queries) // 4)
    for i in range(0, len(data.queries), step):
        kinds.setdefault(i, "any")
    pairs = dict.fromkeys(
        [(g.label, g.label) for _, g in claims] + [(q.label, g.label) for q, g in claims]
    )
    examples = []
    for i, kind in list(kinds.items())[:_EXAMPLES] if pairs else []:
        item = data.queries[i]
        hits = {
            f"{q} → {g}": tuple(
                (data.gallery[j].path, data.gallery[j].label)
                for j in rankings[q, g].top[i, :_HITS_SHOWN]
            )
            for q, g in pairs
        }
        examples.append(Example(item.path, item.label, kind, hits))
    return tuple(examples)


def _entry(model: _Model) -> ModelEntry:
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
