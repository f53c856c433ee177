"""Do these models retrieve against one another? Measured on pictures, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

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
from samespace.verification._claims import claims, is_upgrade, references, upgrades
from samespace.verification._criteria import criterion
from samespace.verification._examples import examples, flip_count
from samespace.verification._inputs import (
    Progress,
    label_codes,
    queries_in_gallery,
    silent,
)
from samespace.verification._models import (
    BundleLike,
    Model,
    embed_all,
    entry,
    interpreted,
    open_models,
)
from samespace.verification._prefixes import checked_widths, shorter_rankings
from samespace.verification._report import Report
from samespace.verification._thresholds import checked_threshold, threshold_met
from samespace.verification._upgrade_measure import Measured, measure_upgrade
from samespace_edge import VerificationError


def verify(
    query: Sequence[BundleLike],
    gallery: Sequence[BundleLike],
    dataset: Dataset | str | Path,
    *,
    baseline: BundleLike | None = None,
    paragon: BundleLike | None = None,
    threshold: float | None = None,
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
            M(baseline, baseline); without it, M(query, query). An upgrade is not judged by it.
        paragon: the new cloud model of an upgrade trained without regard to the old one. With it,
            the report tells what compatibility costs.
        threshold: a cosine of the user's own; by default that at which the gallery model's own
            queries have a FAR of 1 %.
        bank: pictures without labels. With them, every pair is also measured with the hub
            correction that they give (`samespace.metrics.hub_bias`), beside the plain figures; the
            criterion goes by the plain ones. A dataset's train pictures, a folder of pictures,
            of both at most 2,000, or a sequence of paths and encoded pictures.
        prefixes: widths from 2 to below the full one. Every pair is also measured with vectors cut
            to their first so many numbers (`samespace.metrics.shorten`), and so is the criterion:
            a certificate lists the widths at which it holds as well.
        notes: what a reader has to know before the figures.
        progress: is told the stage and how many pictures of how many are done.
        seed: of the orders of backfill.

    Queries whose picture is in the gallery as well, pixel by pixel, are left out, and a note of the
    report says so: such a query finds itself, whatever the model has learnt.

    A criterion is stated for every query and gallery model that claim the same space. Models of
    other spaces stay in the matrix, for comparison.

    A cloud model of the space of an older cloud model is an upgrade of it: M(new, old) has to beat
    M(old, old), and the report gets a section on what the new model's gallery does to every query
    model. The anchor of a space is its oldest model; of two others the one that comes first in
    `gallery` is the older one.

    Raises `VerificationError` where there is nothing to compare, where all queries are in the
    gallery, where the bank holds a test
    picture, where a prefix is not shorter than the vectors or a threshold no cosine, and the errors
    of datasets and bundles.
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
    given = checked_threshold(threshold)
    models = open_models(query, gallery, baseline, paragon)
    widths = checked_widths(prefixes, {m.label: m.embedder.dim for m in models})
    notes = [*notes, *interpreted(models)]
    embed_all(models, data, progress)
    data, repeated = _without_repeats(data, models)
    notes = [*notes, *repeated]
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
    intervals = metrics.ClusterRobust(query_labels)
    matrix = tuple(
        cell(
            pair,
            ranking,
            corrected.get(pair),
            {width: by_pair[pair] for width, by_pair in shorter.items()},
            intervals,
        )
        for pair, ranking in rankings.items()
    )
    claimed = claims(models)
    criteria = tuple(
        criterion(
            q.label,
            g.label,
            reference.label,
            rankings,
            shorter,
            intervals,
            cost_ratio=g.manifest.macs / max(1, q.manifest.macs),
            decides=decides,
            upgrade=is_upgrade(q, g),
        )
        for q, g in claimed
        for reference, decides in references(q, g, models)
    )
    paths = [i.path for i in data.queries]
    measured = Measured(rankings, *labels, paths, intervals, given, seed, progress)
    found = tuple(measure_upgrade(old, new, models, measured) for old, new in upgrades(models))
    flip_counts = tuple(flip_count(q, g, rankings, data) for q, g in claimed)
    return Report(
        dataset={
            "name": data.name,
            "sha256": data.sha256((*data.queries, *data.gallery)),
            "queries": len(data.queries),
            "gallery": len(data.gallery),
            "labels": len(set(query_labels.tolist())),
        },
        models=tuple(entry(m) for m in models),
        matrix=matrix,
        criteria=criteria,
        flips=flip_counts,
        thresholds=tuple(threshold_met(q, g, *labels, given) for q, g in claimed),
        examples=examples(claimed, rankings, data, flip_counts, found),
        notes=tuple(notes),
        machine=machine(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("samespace"),
        bank=None if pictures is None else bank_entry(pictures),
        threshold=given,
        upgrades=found or None,
    )


def _without_repeats(data: Dataset, models: Sequence[Model]) -> tuple[Dataset, list[str]]:
    """Leave out the queries whose pictures are in the gallery; say which."""
    repeated = queries_in_gallery(data, models[0].queries, models[0].gallery)
    if not repeated:
        return data, []
    query, item = next(iter(repeated.items()))
    pair = f"{data.queries[query].path} and {data.gallery[item].path}"
    if len(repeated) == len(data.queries):
        raise VerificationError(
            f"{data.source}: every query is the same picture, pixel by pixel, as one of the "
            f"gallery, such as {pair}; every model would find it. Give other queries"
        )
    kept = [i for i in range(len(data.queries)) if i not in repeated]
    for model in models:
        model.queries = model.queries[kept]
    queries = [data.queries[i] for i in kept]
    others = [item for item in data.items if not (item.split == "test" and item.role == "query")]
    count = "1 query is" if len(repeated) == 1 else f"{len(repeated)} queries are"
    note = (
        f"{count} left out of {len(data.queries)}: the same picture, pixel by pixel, is in the "
        f"gallery, such as {pair}. A query would find itself."
    )
    return data.subset([*others, *queries]), [note]
