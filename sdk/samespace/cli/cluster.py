"""`samespace cluster`: groups of items in a gallery, whose numbers stay."""

from __future__ import annotations

import click

from samespace.cli._output import json_option, print_json, print_table
from samespace.clusters import DISTANCE, Clustering, cluster_gallery

_SHOWN, _EXAMPLES = 20, 3


@click.command("cluster")
@click.argument("path", metavar="GALLERY")
@click.option(
    "--distance",
    type=float,
    help="Merge while the mean of 1 - cosine is below it. By default as last time, "
    f"at first {DISTANCE}.",
)
@click.option("--count", type=int, help="Or: how many clusters.")
@click.option("--name", default="default", show_default=True, help="Of the clustering.")
@click.option("--dry-run", is_flag=True, help="Tell what would change, and write nothing.")
@json_option
def cluster(
    path: str,
    distance: float | None,
    count: int | None,
    name: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Cluster the items of GALLERY by their vectors.

    Run it again after items came and went, or after an upgrade: clusters keep their numbers, and
    what split, merged, moved or went is told. Kept in GALLERY/clusters/NAME.json.

    \b
    Example:
      samespace cluster shop --distance 0.3
      samespace cluster shop --dry-run
      samespace cluster shop --count 40 --name shelves
    """
    found = cluster_gallery(path, distance=distance, count=count, name=name, dry_run=dry_run)
    if as_json:
        print_json(_json(found, dry_run))
        return
    clusters = found.clusters
    rows = []
    for number, items in list(clusters.items())[:_SHOWN]:
        more = ", …" if len(items) > _EXAMPLES else ""
        rows.append((number, len(items), ", ".join(items[:_EXAMPLES]) + more))
    print_table(["cluster", "items", "such as"], rows, title=name)
    if len(clusters) > _SHOWN:
        click.echo(f"and {len(clusters) - _SHOWN:,} smaller clusters")
    by = ", ".join(f"{k} {v:g}" for k, v in found.settings.items() if k != "seed")
    click.echo(
        f"{len(found.assignments):,} items in {len(clusters):,} clusters ({found.method}, {by})"
    )
    if found.changes is not None:
        for sentence in found.changes.sentences():
            click.echo(sentence)
    click.echo("nothing was written" if dry_run else f"revision {found.revision} of {name!r}")


def _json(found: Clustering, dry_run: bool) -> dict[str, object]:
    return {
        "name": found.name,
        "settings": dict(found.settings),
        "method": found.method,
        "revision": found.revision,
        "written": not dry_run,
        "clusters": {str(number): items for number, items in found.clusters.items()},
        "changes": None if found.changes is None else found.changes.to_json(),
    }
