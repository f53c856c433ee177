"""`samespace train tagger`, and what it shares with `samespace update tagger`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from samespace.cli._output import ProgressCallback, json_option, print_json, progress_bar
from samespace_cloud.cli._settings import said, settings_in

if TYPE_CHECKING:
    from samespace import Dataset
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.tagging import TaggerCheckpoint, TaggerConfig
    from samespace_cloud.tagging.predictions import Answers


def tagger_options(command: Any) -> Any:
    """Options of every training of a tagger."""
    options = [
        click.argument("dataset"),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            required=True,
            help="Checkpoint folder.",
        ),
        click.option("--backbone", help="A row of the table, or a text.  [default: lite0-edge]"),
        click.option(
            "--size",
            "--input-size",
            "size",
            type=int,
            help="Side of the input, in pixels.  [default: 64]",
        ),
        click.option("--embeddings", help="A bundle, on whose vectors a head is trained instead."),
        click.option("--hidden", type=int, help="Width of that head's hidden layer; 0 for none."),
        click.option("--pretrained", is_flag=True, help="Start from ImageNet weights."),
        click.option("--start", help="Start from the weights of this checkpoint, or tagger."),
        click.option("--epochs", type=int, help="Passes over the pictures."),
        click.option("--lr", type=float, help="Peak learning rate."),
        click.option("--batch-size", type=int, help="Pictures in a step."),
        click.option("--canvas", type=int, help="Side at which pictures are augmented."),
        click.option("--views", type=int, help="Views made of every picture."),
        click.option("--ema", type=float, help="Decay of the averaged weights; 0 for none."),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16"]),
            help="Of training; bf16 is slow on processors without instructions for it.",
        ),
        click.option("--val-share", type=float, help="Share of a class to validate on."),
        click.option("--seed", type=int, help="Of weights, order and views."),
        click.option("--views-seed", type=int, help="Of the views alone."),
        click.option(
            "--config", type=click.Path(path_type=Path), help="A JSON of a tagger's settings."
        ),
    ]
    command = prediction_options(command)
    for option in reversed(options):
        command = option(command)
    return command


def csv_or_npz(ctx: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    """Refuses another ending before anything is trained."""
    if file is not None and file.suffix.lower() not in (".csv", ".npz"):
        raise click.BadParameter(f"{file} has to end in .csv or .npz")
    return file


def prediction_options(command: Any) -> Any:
    """Options of every command that makes a tagger."""
    options = [
        click.option(
            "--predictions",
            type=click.Path(path_type=Path, dir_okay=False),
            callback=csv_or_npz,
            help="Also write what it says of a part of the dataset: .csv, or .npz with logits.",
        ),
        click.option(
            "--split",
            type=click.Choice(["train", "val", "test"]),
            default="test",
            show_default=True,
            help="That part.",
        ),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("tagger")
@tagger_options
def tagger(
    dataset: str,
    out: Path,
    predictions: Path | None,
    split: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a classifier of the labels of DATASET, a manifest with path,label,split.

    Ctrl-C stops it cleanly; the same command goes on.

    \b
    Example:
      samespace train tagger photos.csv --out runs/old --backbone lite0-edge --size 64 \\
        --pretrained --predictions old.csv
      samespace train tagger photos.csv --out runs/head --embeddings cloud.bundle --hidden 256
    """
    from samespace_cloud.tagging import train_tagger

    data = opened(dataset, predictions and split)
    start = started_from(settings["start"])
    config = config_from(settings)
    with progress_bar() as progress:
        checkpoint = train_tagger(data, config, out, start=start, progress=progress)
        write(checkpoint, data, predictions, split, progress)
    print_tagger(checkpoint, out, predictions, as_json)


def opened(path: str, split: str | Path | None) -> Dataset:
    """A dataset of classes whose pictures have been checked, and that has the part that is to be
    predicted."""
    from samespace_cloud.tagging.data import check_pictures, open_labelled, part

    dataset = open_labelled(path)
    if split:
        part(dataset, str(split))
    with progress_bar() as progress:
        check_pictures(dataset, lambda done, total: progress("check the data", done, total))
    return dataset


def started_from(folder: str | None) -> Checkpoint | TaggerCheckpoint | None:
    """Whose weights a tagger starts with: a tagger's, or those of a model that embeds."""
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.tagging import TaggerCheckpoint
    from samespace_cloud.tagging.checkpoint import is_tagger

    if folder is None:
        return None
    return TaggerCheckpoint.load(folder) if is_tagger(Path(folder)) else Checkpoint.load(folder)


def config_from(settings: dict[str, Any]) -> TaggerConfig:
    """Settings: what the command line says, over the file, over the defaults."""
    from samespace_cloud.tagging import FromVectors, TaggerConfig

    options = dict(settings)
    file: Path | None = options.pop("config")
    value = settings_in(file, "sees")
    pretrained, start = options.pop("pretrained"), options.pop("start")
    if pretrained and start:
        raise click.UsageError("--pretrained and --start name two starts; name one")
    if pretrained or start:
        value["init"] = "imagenet" if pretrained else "checkpoint"
    bundle, hidden = options.pop("embeddings"), options.pop("hidden")
    seen = said({"backbone": options.pop("backbone"), "input_size": options.pop("size")})
    if bundle is not None:
        if seen or said({name: options[name] for name in ("canvas", "views")}):
            raise click.UsageError(
                "--backbone, --size, --canvas and --views go with pictures, not with --embeddings"
            )
        value["sees"] = vars(FromVectors.of(bundle, hidden or 0))
    elif hidden is not None:
        raise click.UsageError("--hidden goes with --embeddings")
    elif seen or "sees" not in value:
        default = {"backbone": "lite0-edge", "input_size": 64}
        value["sees"] = {**default, **value.get("sees", {}), **seen}
    return TaggerConfig.from_json({**value, **said(options)})


def write(
    checkpoint: Answers,
    dataset: Dataset,
    file: Path | None,
    split: str,
    progress: ProgressCallback,
) -> None:
    """Predictions of a part of the dataset, if they were asked for."""
    from samespace_cloud.tagging import predictions_of

    if file is not None:
        predictions_of(
            checkpoint,
            dataset,
            split,
            file,
            report=lambda done, total: progress(f"predict {split}", done, total),
        )


def print_tagger(
    checkpoint: TaggerCheckpoint, out: Path, predictions: Path | None, as_json: bool
) -> None:
    """What was trained, and how good it is on validation pictures."""
    if as_json:
        print_json(
            {
                "tagger": str(out),
                "fingerprint": checkpoint.fingerprint.hex,
                "classes": list(checkpoint.classes),
                "members": len(checkpoint.members),
                "validation": dict(checkpoint.metrics),
                "predictions": predictions and str(predictions),
            }
        )
        return
    measured = ", ".join(f"{k} {v:.3f}" for k, v in checkpoint.metrics.items()) or "none"
    count = len(checkpoint.members)
    click.echo(
        f"{out}: {f'{count} x ' if count > 1 else ''}{checkpoint.sees.architecture}, "
        f"{len(checkpoint.classes)} classes, validation: {measured}"
    )
    if predictions:
        click.echo(f"predictions: {predictions}")
