"""`samespace tune predict`, `influence` and `confidence`: what is said of single pictures."""

from __future__ import annotations

from pathlib import Path

import click

from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace_cloud.cli.tagger import csv_or_npz, opened, write

_split = click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="test",
    show_default=True,
    help="The part of the dataset that is looked at.",
)
_file = click.option(
    "--out", type=click.Path(path_type=Path), help="File of every picture's figures."
)
_top = click.option("--top", default=10, show_default=True, help="How many are printed.")


@click.command("predict")
@click.argument("tuning")
@click.argument("dataset")
@_split
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=csv_or_npz,
    required=True,
    help="Predictions: .csv, or .npz with logits.",
)
@json_option
def predict(tuning: str, dataset: str, split: str, out: Path, as_json: bool) -> None:
    """Write what TUNING, or a base, says of a part of DATASET, for 'samespace regressions'.

    \b
    Example:
      samespace tune predict runs/both photos.csv --out both.npz
    """
    from samespace_cloud.tuning import TunedCheckpoint
    from samespace_cloud.tuning.checkpoint import need_labels

    checkpoint = TunedCheckpoint.load(tuning)
    need_labels(checkpoint)
    with progress_bar() as progress:
        write(checkpoint, opened(dataset, split), out, split, progress)
    if as_json:
        print_json({"predictions": str(out), "classes": list(checkpoint.classes)})
        return
    click.echo(f"predictions: {out}")


@click.command("influence")
@click.argument("tuning")
@click.argument("dataset")
@_split
@_file
@_top
@json_option
def influence(
    tuning: str, dataset: str, split: str, out: Path | None, top: int, as_json: bool
) -> None:
    """What each training picture of TUNING does to the answers for a part of DATASET.

    Nothing is trained. Answers are those of the optimum, which a tuning that stopped early (few
    --iterations, or sgd) is away from. --out writes all of them: .csv, or .npz with every
    output's change.

    \b
    Example:
      samespace tune influence runs/tuned photos.csv --split val --out influence.csv
    """
    from samespace_cloud.tuning import TunedCheckpoint, influence_of
    from samespace_cloud.tuning.tables import need_ending

    if out is not None:
        need_ending(out, ".csv", ".npz")
    checkpoint = TunedCheckpoint.load(tuning)
    with progress_bar() as progress:
        found = influence_of(checkpoint, opened(dataset, split), split, progress)
    if out is not None:
        found.write(out)
    order = found.loss_change.argsort()[:top].tolist()
    rows = [
        (found.ids[i], found.labels[i], found.answers_without[i], float(found.loss_change[i]))
        for i in order
    ]
    names = ("id", "label", "answer_without", "loss_change")
    if as_json:
        value = [dict(zip(names, row, strict=True)) for row in rows]
        print_json({"accuracy_without": found.accuracy_without, "pictures": value})
        return
    click.echo(
        f"each picture answered by the tuning without it: {found.accuracy_without:.2%} right of "
        f"{len(found.ids)}"
    )
    print_table(
        ["id", "label", "answer without it", f"loss on {split} without it"],
        [(*row[:3], f"{row[3]:+.3g}") for row in rows],
    )
    if out is not None:
        click.echo(f"all of them: {out}")


@click.command("confidence")
@click.argument("tuning")
@click.argument("dataset")
@_split
@_file
@_top
@json_option
def confidence(
    tuning: str, dataset: str, split: str, out: Path | None, top: int, as_json: bool
) -> None:
    """How sure TUNING is of its answers for a part of DATASET; the least sure ones first.

    \b
    Example:
      samespace tune confidence runs/tuned photos.csv --out confidence.csv
    """
    from samespace_cloud.tuning import TunedCheckpoint, confidence_of
    from samespace_cloud.tuning.tables import need_ending

    if out is not None:
        need_ending(out, ".csv")
    checkpoint = TunedCheckpoint.load(tuning)
    with progress_bar() as progress:
        found = confidence_of(checkpoint, opened(dataset, split), split, progress)
    if out is not None:
        found.write(out)
    rows = [
        (
            found.ids[i],
            found.labels[i],
            found.answers[i],
            float(found.std[i]),
            float(found.ahead[i]),
        )
        for i in found.ahead.argsort()[:top].tolist()
    ]
    names = ("id", "label", "prediction", "std", "ahead")
    if as_json:
        print_json({"pictures": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    print_table(list(names), [(*row[:3], f"{row[3]:.3g}", f"{row[4]:.3g}") for row in rows])
    if out is not None:
        click.echo(f"all of them: {out}")
