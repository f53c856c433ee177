"""`samespace data`: look at a dataset before training on it, or make one of a download."""

from __future__ import annotations

from pathlib import Path

import click

from samespace._dataset import Dataset, count_endings, describe_left_out
from samespace.cli import EXIT_NO
from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace.conversion import CONVERTERS
from samespace.conversion import convert as convert_download
from samespace_edge import DataError


@click.group()
def data() -> None:
    """Check datasets, and convert public ones."""


@data.command()
@click.argument("dataset")
@click.option("--closed-set", is_flag=True, help="Test labels may be in train (classification).")
@click.option("--allow-repeats", is_flag=True, help="One picture may be there under several names.")
@json_option
def check(dataset: str, closed_set: bool, allow_repeats: bool, as_json: bool) -> int:
    """Read every picture of DATASET and report every problem at once.

    \b
    Example:
      samespace data check shop/manifest.csv
    """
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    counts = {}
    kinds = ""
    try:
        opened = Dataset.open(dataset, lenient=True)
        counts = {
            "train": len(opened.train),
            "train labels": len({i.label for i in opened.train}),
            "queries": len(opened.queries),
            "gallery": len(opened.gallery),
            "test labels": len({i.label for i in opened.gallery}),
        }
        left_out = opened.left_out
        kinds = count_endings([item.path for item in opened.items])
        with progress_bar() as progress:
            opened.validate(
                open_set=not closed_set,
                repeats=not allow_repeats,
                progress=lambda done, total: progress("read pictures", done, total),
            )
    except DataError as error:
        problems = error.problems or (str(error),)
    if as_json:
        print_json(
            {"ok": not problems, "problems": problems, "pictures": counts, "left_out": left_out}
        )
    else:
        print_table(list(counts), [list(counts.values())])
        if kinds:
            click.echo(f"files: {kinds}")
        for problem in problems:
            click.echo(problem)
        if left_out:
            click.echo(describe_left_out(left_out))
        click.echo(f"{len(problems)} problem(s)" if problems else "no problems found")
    return EXIT_NO if problems else 0


_NAMES = "\n".join(f"  {name:<15}{c.title}" for name, c in CONVERTERS.items())


@data.command(epilog=f"\b\nNames (docs/datasets.md says what each expects):\n{_NAMES}")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The CSV to write, in FOLDER or in a folder around it.",
)
@click.option("--protocol", help="Where a dataset has several; the first is the default.")
@click.option(
    "--crops",
    type=click.Path(path_type=Path),
    help="Folder for cut-out boxes (deepfashion2), below that of the CSV.",
)
@click.option("--overwrite", is_flag=True, help="Replace the CSV if it exists.")
@json_option
def convert(
    name: str,
    folder: Path,
    out: Path,
    protocol: str | None,
    crops: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a manifest of the download of a public dataset in FOLDER, with its usual protocol.

    Pictures stay where they are. Ctrl-C while boxes are cut out: the same command goes on.

    \b
    Example:
      samespace data convert in-shop in-shop --out in-shop/manifest.csv
      samespace data convert deepfashion2 df2 --out df2/manifest.csv --crops df2/crops
    """
    with progress_bar() as progress:
        done = convert_download(
            name,
            folder,
            out,
            protocol=protocol,
            crops=crops,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "manifest": str(out),
                "dataset": done.name,
                "protocol": done.protocol,
                "open_set": done.open_set,
                "pictures": dict(done.counts),
                "notes": done.notes,
                "warnings": done.warnings,
            }
        )
        return
    print_table(list(done.counts), [list(done.counts.values())])
    for note in done.notes:
        click.echo(note)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    closed = "" if done.open_set else " --closed-set"
    click.echo(f"manifest: {out}; next: samespace data check {out}{closed}")
