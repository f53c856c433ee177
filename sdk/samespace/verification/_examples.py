"""Queries worth looking at, and what was found for them."""

from __future__ import annotations

from collections.abc import Sequence

from samespace import metrics
from samespace._dataset import Dataset
from samespace.verification._criteria import Rankings
from samespace.verification._models import Model
from samespace.verification._report import Example, FlipCount
from samespace.verification._upgrade import UpgradeSection

_HITS_SHOWN = 3
_EXAMPLES = 24


def flip_count(query: Model, gallery: Model, rankings: Rankings, data: Dataset) -> FlipCount:
    """Queries that turn wrong, or right, against the gallery model on both sides."""
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


def examples(
    claims: Sequence[tuple[Model, Model]],
    rankings: Rankings,
    data: Dataset,
    flip_counts: Sequence[FlipCount],
    upgrades: Sequence[UpgradeSection] = (),
) -> tuple[Example, ...]:
    """Queries worth looking at: negative flips first, then positive ones, then any.

    Of either, first those of an upgrade: they come to people who changed nothing.
    """
    place = {item.path: i for i, item in enumerate(data.queries)}
    kinds: dict[int, str] = {}
    flips = [
        (f"{c.query}, items now by {u.new}", c.negative, c.positive)
        for u in upgrades
        for c in u.changes
    ]
    flips += [(c.query, c.negative, c.positive) for c in flip_counts]
    for at, kind in enumerate(("negative", "positive")):
        for whose, *both in flips:
            paths = both[at]
            step = max(1, len(paths) * 2 // _EXAMPLES)
            for path in paths[::step]:
                kinds.setdefault(place[path], f"{kind} flip of {whose}")
    step = max(1, len(data.queries) // 4)
    for i in range(0, len(data.queries), step):
        kinds.setdefault(i, "any")
    pairs = dict.fromkeys(
        [(g.label, g.label) for _, g in claims] + [(q.label, g.label) for q, g in claims]
    )
    shown = []
    for i, kind in list(kinds.items())[:_EXAMPLES] if pairs else []:
        item = data.queries[i]
        hits = {
            f"{q} → {g}": tuple(
                (data.gallery[j].path, data.gallery[j].label)
                for j in rankings[q, g].top[i, :_HITS_SHOWN]
            )
            for q, g in pairs
        }
        shown.append(Example(item.path, item.label, kind, hits))
    return tuple(shown)
