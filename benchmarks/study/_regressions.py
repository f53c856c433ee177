"""Updates of a tagger by every method: how many answers turn wrong, and at what error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._ends import difference_ends, share_ends
from benchmarks.study._taggers import PLAIN, SCENARIOS, Scenario, Setup, Shelf
from samespace import metrics
from samespace.regressions import Predictions, choose, compare
from samespace_cloud.tagging import TaggerCheckpoint, UpdateConfig, interpolate

METHODS = {
    "FD-LM": UpdateConfig("focal-logit"),
    "LDI": UpdateConfig("ldi"),
    "ELODI": UpdateConfig("elodi"),
    "FD-KL": UpdateConfig("focal-kl"),
    "naive": UpdateConfig("naive"),
    "BCT": UpdateConfig("bct"),
}
"""By the names that the papers give them."""

WEIGHTS = {
    "FD-LM": (1.0, 4.0, 16.0),
    "LDI": (4.0, 16.0, 64.0),
    "ELODI": (4.0, 16.0, 64.0),
    "FD-KL": (4.0, 16.0, 64.0),
}
"""Of the methods that have one worth choosing: a sum over classes needs less than a mean."""

TOLERANCE = 0.003
"""By how much the validation error may rise for fewer negative flips."""

FROM_OLD = ", from the old one"
"""Of methods whose training starts from the old tagger's weights."""


UNTREATED = UpdateConfig("focal-logit", weight=0.0)
"""An update whose term counts for nothing."""

MEMBERS = 4
_LARGE_ENSEMBLE = 8
_ENSEMBLES = (MEMBERS, _LARGE_ENSEMBLE)
DEAR = 4
"""What a negative flip costs over what a positive one brings, where it counts as dearer."""
NONE = "none"
"""The method of rows without treatment."""

COLUMNS = {
    "part": "methods; sweep: alpha, beta of FD-LM; weights, rates: of methods, and of SGD, on"
    " validation pictures, to choose by",
    "data": "data set; both are photographs",
    "scenario": "what changes from the old tagger to the new one",
    "method": "how the new one was trained, or what was done without training",
    "error_old": "share of the test pictures that the old one has wrong, mean over seeds",
    "error_new": "the same of the new one; null where a training diverged",
    "error_difference": "error_new of this method less that of none",
    "error_difference_ci": "its 95 % interval, paired by picture and seed; over pictures or labels",
    "nfr": "share of the test pictures that only the old one has right, mean over seeds",
    "nfr_ci": "its 95 % interval, over pictures or labels, the wider",
    "nfr_difference_ci": "95 % interval of nfr less that of none, paired by picture and seed;"
    " null in rows that were made before it was measured",
    "nfr_spread": "standard deviation over seeds",
    "relative_nfr": "nfr over (1 - error_old) error_new, mean over seeds",
    "cut": "1 - nfr / nfr of none",
    "weight": "of the method's term; the one that validation pictures of one seed chose",
    "seeds": "how many",
}

NOTES = [
    "The command is that of the last run; rows of other parts, scenarios and data sets are of"
    " earlier runs of the same study.",
    "Taggers: the start of EfficientNet-Lite0 at 64 px, from ImageNet weights; the large one is"
    " EfficientNet-Lite0 without its last stage. Old and new ones differ in seeds and views too.",
    "Ensembles, on both sides, are of independent taggers (the one of eight is the same for every"
    " seed); ELODI learns from one of four.",
    "Weights averaged: half old, half new, batch norms measured anew. Chosen: for every picture the"
    " old or the new answer (none), by what the val part teaches of both.",
]

Answered = tuple[Predictions, Predictions]


def weight_rows(shelf: Shelf) -> Iterator[dict[str, Any]]:
    """A row for every weight of a method, by validation pictures, on the first scenario.

    The fewest negative flips at no more than `TOLERANCE` above the untreated tagger's error win;
    where no weight keeps to that, the smallest error does.
    """
    scenario, seed = SCENARIOS[0], 0
    old, new = shelf.tagger(scenario.old, 2 * seed), shelf.tagger(scenario.new, 2 * seed + 1)
    said = shelf.says_of_validation(old)
    found = {NONE: [(said, shelf.says_of_validation(new))]}
    for name, weights in WEIGHTS.items():
        members = _members(shelf, scenario, seed, METHODS[name])
        for weight in weights:
            update = replace(METHODS[name], weight=weight)
            tagger = trained(shelf, scenario, seed, name, update, old, members)
            found[f"{name}, {weight:g}"] = [(said, shelf.says_of_validation(tagger))]
    yield from rows_of("weights", shelf, scenario.name, found, {})


