"""(alpha, beta) of focal distillation: by AdamW, and by SGD, as it was published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec

from benchmarks.study._regressions import (
    COLUMNS,
    METHODS,
    NONE,
    Answered,
    best_weight,
    rows_of,
    trained,
)
from benchmarks.study._taggers import PLAIN, SCENARIOS, SGD_RATES, Scenario, Shelf, by_sgd
from samespace_cloud.tagging import DivergedError, TaggerCheckpoint, UpdateConfig

_P = ParamSpec("_P")

SWEEP = (
    (0.0, 1.0),
    (1.0, 0.0),
    (1.0, 1.0),
    (1.0, 2.0),
    (1.0, 10.0),
    (1.0, 20.0),
    (1.0, 100.0),
    (1.0, 1000.0),
)
"""(alpha, beta) of FD-LM beside the default's (1, 5): those of the paper, and larger ones."""

SGD_WEIGHTS = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Of FD-LM by SGD."""


def rate_rows(shelf: Shelf) -> Iterator[dict[str, Any]]:
    """A row for every learning rate of SGD, by validation pictures, beside AdamW's."""
    scenario = SCENARIOS[0]
    said, other = (shelf.says_of_validation(shelf.tagger(PLAIN, seed)) for seed in (0, 1))
    found: dict[str, list[Answered] | None] = {NONE: [(said, other)]}
    for rate in SGD_RATES:
        tagger = _unless_diverged(shelf.tagger, by_sgd(rate).new, 1)
        found[f"SGD, {rate:g}"] = tagger and [(said, shelf.says_of_validation(tagger))]
    yield from _rows_or_diverged("rates", shelf, scenario.name, found)


def chosen_rate(rows: Sequence[dict[str, Any]]) -> float:
    """The one of the smallest error among the rows of `rate_rows`."""
    errors = {row["method"]: row["error_new"] for row in rows}
    good = [rate for rate in SGD_RATES if errors[f"SGD, {rate:g}"] is not None]
    return min(good, key=lambda rate: errors[f"SGD, {rate:g}"])


def sgd_weight_rows(shelf: Shelf, scenario: Scenario) -> Iterator[dict[str, Any]]:
    """A row for every weight of FD-LM by SGD, by validation pictures: AdamW's are too large, since
    the steps of SGD grow with the loss."""
    old, new = shelf.tagger(scenario.old, 0), shelf.tagger(scenario.new, 1)
    said = shelf.says_of_validation(old)
    found: dict[str, list[Answered] | None] = {NONE: [(said, shelf.says_of_validation(new))]}
    for weight in SGD_WEIGHTS:
        update = UpdateConfig("focal-logit", weight=weight)
        tagger = _unless_diverged(trained, shelf, scenario, 0, "FD-LM", update, old)
        found[f"FD-LM, {weight:g}"] = tagger and [(said, shelf.says_of_validation(tagger))]
    yield from _rows_or_diverged("rates", shelf, scenario.name, found)


def chosen_sgd_weight(rows: Sequence[dict[str, Any]]) -> float:
    """The weight that the rows of `sgd_weight_rows` choose, as `weight_rows` does."""
    return best_weight(rows, "FD-LM", SGD_WEIGHTS)


def sweep_rows(
    shelf: Shelf,
    seeds: Sequence[int],
    scenario: Scenario = SCENARIOS[0],
    weight: float = METHODS["FD-LM"].weight,
) -> Iterator[dict[str, Any]]:
    """A row for every alpha and beta, on a scenario; without numbers where a seed diverges."""
    found: dict[str, list[Answered] | None] = {}

    def add(name: str, pair: Answered | None) -> None:
        pairs = found.setdefault(name, [])
        found[name] = None if pairs is None or pair is None else [*pairs, pair]

    for seed in seeds:
        old = shelf.tagger(scenario.old, 2 * seed)
        said = shelf.says(old)
        add(NONE, (said, shelf.says(shelf.tagger(scenario.new, 2 * seed + 1))))
        for alpha, beta in sorted((*SWEEP, (1.0, 5.0))):
            update = UpdateConfig("focal-logit", alpha=alpha, beta=beta, weight=weight)
            name = "FD-LM" if (alpha, beta) == (1, 5) else f"FD-LM-{alpha:g}-{beta:g}"
            new = _unless_diverged(trained, shelf, scenario, seed, name, update, old)
            add(f"({alpha:g}, {beta:g})", new and (said, shelf.says(new)))
    yield from _rows_or_diverged("sweep", shelf, scenario.name, found)


def _unless_diverged(
    train: Callable[_P, TaggerCheckpoint], *args: _P.args, **kwargs: _P.kwargs
) -> TaggerCheckpoint | None:
    try:
        return train(*args, **kwargs)
    except DivergedError:
        return None


def _rows_or_diverged(
    part: str, shelf: Shelf, scenario: str, found: Mapping[str, list[Answered] | None]
) -> Iterator[dict[str, Any]]:
    """In the order of `found`; without numbers where it has none."""
    whole = {name: pairs for name, pairs in found.items() if pairs}
    rows = {row["method"]: row for row in rows_of(part, shelf, scenario, whole, {})}
    for name in found:
        yield rows.get(name) or _diverged(part, shelf, scenario, name)


def _diverged(part: str, shelf: Shelf, scenario: str, method: str) -> dict[str, Any]:
    told = {"part": part, "data": shelf.name, "scenario": scenario, "method": method}
    return dict.fromkeys(COLUMNS) | told
