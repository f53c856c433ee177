"""Trainings of the study of fine-tuning, several at a time: a GPU has room for more than one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.study._finetuning import ABLATION_ROWS, METHODS, ablation_methods
from benchmarks.study._finetuning_methods import Method
from benchmarks.study._finetuning_runs import REGIMES, Bench
from benchmarks.study._pool import run_jobs


@dataclass(frozen=True)
class Wanted:
    """Rows of the study: a table's part, on one data set from one start.

    Attributes:
        part: `main` or `ablation`.
        bench: of which pictures.
        shots: of each class; 0 for all.
    """

    part: Literal["main", "ablation"]
    bench: Bench
    shots: int


@dataclass(frozen=True)
class _Job:
    """What one process does: make views, choose settings, or train once.

    Attributes:
        method: the name of a method; none for views.
        ablation: whether it is one of the ablation's.
        seed: of the training; None where settings are chosen.
        tried: a setting to try by itself, before they are chosen.
    """

    bench: Bench
    shots: int
    draw: int = 0
    method: str = ""
    ablation: bool = False
    seed: int | None = None
    tried: Method | None = None

    def __call__(self) -> None:
        if self.tried is not None:
            self.bench.try_one(self.tried, self.shots)
        elif not self.method:
            _ = self.bench.start  # trains a cloud model of ours
            self.bench.material.drawn(self.shots, self.draw).views()
            if not self.shots:
                for split in ("val", "test"):
                    self.bench.material.inputs(split)
        elif self.seed is None:
            self.bench.chosen(self.method, self.shots)
        elif self.ablation:
            method = ablation_methods(self.bench, self.shots)[self.method]
            self.bench.answers(method, self.shots, self.draw, self.seed)
        else:
            method = self.bench.chosen(self.method, self.shots)
            self.bench.answers(method, self.shots, self.draw, self.seed)


def prepare(wanted: Sequence[Wanted], seeds: Sequence[int], processes: int, until: float) -> None:
    """Train what the rows need, `processes` at a time, what is wanted first being done first.

    What fails is said and left out; what is not done by `until`, of `time.monotonic`, is stopped.
    """
    began = time.monotonic()
    for name, plan in (
        ("views", _views),
        ("first settings", _first_settings),
        ("settings", _settings),
        ("trainings", _trainings),
    ):
        there = [w for w in wanted if plan is _views or w.bench.started]
        jobs = list(dict.fromkeys(plan(there, seeds)))
        print(f"{name}: {len(jobs)} jobs, after {time.monotonic() - began:.0f} s", flush=True)
        run_jobs(jobs, processes, until, threads=4 if plan is _views else 1)
    print(f"trained in {time.monotonic() - began:.0f} s", flush=True)


def _views(wanted: Sequence[Wanted], seeds: Sequence[int]) -> Iterator[_Job]:
    ours = [w.bench for w in wanted if w.bench.ours]
    yield from (_Job(bench, 1) for bench in ours[:1])  # all of them start from the same
    for w in wanted:
        if not w.bench.ours:
            yield from (_Job(w.bench, w.shots, draw) for draw in (seeds if w.shots else [0]))


def _first_settings(wanted: Sequence[Wanted], seeds: Sequence[int]) -> Iterator[_Job]:
    for w in wanted:
        for name in METHODS:
            shots = REGIMES[w.shots]
            for method in w.bench.first_tries(name, shots):
                yield _Job(w.bench, shots, method=name, tried=method)


def _settings(wanted: Sequence[Wanted], seeds: Sequence[int]) -> Iterator[_Job]:
    for w in wanted:
        for method in METHODS:
            yield _Job(w.bench, REGIMES[w.shots], method=method)


def _trainings(wanted: Sequence[Wanted], seeds: Sequence[int]) -> Iterator[_Job]:
    for w in wanted:
        ablation = w.part == "ablation"
        names = ABLATION_ROWS if ablation else METHODS
        for name in names:
            for seed in seeds:
                yield _Job(w.bench, w.shots, seed if w.shots else 0, name, ablation, seed)
                yield _Job(w.bench, w.shots, 0, name, ablation, seed)
