"""`samespace demo`: the main job, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from samespace.cli import EXIT_INTERRUPTED
from samespace.cli._output import console, json_option, print_json
from samespace.cli.verify import print_report
from samespace_cloud.cli._plan import planned_progress

if TYPE_CHECKING:
    from samespace import Dataset
    from samespace_cloud.demo import DemoResult
    from samespace_cloud.recipes import DemoRecipe


@click.command()
@click.option("--data", "source", help="A dataset of your own: manifest CSV, folder or zip.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for bundles, gallery and report; a stopped run is resumed from it.",
)
@click.option("--seed", default=0, show_default=True, help="Of weights, order and views.")
@click.option("--inductive", is_flag=True, help="Do not teach with the gallery's own pictures.")
@click.option("--smoke", is_flag=True, help="Try everything in a minute, to no useful accuracy.")
@json_option
def demo(
    source: str | None, out: Path, seed: int, inductive: bool, smoke: bool, as_json: bool
) -> int:
    """Train cloud and edge models, export, verify, fill a gallery and search it.

    Takes about ten minutes on two cores. Ctrl-C stops it cleanly; the same command goes on.

    \b
    Example:
      samespace demo
      samespace demo --data shop/manifest.csv --out shop-out
    """
    from dataclasses import replace

    from samespace import Dataset
    from samespace_cloud.demo import canvas_for, quickstart, run_demo
    from samespace_cloud.recipes import demo_recipe

    dataset = Dataset.open(source) if source else quickstart()
    recipe = demo_recipe(seed, smoke)
    recipe = demo_recipe(seed, smoke, canvas_for(dataset, recipe.cloud_size))
    if inductive:
        recipe = replace(recipe, gallery_aware=False)
    try:
        with planned_progress(_plan(dataset, recipe)) as progress:
            result = run_demo(dataset, recipe, out, progress)
    except KeyboardInterrupt:
        console(stderr=True).print(
            f"stopped; what is done is kept in {out}. Run the same command to go on."
        )
        return EXIT_INTERRUPTED
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "admitted": result.admitted,
                "hits": [{"id": h.id, "score": h.score} for h in result.hits],
                "seconds": round(result.seconds, 1),
                "report": result.report.to_json(),
            }
        )
    else:
        _print(result)
    return 0


def _plan(dataset: Dataset, recipe: DemoRecipe) -> dict[str, float]:
    """Seconds of every step on the two cores that the quick start was timed on."""
    train = len(dataset.train) / 1000
    taught = train + (len(dataset.gallery) / 1000 if recipe.gallery_aware else 0)
    searched = (len(dataset.queries) + len(dataset.gallery)) / 1000
    cloud, edge, alone = recipe.cloud, recipe.edge, recipe.alone
    return {
        "check the data": 0.3 * (train + searched),
        "decode": 0.3 * taught,
        "augment": 1.5 * cloud.views * train,
        "train cloud": 5.3 * cloud.epochs * train,
        "fit the head": 11.0 * train,
        "train edge-alone": 1.35 * alone.epochs * train,
        "views of the cloud model": 3.8 * edge.views * taught,
        "train edge": 1.45 * edge.epochs * taught,
        "export": 12.0,
        "embed with edge": 0.5 * searched,
        "embed with cloud": 3.5 * searched,
        "embed with edge-alone": 0.5 * searched,
        "fill the gallery": 4.0 * len(dataset.gallery) / 1000,
    }


def _print(result: DemoResult) -> None:
    folder = result.folder
    print_report(result.report)
    click.echo()
    model = "edge" if result.admitted else "cloud"
    if not result.admitted:
        click.echo(
            "The criterion does not hold on this data, so no certificate was issued and the "
            "gallery refuses the edge model's queries; it is searched with the cloud model."
        )
    click.echo(f"{result.query} ({result.query_label}) finds:")
    for hit in result.hits:
        label = (hit.payload or {}).get("label", "")
        mark = "right" if label == result.query_label else "other"
        click.echo(f"  {hit.score:.3f}  {mark}  {hit.id}")
    click.echo(f"\nreport:   {folder / 'report.html'}")
    click.echo(f"bundles:  {', '.join(str(p) for p in sorted(folder.glob('*.bundle')))}")
    click.echo(f"done in {result.seconds / 60:.1f} min\n")
    click.echo("Search with a picture of your own:")
    click.echo(
        f"  samespace gallery search {folder / 'gallery'} YOUR.jpg "
        f"--bundle {folder / f'{model}.bundle'}"
    )
    click.echo("Check the bundle on another device:")
    click.echo(f"  samespace bundle check {folder / 'edge.bundle'}")
