"""Tuning on a manifest: `samespace tune base` and `samespace tune run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samespace import Dataset, Item
from samespace_cloud.card import _STARTED
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.linear import (
    LeastSquares,
    LinearConfig,
    Linearized,
    fit_tangent,
    labelled_problem,
    linear_start,
)
from samespace_cloud.material import Progress
from samespace_cloud.tagging import FromPictures, TaggerCheckpoint
from samespace_cloud.tagging.data import Labelled, held_out, part, read_labelled
from samespace_cloud.tagging.model import new_tagger
from samespace_cloud.tagging.training import right
from samespace_cloud.tuning.checkpoint import TunedCheckpoint, need_free, need_labels
from samespace_cloud.tuning.config import TuneConfig
from samespace_cloud.tuning.pictures import read_inputs, recorded
from samespace_edge import ConfigError


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


def tune_base(
    dataset: Dataset,
    config: TuneConfig,
    folder: str | Path,
    *,
    start: Checkpoint | TaggerCheckpoint | None = None,
    progress: Progress = silent,
) -> TunedCheckpoint:
    """Make w0 of a dataset's pictures, and tune nothing: what customers' tunings start from.

    The head of w0 is regressed on these pictures, and its batch norms are measured on them. They
    are never forgotten, so take pictures of your own.

    Args:
        dataset: its train part is seen.
        config: of the network, the head and the slope.
        folder: for the checkpoint.
        start: whose weights the network begins with; goes with `init='checkpoint'`.
        progress: is told the stage and how much of how much is done.

    Raises as `tune_tagger` does.
    """
    need_free(Path(folder))
    data = read_labelled(dataset, config.tagger)
    inputs = read(dataset, data.train, config.sees, progress)
    found = _started(dataset, data, config, start, inputs)
    found.metrics = measured(found, dataset, data)
    found.save(folder)
    return found


def tune_tagger(
    dataset: Dataset,
    config: TuneConfig,
    folder: str | Path,
    *,
    start: Checkpoint | TaggerCheckpoint | None = None,
    base: TunedCheckpoint | None = None,
    progress: Progress = silent,
) -> TunedCheckpoint:
    """Tune a classifier of a dataset's labels linearly (LQF, Achille et al. 2021).

    Args:
        dataset: its train part is learnt from, as it is: no views are made. Its val part, or
            `config.val_share` of train, validates.
        config: how.
        folder: for the checkpoint; a tuning that is there is replaced.
        start: whose weights the network begins with; goes with `init='checkpoint'`.
        base: whose w0 and classes are taken, in the place of a new w0 of these pictures: tunings
            of one base can be merged, and what they learnt can be forgotten as a whole.
        progress: is told the stage and how much of how much is done.

    Returns the checkpoint, which is also written to `folder`. Nothing is written where something
    fails. Raises `DataError` for a dataset that no tagger can learn, and `ConfigError` for classes
    that the base lacks or that have no picture, outputs that are not finite, an operation without a
    forward-mode derivative, and settings that cannot be solved.
    """
    need_free(Path(folder))
    if base is None:
        data = read_labelled(dataset, config.tagger)
    else:
        need_labels(base)
        if start is not None:
            raise ConfigError("a base and a checkpoint to start from name two starts; give one")
        if base.sees != config.sees:
            raise ConfigError(
                f"the base has the network {base.sees.architecture}, the settings say "
                f"{config.sees.architecture}; a tuning has the network of its base"
            )
        data = data_for(base, dataset, config)
    inputs = read(dataset, data.train, config.sees, progress)
    if base is None:
        checkpoint = _started(dataset, data, config, start, inputs)
    else:
        checkpoint = _from_base(base, config)
    problem = labelled_problem(
        inputs, data.codes(data.train), len(data.classes), config.linear, config.partial
    )
    checkpoint.pictures = recorded(dataset, data.train)
    solve(checkpoint, problem, config.linear, progress=progress)
    checkpoint.metrics = {**measured(checkpoint, dataset, data), **checkpoint.metrics}
    checkpoint.card = {**checkpoint.card, "tuned on": f"{len(data.train)} pictures"}
    checkpoint.save(folder)
    return checkpoint


def read(dataset: Dataset, items: Sequence[Item], sees: FromPictures, progress: Progress) -> Tensor:
    """Normalised pictures float32 (N, 3, S, S)."""
    return read_inputs(
        dataset, items, sees, lambda done, total: progress("read the pictures", done, total)
    )


def solve(
    checkpoint: TunedCheckpoint,
    problem: LeastSquares,
    config: LinearConfig,
    start: Tensor | None = None,
    progress: Progress = silent,
) -> None:
    """Let the checkpoint's tangent solve `problem`, and note how; see `fit_tangent`."""
    total = config.iterations if config.solver == "cg" else config.epochs
    done = 0

    def note(entry: Mapping[str, Any]) -> None:
        nonlocal done
        done += 1
        progress("tune", done, total)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = None if start is None else start.to(device)
    model = checkpoint.model.to(device)
    log, solved = fit_tangent(model, problem.to(device), config, start, note)
    model.cpu()
    checkpoint.log = log
    checkpoint.settings = {**checkpoint.settings, "penalty": problem.penalty}
    checkpoint.metrics = {
        "norm": checkpoint.vector.norm,
        "residual": solved.residual,
        "distance": solved.distance,
    }