def chosen_weights(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The weight of every method that the rows of `weight_rows` choose."""
    return {name: best_weight(rows, name, weights) for name, weights in WEIGHTS.items()}


def best_weight(rows: Sequence[dict[str, Any]], name: str, weights: Sequence[float]) -> float:
    """The weight of a method that validation rows choose, by the rule of `weight_rows`."""
    by = {row["method"]: row for row in rows if row["error_new"] is not None}
    bar = by[NONE]["error_new"] + TOLERANCE
    there = [w for w in weights if f"{name}, {w:g}" in by]
    good = [w for w in there if by[f"{name}, {w:g}"]["error_new"] <= bar]
    return (
        min(good, key=lambda w: by[f"{name}, {w:g}"]["nfr"])
        if good
        else min(there, key=lambda w: by[f"{name}, {w:g}"]["error_new"])
    )


def method_rows(
    shelf: Shelf, scenario: Scenario, seeds: Sequence[int], weights: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """A row for every method of a scenario."""
    found: dict[str, list[Answered]] = {}
    for seed in seeds:
        for method, pair in _updates(shelf, scenario, seed, weights):
            found.setdefault(method, []).append(pair)
    yield from rows_of("methods", shelf, scenario.name, found, weights)


@dataclass(frozen=True)
class Training:
    """One of the study's trainings, by itself: of a tagger, or of an update by a method.

    Attributes:
        seed: the tagger's, or the update's number.
        setup: of a tagger.
        scenario: of an update.
        weights: of the methods' terms.
    """

    shelf: Shelf
    seed: int
    setup: Setup = PLAIN
    scenario: Scenario | None = None
    method: str = ""
    weights: tuple[tuple[str, float], ...] = ()

    def __call__(self) -> None:
        if self.scenario is None:
            self.shelf.tagger(self.setup, self.seed)
        else:
            _update(self.shelf, self.scenario, self.seed, self.method, dict(self.weights))


def training_rounds(
    shelf: Shelf, scenario: Scenario, seeds: Sequence[int], weights: Mapping[str, float]
) -> tuple[list[Training], list[Training]]:
    """What `method_rows` trains, so that it can be done beforehand; the second round needs the
    first."""
    odd = {s for seed in seeds for count in (1, *_ENSEMBLES) for s in _odd(seed, count)}
    taggers = [
        Training(shelf, s, setup)
        for new in sorted(odd)
        for setup, s in ((scenario.old, new - 1), (scenario.new, new))
    ]
    updates = [
        Training(shelf, seed, scenario=scenario, method=method, weights=tuple(weights.items()))
        for seed in seeds
        for method in _updated(scenario)
    ]
    return taggers, updates


def _updated(scenario: Scenario) -> list[str]:
    """The methods that train."""
    own = [n + FROM_OLD for n in (NONE, "FD-LM", "FD-KL", "ELODI")]
    return [*METHODS, *(own if scenario == SCENARIOS[0] else ())]


def _update(
    shelf: Shelf, scenario: Scenario, seed: int, method: str, weights: Mapping[str, float]
) -> TaggerCheckpoint:
    """The tagger that a method makes of the old one."""
    old = shelf.tagger(scenario.old, 2 * seed)
    name = method.removesuffix(FROM_OLD)
    plain = METHODS.get(name, UNTREATED)
    update = replace(plain, weight=weights.get(name, plain.weight))
    members = _members(shelf, scenario, seed, update)
    start = old if method.endswith(FROM_OLD) else None
    return trained(shelf, scenario, seed, method, update, old, members, start)


def _updates(
    shelf: Shelf, scenario: Scenario, seed: int, weights: Mapping[str, float]
) -> Iterator[tuple[str, Answered]]:
    """What the old and the new tagger say, by method."""
    before, after = scenario.old, scenario.new
    old, untreated = shelf.tagger(before, 2 * seed), shelf.tagger(after, 2 * seed + 1)
    said = shelf.says(old)
    yield NONE, (said, shelf.says(untreated))
    for method in _updated(scenario):
        yield method, (said, shelf.says(_update(shelf, scenario, seed, method, weights)))
    for count in _ENSEMBLES:
        sides = (before, [s - 1 for s in _odd(seed, count)]), (after, _odd(seed, count))
        both = (shelf.says(shelf.ensemble(setup, some)) for setup, some in sides)
        yield f"ensemble of {count}", tuple(both)  # type: ignore[misc]
    if (before.sees, old.classes) == (after.sees, untreated.classes):
        mixed = interpolate(old, untreated, 0.5, shelf.part(after))
        yield "weights averaged", (said, shelf.says(mixed))
    yield from _chosen(shelf, old, untreated)


def choosing_rows(
    shelf: Shelf, scenario: Scenario, seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Of `method_rows` those of no treatment and of choosing, which need no other training."""
    found: dict[str, list[Answered]] = {}
    for seed in seeds:
        old, new = shelf.tagger(scenario.old, 2 * seed), shelf.tagger(scenario.new, 2 * seed + 1)
        found.setdefault(NONE, []).append((shelf.says(old), shelf.says(new)))
        for method, pair in _chosen(shelf, old, new):
            found.setdefault(method, []).append(pair)
    yield from rows_of("methods", shelf, scenario.name, found, {})


def _chosen(
    shelf: Shelf, old: TaggerCheckpoint, new: TaggerCheckpoint
) -> Iterator[tuple[str, Answered]]:
    """The old answers and those that are chosen, at two costs of a negative flip."""
    said = shelf.says(old)
    validation = shelf.says_of_validation(old), shelf.says_of_validation(new)
    for ratio, name in ((1, "chosen"), (DEAR, f"chosen, cost ratio {DEAR}")):
        update = choose(said, shelf.says(new), validation, cost_ratio=ratio)
        yield name, (said, update.predictions)


def _members(
    shelf: Shelf, scenario: Scenario, seed: int, update: UpdateConfig
) -> list[TaggerCheckpoint] | None:
    """Those that ELODI learns from."""
    if update.method != "elodi":
        return None
    return [shelf.tagger(scenario.new, s) for s in _odd(seed, MEMBERS)]


def _odd(seed: int, count: int) -> list[int]:
    """Seeds of an ensemble of new taggers: another set for every seed, as far as there are."""
    return [2 * ((seed + i) % _LARGE_ENSEMBLE) + 1 for i in range(count)]


def trained(
    shelf: Shelf,
    scenario: Scenario,
    seed: int,
    name: str,
    update: UpdateConfig,
    old: TaggerCheckpoint,
    members: Sequence[TaggerCheckpoint] | None = None,
    start: TaggerCheckpoint | None = None,
) -> TaggerCheckpoint:
    """An update of a scenario, kept under its name."""
    folder = f"{scenario.name}-{name}-{update.weight:g}-{seed}".replace(", ", "-").replace(" ", "-")
    return shelf.updated(scenario.new, 2 * seed + 1, update, old, folder, members, start)


def rows_of(
    part: str,
    shelf: Shelf,
    scenario: str,
    found: dict[str, list[Answered]],
    weights: Mapping[str, float],
) -> Iterator[dict[str, Any]]:
    """A row for every method, of its pairs of old and new answers; one pair is of one seed."""
    labels = found[NONE][0][1].labels
    assert labels is not None
    intervals = metrics.ClusterRobust(np.unique(labels, return_inverse=True)[1].astype(np.int64))
    base = _wrong(found[NONE], 1)
    untreated = _turned(found[NONE])

    for method, pairs in found.items():
        old, new, turned = _wrong(pairs, 0), _wrong(pairs, 1), _turned(pairs)
        reports = [compare(*p) for p in pairs]
        relative = [r.relative_negative_rate.value for r in reports if r.relative_negative_rate]
        yield {
            "part": part,
            "data": shelf.name,
            "scenario": scenario,
            "method": method,
            "error_old": float(old.mean()),
            "error_new": float(new.mean()),
            "error_difference": float(new.mean() - base.mean()),
            "error_difference_ci": difference_ends(intervals, new.mean(0) - base.mean(0)),
            "nfr": float(turned.mean()),
            "nfr_ci": share_ends(intervals, turned.mean(0)),
            "nfr_difference_ci": difference_ends(intervals, turned.mean(0) - untreated.mean(0)),
            "nfr_spread": float(np.std(turned.mean(1))),
            "relative_nfr": float(np.mean(relative)) if relative else None,
            "cut": float(1 - turned.mean() / untreated.mean()) if untreated.any() else None,
            "weight": weights.get(method.removesuffix(FROM_OLD)),
            "seeds": len(pairs),
        }


def _wrong(pairs: list[Answered], side: int) -> NDArray[np.float64]:
    """(seeds, N): 1 where the old (0) or new (1) tagger is wrong."""
    return np.array([p[side].predicted != p[side].labels for p in pairs], np.float64)


def _turned(pairs: list[Answered]) -> NDArray[np.float64]:
    """(seeds, N): 1 where only the old tagger is right."""
    return (1 - _wrong(pairs, 0)) * _wrong(pairs, 1)
