"""Other pictures for a tuning: more, fewer, or without some. The optimum knows no order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from samespace import Dataset
from samespace_cloud.linear import LeastSquares, LinearConfig, labelled_problem
from samespace_cloud.linear._dual import LIMIT, fits
from samespace_cloud.linear._linearized import flatten
from samespace_cloud.material import Progress
from samespace_cloud.tuning.checkpoint import TunedCheckpoint, need_free, need_labels
from samespace_cloud.tuning.config import TuneConfig
from samespace_cloud.tuning.pictures import Picture, items_of, recorded
from samespace_cloud.tuning.training import data_for, measured, read, silent, solve
from samespace_edge import ConfigError

Solver = Literal["auto", "cg", "exact"]

_QUICKLY = LIMIT // 4
"""Numbers that a Jacobian or kernel may have where nobody asked for the exact solver."""


@dataclass(frozen=True, eq=False)
class Forgotten:
    """A tuning without some of its pictures.

    Attributes:
        checkpoint: it knows nothing of them but what `in_start` says.
        pictures: how many are forgotten.
        moved: |w_before - w_after| / |w_before - w0|.
        distance: |w_after - w*| is at most this, w* being the tuning that never saw them.
        in_start: how many of them w0 was made of: its head and its statistics still know them. 0
            for a tuning from a base of other pictures.
        retrained: |w_after - w| / |w_before - w|, w being tuned without them from w0; None where
            that was not asked for.
        empty: classes that no picture is left of.
    """

    checkpoint: TunedCheckpoint
    pictures: int
    moved: float
    distance: float
    in_start: int
    retrained: float | None
    empty: tuple[str, ...]


def forget_pictures(
    checkpoint: TunedCheckpoint,
    dataset: Dataset,
    pictures: Collection[Picture],
    folder: str | Path,
    *,
    solver: Solver = "auto",
    tolerance: float = 1e-6,
    iterations: int = 1000,
    retrain: bool = False,
    progress: Progress = silent,
) -> Forgotten:
    """The tuning that never saw some of its pictures, with the penalty that it has.

    Args:
        checkpoint: stays as it is.
        dataset: has to have the pictures that stay, and need not have the others.
        pictures: those to forget, from `TunedCheckpoint.chosen`.
        folder: for the new checkpoint.
        solver: `exact`, to rounding; `cg`, from the tangent that there is; `auto` takes the exact
            one where it is quick.
        tolerance, iterations: where `cg` stops.
        retrain: also tune without them from w0, to compare: by the other solver, if it can.
        progress: is told the stage and how much of how much is done.

    Raises `ConfigError` where nothing is left, or for a tuning that is no least-squares problem,
    and `DataError` where the dataset lacks a picture that stays, or has another in its place.
    """
    need_free(Path(folder))
    gone = {p.id for p in pictures}
    kept = [i for i, p in enumerate(checkpoint.pictures) if p.id not in gone]
    if not kept:
        raise ConfigError(
            f"all {len(checkpoint.pictures)} pictures of {checkpoint.fingerprint.short}… would be "
            "forgotten, and the answer is its base: delete the tuning"
        )
    before = flatten(checkpoint.model.tangents()).detach().clone()
    after, problem = problem_of(checkpoint, dataset, kept, progress)
    config = replace(_config(checkpoint), tolerance=tolerance, iterations=iterations)
    chosen = _with(config, solver, after, problem)
    solve(after, problem, chosen, before, progress)
    now = flatten(after.model.tangents()).detach().clone()
    retrained = None
    if retrain:
        again = _copy(after, after.pictures)
        other_way: Solver = "cg" if chosen.solver == "exact" else "auto"
        solve(again, problem, _with(config, other_way, again, problem), None, progress)
        other = flatten(again.model.tangents()).detach()
        retrained = float((now - other).norm() / (before - other).norm())
    left = {p.label for p in after.pictures}
    after.card = {
        **after.card,
        "forgot": f"{len(gone)} pictures",
        "tuned on": f"{len(kept)} pictures",
    }
    after.save(folder)
    return Forgotten(
        after,
        len(gone),
        float((before - now).norm() / before.norm()),
        after.metrics["distance"],
        sum(p.sha256 in after.start_pictures for p in checkpoint.pictures if p.id in gone),
        retrained,
        tuple(c for c in after.classes if c not in left),
    )


def update_tuned(
    checkpoint: TunedCheckpoint,
    dataset: Dataset,
    folder: str | Path,
    *,
    solver: Solver = "auto",
    tolerance: float = 1e-6,
    iterations: int = 1000,
    partial: bool = False,
    progress: Progress = silent,
) -> TunedCheckpoint:
    """Tune again on the train part of a dataset, which has more pictures, fewer, or others.

    w0 and penalty stay, so what comes out depends on the pictures alone: updates in any order end
    at the same model.

    Args:
        partial: whether a class may have no picture.
        checkpoint, dataset, folder, solver, tolerance, iterations, progress: as for
            `forget_pictures`.

    Raises `ConfigError` for classes that the tuning does not have, and as `tune_tagger` does.
    """
    need_free(Path(folder))
    penalty = checkpoint.penalty
    need_labels(checkpoint)
    config = replace(_config(checkpoint), tolerance=tolerance, iterations=iterations)
    settings = TuneConfig.from_json(checkpoint.settings["tune"])
    data = data_for(checkpoint, dataset, replace(settings, partial=partial))
    inputs = read(dataset, data.train, checkpoint.sees, progress)
    problem = labelled_problem(
        inputs, data.codes(data.train), len(data.classes), replace(config, penalty=penalty), partial
    )
    after = _copy(checkpoint, recorded(dataset, data.train))
    before = flatten(checkpoint.model.tangents()).detach()
    solve(after, problem, _with(config, solver, after, problem), before, progress)
    after.metrics = {**measured(after, dataset, data), **after.metrics}
    after.card = {**after.card, "tuned on": f"{len(data.train)} pictures"}
    after.save(folder)
    return after


def problem_of(
    checkpoint: TunedCheckpoint, dataset: Dataset, kept: Sequence[int], progress: Progress
) -> tuple[TunedCheckpoint, LeastSquares]:
    """What a tuning was fitted to, as far as its pictures at the places `kept` go; and a copy of it
    that has these pictures alone.

    Raises `ConfigError` for a base, a merged tuning, and one that was not fitted by least squares,
    and `DataError` where the dataset lacks a picture, or has another in its place.
    """
    config, penalty = _config(checkpoint), checkpoint.penalty
    copied = _copy(checkpoint, [checkpoint.pictures[i] for i in kept])
    items = items_of(dataset, copied.pictures, f"{checkpoint.fingerprint.short}…")
    inputs = read(dataset, items, checkpoint.sees, progress)
    if checkpoint.targets is not None:
        copied.targets = checkpoint.targets[list(kept)]
        weights = torch.full_like(copied.targets, 1 / copied.targets.shape[1])
        return copied, LeastSquares(inputs, copied.targets, weights, penalty)
    place = {name: i for i, name in enumerate(checkpoint.classes)}
    labels = torch.tensor([place[p.label] for p in copied.pictures], dtype=torch.int64)
    fixed = replace(config, penalty=penalty)
    return copied, labelled_problem(inputs, labels, len(place), fixed, partial=True)


def _config(checkpoint: TunedCheckpoint) -> LinearConfig:
    config = TuneConfig.from_json(checkpoint.settings["tune"]).linear
    if config.loss != "square":
        raise ConfigError(
            f"{checkpoint.fingerprint.short}… was tuned by {config.loss}, which has no closed "
            "form: tune with --loss square"
        )
    return config


def _with(
    config: LinearConfig, solver: Solver, checkpoint: TunedCheckpoint, problem: LeastSquares
) -> LinearConfig:
    if solver == "auto":
        solver = "exact" if fits(checkpoint.model, problem, _QUICKLY) else "cg"
    return replace(config, solver=solver)


def _copy(checkpoint: TunedCheckpoint, pictures: Sequence[Picture]) -> TunedCheckpoint:
    return replace(checkpoint, model=deepcopy(checkpoint.model), pictures=tuple(pictures), log=())