def data_for(base: TunedCheckpoint, dataset: Dataset, config: TuneConfig) -> Labelled:
    """Train and validation pictures, in the classes of `base`.

    Raises `ConfigError` where there are others, and where one of the base's has no train picture
    unless `config.partial` allows it.
    """
    train, val = part(dataset, "train"), dataset.val
    if not val:
        train, val = held_out(train, config.val_share, config.split_seed)
    need_classes(base, dataset, [*train, *val])
    empty = sorted(set(base.classes) - {i.label for i in train})
    if empty and not config.partial:
        raise ConfigError(
            f"{dataset.source} has no train picture of {len(empty)} of the base's "
            f"{len(base.classes)} classes, such as {empty[0]!r}; add some, or allow it (partial, "
            "--allow-empty): their outputs are drawn to 0 then"
        )
    return Labelled.of(dataset, train, val, base.classes)


def need_classes(checkpoint: TunedCheckpoint, dataset: Dataset, items: Sequence[Item]) -> None:
    """Raises `ConfigError` where items have labels that the checkpoint does not have."""
    if lone := sorted({i.label for i in items} - set(checkpoint.classes)):
        raise ConfigError(
            f"{dataset.source} has {len(lone)} class(es) that {checkpoint.fingerprint.short}… does "
            f"not have, such as {lone[0]!r}; it has {', '.join(checkpoint.classes[:10])}. Leave "
            "their pictures out, or make a base that has them"
        )


def measured(checkpoint: TunedCheckpoint, dataset: Dataset, data: Labelled) -> dict[str, float]:
    """`accuracy` on the validation pictures; nothing where there are none."""
    if not data.val:
        return {}
    logits = checkpoint.predict(dataset, data.val)
    return {"accuracy": float(right(logits, data.codes(data.val)).double().mean())}


def _started(
    dataset: Dataset,
    data: Labelled,
    config: TuneConfig,
    start: Checkpoint | TaggerCheckpoint | None,
    inputs: Tensor,
) -> TunedCheckpoint:
    """A base: a w0 of these pictures."""
    backbone = new_tagger(config.tagger, data.classes, start).backbone
    labels = data.codes(data.train)
    w0 = linear_start(backbone, inputs, labels, len(data.classes), config.linear)
    return TunedCheckpoint(
        Linearized(w0, config.only or None),
        config.sees,
        data.classes,
        start_pictures=frozenset(p.sha256 for p in recorded(dataset, data.train)),
        settings={"tune": config.to_json(), "slope": config.linear.slope},
        card={
            "started": f"from the weights of {start.fingerprint.short}…"
            if start
            else _STARTED[config.init],
            "w0 made of": f"{len(data.train)} pictures of {len(data.classes)} classes",
        },
    )


def _from_base(base: TunedCheckpoint, config: TuneConfig) -> TunedCheckpoint:
    """The w0 of `base`, with tangent 0."""
    return TunedCheckpoint(
        Linearized(base.start(), config.only or None),
        base.sees,
        base.classes,
        start_pictures=base.start_pictures,
        settings={**base.settings, "tune": config.to_json()},
        card={**base.card, "base": base.fingerprint.hex},
    )
