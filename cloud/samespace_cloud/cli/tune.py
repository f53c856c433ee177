"""`samespace tune`: linear fine-tuning, and what linearity buys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from samespace.cli._output import json_option, progress_bar
from samespace_cloud.cli._settings import teacher_from
from samespace_cloud.cli._tune import (
    linear_config,
    out_option,
    print_tuned,
    resolving_options,
    run_options,
    solving_options,
    start_options,
    tune_config,
)
from samespace_cloud.cli._tune_figures import confidence, influence, predict
from samespace_cloud.cli.tagger import opened, prediction_options, started_from, write

if TYPE_CHECKING:
    from samespace_cloud.tuning import TunedCheckpoint


@click.group()
def tune() -> None:
    """Fine-tune linearly: one optimum, pictures that can be forgotten, tunings that add up."""


tune.add_command(confidence)
tune.add_command(influence)
tune.add_command(predict)


@tune.command("base")
@start_options
@prediction_options
def base_command(
    dataset: str,
    out: Path,
    predictions: Path | None,
    split: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make the network that tunings start from, of the train pictures of DATASET.

    They are never forgotten, so take pictures of your own. Tunings of one base can be merged.

    \b
    Example:
      samespace tune base ours.csv --out runs/base --backbone lite0-trunk --size 96
    """
    from samespace_cloud.tuning import tune_base

    config = tune_config(settings)
    start = started_from(settings["start"])
    data = opened(dataset, predictions and split)
    with progress_bar() as progress:
        made = tune_base(data, config, out, start=start, progress=progress)
        write(made, data, predictions, split, progress)
    print_tuned(made, out, as_json, predictions)


