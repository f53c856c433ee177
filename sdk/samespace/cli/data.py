"""`samespace data`: look at a dataset before training on it."""

from __future__ import annotations

import click

from samespace._dataset import Dataset
from samespace.cli import EXIT_NO
from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace_edge import DataError


@click.group()
def data() -> None:
    """Check datasets."""


@data.command()
@click.argument("dataset")
@click.option("--closed-set", is_flag=True, help="Test labels may be in train (classification).")
@json_option
def check(dataset: str, closed_set: bool, as_json: bool) -> int:
    """Read every picture of DATASET and report every problem at once.

    \b
    Example:
      samespace data check shop/manifest.csv
    """
    problems: tuple[str, ...] = ()
    counts = {}
    try:
        opened = Dataset.open(dataset, lenient=True)
        counts = {
            "train": len(opened.train),
            "train labels": len({i.label for i in opened.train}),
            "queries": len(opened.queries),
            "gallery": len(opened.gallery),
            "test labels": len({i.label for i in opened.gallery}),
        }
        with progress_bar() as progress:
            opened.validate(
                open_set=not closed_set,
                progress=lambda done, total: progress("read pictures", done, total),
            )
    except DataError as error:
        problems = error.problems or (str(error),)
    if as_json:
        print_json({"ok": not problems, "problems": problems, "pictures": counts})
    else:
        print_table(list(counts), [list(counts.values())])
        for problem in problems:
            click.echo(problem)
        click.echo(f"{len(problems)} problem(s)" if problems else "no problems found")
    return EXIT_NO if problems else 0
