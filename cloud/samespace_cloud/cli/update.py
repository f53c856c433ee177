"""`samespace update`: taggers that replace others, with few new mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from samespace.cli._output import progress_bar
from samespace_cloud.cli._settings import said
from samespace_cloud.cli.tagger import (
    config_from,
    opened,
    prediction_options,
    print_tagger,
    started_from,
    tagger_options,
    write,
)

_SETTINGS = (
    click.option("--weight", type=float, help="Of the method's term.  [default: 1]"),
    click.option("--alpha", type=float, help="focal-*: weight of every picture.  [default: 1]"),
    click.option(
        "--beta", type=float, help="focal-*: more where the old one is right.  [default: 5]"
    ),
    click.option("--temperature", type=float, help="focal-kl.  [default: 100]"),
    click.option(
        "--margin",
        type=float,
        help="ldi, elodi: what a logit may differ by.  [default: 0.5; elodi: 0]",
    ),
    click.option("--power", type=float, help="ldi, elodi.  [default: 2]"),
    click.option("--top-k", type=int, help="ldi, elodi: how many classes count.  [default: 10]"),
    click.option("--skip-truth", is_flag=True, help="ldi, elodi: but never the picture's own."),
    click.option("--members", type=int, help="elodi, ensemble: how many taggers.  [default: 4]"),
)


@click.group()
def update() -> None:
    """Replace a tagger by one that makes few new mistakes."""


def _update_options(command: Any) -> Any:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@update.command("tagger")
@tagger_options
@click.option("--old", required=True, help="The old tagger's folder, or its logits of train: .npz.")
@click.option("--method", default="focal-logit", show_default=True, help="See below.")
@_update_options
def tagger(
    dataset: str,
    out: Path,
    predictions: Path | None,
    split: str,
    as_json: bool,
    old: str,
    method: str,
    weight: float | None,
    alpha: float | None,
    beta: float | None,
    temperature: float | None,
    margin: float | None,
    power: float | None,
    top_k: int | None,
    skip_truth: bool,
    members: int | None,
    **settings: Any,
) -> None:
    """Train a tagger on DATASET that is right where an old one is.

    Methods: none, naive, focal-kl, focal-logit, ldi, elodi, bct, ensemble. Network, pictures and
    classes may be others than the old one's; classes are matched by name.

    \b
    Example:
      samespace update tagger photos.csv --old runs/old --out runs/new --method focal-logit \\
        --backbone lite0-trunk --size 64 --pretrained --predictions new.csv
      samespace regressions old.csv new.csv --data photos
    With nothing of the old one but what it said of the train pictures:
      samespace update tagger photos.csv --old train-logits.npz --out runs/new --method focal-kl
    """
    from samespace_cloud.tagging import METHODS, UpdateConfig, update_tagger
    from samespace_cloud.tagging.methods import find_method

    given = said(
        {
            "weight": weight,
            "alpha": alpha,
            "beta": beta,
            "temperature": temperature,
            "margin": margin,
            "power": power,
            "top_k": top_k,
            "skip_truth": skip_truth or None,
            "members": members,
        }
    )
    if unread := sorted(set(given) - set(find_method(method).settings)):
        option = f"--{unread[0].replace('_', '-')}"
        readers = ", ".join(n for n, m in sorted(METHODS.items()) if unread[0] in m.settings)
        raise click.UsageError(f"{option} says nothing to {method}; it is for {readers}")
    if Path(old).resolve() == out.resolve():
        raise click.UsageError(f"--old and --out are both {out}: the old tagger would be gone")
    how = UpdateConfig(method=method, **given)
    data = opened(dataset, predictions and split)
    start = started_from(settings["start"])
    config = config_from(settings)
    with progress_bar() as progress:
        checkpoint = update_tagger(data, config, how, old, out, start=start, progress=progress)
        write(checkpoint, data, predictions, split, progress)
    print_tagger(checkpoint, out, predictions, as_json)


@update.command("interpolate")
@click.argument("old")
@click.argument("new")
@click.option("--share", type=float, default=0.5, show_default=True, help="Of the new one, 0 to 1.")
@click.option("--data", "dataset", help="Dataset to measure batch norms on, by its train part.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder.")
@prediction_options
def between(
    old: str,
    new: str,
    share: float,
    dataset: str | None,
    out: Path,
    predictions: Path | None,
    split: str,
    as_json: bool,
) -> None:
    """Mix the weights of the taggers OLD and NEW, of one network and the same classes.

    \b
    Example:
      samespace update interpolate runs/old runs/new --share 0.6 --data photos.csv \\
        --out runs/mixed --predictions mixed.csv
    """
    from samespace_cloud.tagging import TaggerCheckpoint, interpolate

    if predictions and dataset is None:
        raise click.UsageError("--predictions are of the dataset that --data names")
    data = None if dataset is None else opened(dataset, predictions and split)
    mixed = interpolate(TaggerCheckpoint.load(old), TaggerCheckpoint.load(new), share, data)
    mixed.save(out)
    if data is not None:
        with progress_bar() as progress:
            write(mixed, data, predictions, split, progress)
    print_tagger(mixed, out, predictions, as_json)
