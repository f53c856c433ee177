"""Do 95 % intervals cover the truth in 95 % of the cases, however few labels there are?

    python -m benchmarks.intervals [--runs 20000]

Draws test sets from populations whose accuracy is known. Every label has a chance to be right, so
its queries stand or fall together. Two equally good models share that chance for half of the
labels.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks._result import write
from samespace.metrics import ClusterRobust

LABELS = (8, 10, 12, 16, 20, 30, 50, 100, 200)
COLUMNS = {
    "labels": "in the test set",
    "accuracy": "of the population",
    "correlation": "of two queries of one label (intraclass)",
    "queries": "mean number of queries of a label; one and a Poisson number",
    "cover": "share of the runs whose interval of the accuracy holds the truth",
    "false_passes": "share of the runs in which one of two equally good models seems better: the "
    "interval of the paired difference lies above 0",
    "cover_bootstrap": "as `cover`, by the percentiles of a bootstrap over queries or labels, the "
    "wider: what earlier versions had; null from 30 labels on, where it was not run",
    "false_passes_bootstrap": "as `false_passes`, likewise",
}
_RESAMPLES = 500
_MOST_RESAMPLED = 20


class Population(NamedTuple):
    """What test sets are drawn from."""

    accuracy: float
    correlation: float
    queries: int


POPULATIONS = tuple(
    Population(accuracy, correlation, queries)
    for accuracy in (0.5, 0.8, 0.95)
    for correlation in (0.1, 0.4)
    for queries in (3, 10)
)

Draw = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def draw(labels: int, population: Population, rng: np.random.Generator) -> Draw:
    """Label of every query (Q,), and whether each of two equally good models is right (Q,).

    Every label has a chance to be right, drawn from a beta distribution (so that the number of
    right queries is beta-binomial). The second model has the first one's chance for half of the
    labels, and one of its own for the others.
    """
    codes = np.repeat(np.arange(labels), 1 + rng.poisson(population.queries - 1, labels))
    spread = 1 / population.correlation - 1
    shape = (population.accuracy * spread, (1 - population.accuracy) * spread)
    first, other = rng.beta(*shape, (2, labels))
    second = np.where(rng.random(labels) < 0.5, first, other)
    right = [
        (rng.random(len(codes)) < chance[codes]).astype(np.float64) for chance in (first, second)
    ]
    return codes, right[0], right[1]


def simulate(labels: int, population: Population, runs: int, seed: int) -> tuple[float, float]:
    """Return how often `ClusterRobust` covers the accuracy, and how often it sees a difference."""
    rng = np.random.default_rng([seed, labels])
    covered = passed = 0
    for _ in range(runs):
        codes, first, second = draw(labels, population, rng)
        intervals = ClusterRobust(codes)
        found = intervals.share(first)
        covered += found.low <= population.accuracy <= found.high
        passed += intervals.difference(second - first).low > 0
    return covered / runs, passed / runs


def simulate_bootstrap(
    labels: int, population: Population, runs: int, seed: int
) -> tuple[float, float]:
    """Return the same of percentiles of a bootstrap."""
    rng = np.random.default_rng([seed, labels])
    covered = passed = 0
    for _ in range(runs):
        codes, first, second = draw(labels, population, rng)
        ends = [_percentiles(codes, values, rng) for values in (first, second - first)]
        covered += ends[0][0] <= population.accuracy <= ends[0][1]
        passed += ends[1][0] > 0
    return covered / runs, passed / runs


def _percentiles(
    codes: NDArray[np.int64], values: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float]:
    """The wider of two intervals: by resampling queries, and by resampling labels."""
    queries, labels = len(codes), int(codes.max()) + 1
    by_query = rng.multinomial(queries, np.full(queries, 1 / queries), _RESAMPLES)
    by_label = rng.multinomial(labels, np.full(labels, 1 / labels), _RESAMPLES)
    sums, sizes = np.bincount(codes, values, labels), np.bincount(codes)
    means = (by_query @ values / queries, by_label @ sums / (by_label @ sizes))
    ends = [np.percentile(m, [2.5, 97.5]) for m in means]
    low, high = max(ends, key=lambda e: float(e[1] - e[0]))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--bootstrap-runs", type=int, default=1000)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for labels in LABELS:
        for population in POPULATIONS:
            cover, passes = simulate(labels, population, options.runs, seed=0)
            before: tuple[float | None, float | None] = (None, None)
            if labels <= _MOST_RESAMPLED:
                before = simulate_bootstrap(labels, population, options.bootstrap_runs, seed=1)
            row = {"labels": labels, **population._asdict(), "cover": cover, "false_passes": passes}
            rows.append({**row, "cover_bootstrap": before[0], "false_passes_bootstrap": before[1]})
            print(row, before, flush=True)
    write(
        "intervals",
        COLUMNS,
        rows,
        notes=[f"{options.runs:,} runs a row; the bootstrap {options.bootstrap_runs:,}."],
    )


if __name__ == "__main__":
    main()