@tune.command("run")
@run_options
@click.option("--base", help="Start from this base, or from that of this tuning.")
@click.option("--allow-empty", is_flag=True, help="A class of the base may have no picture.")
@prediction_options
def run_command(
    dataset: str,
    out: Path,
    base: str | None,
    allow_empty: bool,
    predictions: Path | None,
    split: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Tune a classifier of the labels of DATASET, a manifest with path,label,split.

    \b
    Example:
      samespace tune run photos.csv --out runs/tuned --backbone lite0-trunk --size 96
      samespace tune run acme.csv --out runs/acme --base runs/base --predictions acme-test.csv
    """
    from samespace_cloud.tuning import TunedCheckpoint, tune_tagger

    found = None if base is None else TunedCheckpoint.load(base)
    config = tune_config({**settings, "partial": allow_empty or None}, found)
    start = started_from(settings["start"])
    data = opened(dataset, predictions and split)
    with progress_bar() as progress:
        made = tune_tagger(data, config, out, start=start, base=found, progress=progress)
        write(made, data, predictions, split, progress)
    print_tuned(made, out, as_json, predictions)


@tune.command("embedding")
@click.argument("dataset")
@click.argument("edge")
@click.option("--cloud", help="The cloud model: a checkpoint's folder, or a bundle.")
@click.option("--cloud-vectors", help="Its vectors of the pictures instead: .npz or .npy.")
@click.option("--canvas", default=160, show_default=True, help="Side at which it sees pictures.")
@out_option
@solving_options
def embedding_command(
    dataset: str,
    edge: str,
    cloud: str | None,
    cloud_vectors: str | None,
    canvas: int,
    out: Path,
    as_json: bool,
    only: tuple[str, ...],
    **settings: Any,
) -> None:
    """Tune the edge model EDGE towards its cloud model, on the train pictures of DATASET.

    \b
    Example:
      samespace tune embedding acme.csv runs/edge --cloud cloud.bundle --out runs/acme
      samespace export runs/acme acme.bundle
    """
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.tuning import tune_embedding

    config = linear_config(settings)
    model = Checkpoint.load(edge)
    data = opened(dataset, None)
    teacher = teacher_from(cloud, cloud_vectors, data)
    with progress_bar() as progress:
        made = tune_embedding(
            data, model, teacher, config, out, only=only, canvas=canvas, progress=progress
        )
    print_tuned(made, out, as_json)


@tune.command("update")
@click.argument("tuning")
@click.argument("dataset")
@out_option
@resolving_options
@click.option("--allow-empty", is_flag=True, help="A class may have no picture.")
@prediction_options
def update_command(
    tuning: str,
    dataset: str,
    out: Path,
    solver: Literal["auto", "cg", "exact"],
    tolerance: float,
    iterations: int,
    allow_empty: bool,
    predictions: Path | None,
    split: str,
    as_json: bool,
) -> None:
    """Tune TUNING again on DATASET, which lists more train pictures, fewer, or others.

    The result depends on the pictures alone, not on what was tuned before, or in which order.

    \b
    Example:
      samespace tune update runs/tuned more.csv --out runs/newer
    """
    from samespace_cloud.tuning import TunedCheckpoint, update_tuned

    before = TunedCheckpoint.load(tuning)
    data = opened(dataset, predictions and split)
    with progress_bar() as progress:
        made = update_tuned(
            before,
            data,
            out,
            solver=solver,
            tolerance=tolerance,
            iterations=iterations,
            partial=allow_empty,
            progress=progress,
        )
        write(made, data, predictions, split, progress)
    print_tuned(made, out, as_json, predictions)


@tune.command("forget")
@click.argument("tuning")
@click.argument("dataset")
@click.option(
    "--where", multiple=True, help="COLUMN=VALUE of the manifest; several: those that meet all."
)
@click.option(
    "--ids", type=click.Path(path_type=Path), help="A text file with a path on each line."
)
@out_option
@resolving_options
@click.option("--retrain", is_flag=True, help="Also tune without them from the start, to compare.")
@prediction_options
def forget_command(
    tuning: str,
    dataset: str,
    where: tuple[str, ...],
    ids: Path | None,
    out: Path,
    solver: Literal["auto", "cg", "exact"],
    tolerance: float,
    iterations: int,
    retrain: bool,
    predictions: Path | None,
    split: str,
    as_json: bool,
) -> None:
    """Forget pictures that TUNING was tuned on; DATASET has to list those that stay.

    \b
    Example:
      samespace tune forget runs/all photos.csv --where customer=acme --out runs/without-acme
    """
    from samespace_cloud.tuning import TunedCheckpoint, forget_pictures

    before = TunedCheckpoint.load(tuning)
    chosen = before.chosen(_columns(where), _lines(ids))
    data = opened(dataset, predictions and split)
    with progress_bar() as progress:
        found = forget_pictures(
            before,
            data,
            chosen,
            out,
            solver=solver,
            tolerance=tolerance,
            iterations=iterations,
            retrain=retrain,
            progress=progress,
        )
        write(found.checkpoint, data, predictions, split, progress)
    told = {
        "forgotten": found.pictures,
        "moved": found.moved,
        "distance": found.distance,
        "retrained": found.retrained,
        "in_start": found.in_start,
        "empty": list(found.empty),
    }
    print_tuned(found.checkpoint, out, as_json, predictions, told)
    if as_json:
        return
    click.echo(
        f"{found.pictures} pictures forgotten; the tangent moved by {found.moved:.3g} of its "
        f"length, and is within {found.distance:.2g} of the one that never saw them"
    )
    if found.retrained is not None:
        click.echo(f"distance to tuning without them: {found.retrained:.2g} of the way")
    if found.in_start:
        click.echo(
            f"the base was made of {found.in_start} of them, and still knows them: tune from a "
            "base of other pictures (samespace tune base) to forget all"
        )
    if found.empty:
        click.echo(f"no picture is left of: {', '.join(found.empty)}")


@tune.command("merge")
@click.argument("tunings", nargs=-1, required=True)
@click.option(
    "--how",
    type=click.Choice(["average", "sum"]),
    default="average",
    show_default=True,
    help="Of the tangents.",
)
@out_option
@json_option
def merge_command(
    tunings: tuple[str, ...],
    how: Literal["average", "sum"],
    out: Path,
    as_json: bool,
) -> None:
    """Merge TUNINGS of one base: folders, or NAME=FOLDER; a name is the folder's otherwise.

    \b
    Example:
      samespace tune merge runs/acme bob=runs/bob --out runs/both
      samespace tune remove runs/both bob --out runs/acme-alone
    """
    from samespace_cloud.tuning import TunedCheckpoint, merge_tuned

    named: dict[str, TunedCheckpoint] = {}
    for text in tunings:
        name, is_named, folder = text.partition("=")
        name, folder = (name, folder) if is_named else (Path(text).resolve().name, text)
        if name in named:
            raise click.UsageError(f"two tunings are called {name!r}; say NAME=FOLDER")
        named[name] = TunedCheckpoint.load(folder)
    made = merge_tuned(named, out, how)
    print_tuned(made, out, as_json)


@tune.command("remove")
@click.argument("merged")
@click.argument("name")
@out_option
@json_option
def remove_command(merged: str, name: str, out: Path, as_json: bool) -> None:
    """Take the member NAME out of MERGED: what is left is what merging the others gives.

    \b
    Example:
      samespace tune remove runs/both bob --out runs/acme-alone
    """
    from samespace_cloud.tuning import TunedCheckpoint, remove_tuned

    made = remove_tuned(TunedCheckpoint.load(merged), name, out)
    print_tuned(made, out, as_json)


def _columns(where: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in where:
        column, sign, value = text.partition("=")
        if not sign:
            raise click.UsageError(f"--where {text!r} is not COLUMN=VALUE")
        if column in found:
            raise click.UsageError(
                f"--where {column}= is given twice, and a picture has one value; forget one after "
                "the other, or name the pictures by --ids"
            )
        found[column] = value
    return found


def _lines(file: Path | None) -> list[str]:
    from samespace_edge import ConfigError

    if file is None:
        return []
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the ids in {file}: {error}") from None
