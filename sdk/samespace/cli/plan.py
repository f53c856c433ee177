"""`samespace plan`: what a gallery takes, before there is one."""

from __future__ import annotations

import dataclasses
import time
from itertools import islice
from pathlib import Path

import click

from samespace._files import PICTURES, is_picture
from samespace.capacity import CapacityPlan, plan_capacity
from samespace.cli._output import json_option, print_json, print_table
from samespace_edge import DataError, Embedder, ImageError

_TRIED = 64


@click.group()
def plan() -> None:
    """Work out what a gallery takes before there is one."""


@plan.command()
@click.option("--items", type=float, required=True, help="How many, say 50e6.")
@click.option("--dim", type=int, help="Width of the vectors; the bundle's where one is named.")
@click.option("--bundle", help="Bundle of the cloud model: its speed is measured on --images.")
@click.option("--images", help="Folder of pictures like yours, for --bundle.")
@click.option("--rate", type=float, help="Pictures a second of one worker, measured.")
@click.option("--workers", default=1, show_default=True, help="How many embed at once.")
@click.option(
    "--memory-gib", default=16.0, show_default=True, help="Memory of one machine, in GiB."
)
@click.option("--payload-bytes", default=100.0, show_default=True, help="Mean length as JSON.")
@click.option("--id-bytes", default=24.0, show_default=True, help="Mean length of an id.")
@json_option
def capacity(
    items: float,
    dim: int | None,
    bundle: str | None,
    images: str | None,
    rate: float | None,
    workers: int,
    memory_gib: float,
    payload_bytes: float,
    id_bytes: float,
    as_json: bool,
) -> None:
    """Say what memory, disk and hours so many items take, in either kind of store.

    \b
    Example:
      samespace plan capacity --items 50e6 --dim 128
      samespace plan capacity --items 2e6 --bundle cloud.bundle --images photos --workers 16
    """
    if bundle is None and dim is None:
        raise click.UsageError("give --dim, or --bundle, whose width it is")
    if (bundle is None) != (images is None):
        raise click.UsageError("--bundle and --images go together: one is measured on the other")
    if bundle and images:
        embedder = Embedder(bundle)
        dim = embedder.identity.dim
        rate = rate or _measured(embedder, Path(images))
    assert dim is not None
    found = plan_capacity(
        int(items),
        dim,
        payload_bytes=payload_bytes,
        id_bytes=id_bytes,
        memory_per_machine_gib=memory_gib,
        rate=rate,
        workers=workers,
    )
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    _print(found)


def _measured(embedder: Embedder, folder: Path) -> float:
    """Pictures a second, decoded and embedded, once warm."""
    names = (p for p in sorted(folder.rglob("*")) if is_picture(p.name))
    tried = list(islice(names, _TRIED))
    if not tried:
        kinds = ", ".join(sorted(PICTURES))
        raise DataError(f"no picture ({kinds}) in {folder}; name a folder that holds some")
    embedder.embed([tried[0]])
    start, done = time.perf_counter(), 0
    for path in tried:
        try:
            embedder.embed([path])
        except ImageError:
            continue
        done += 1
    if not done:
        raise DataError(f"none of the {len(tried)} pictures tried in {folder} can be read")
    return done / (time.perf_counter() - start)


def _print(found: CapacityPlan) -> None:
    print_table(
        [
            "store",
            "memory, GiB",
            "disk, GiB",
            "disk while upgraded, GiB",
            "shards, one a machine",
            "backfill, hours",
        ],
        [
            [
                need.where,
                f"{need.memory_gib:,.1f}",
                f"{need.disk_gib:,.1f}",
                f"{need.upgrade_disk_gib:,.1f}",
                need.shards if need.fits else "does not fit",
                "not measured" if need.backfill_hours is None else f"{need.backfill_hours:,.1f}",
            ]
            for need in found.needs
        ],
        title=f"{found.items:,} items, {found.dim}-d",
    )
    click.echo(
        f"Embedding all of them once: {found.embedding_hours:,.1f} hours at {found.rate:,.1f} "
        f"pictures a second and worker, {found.workers} at work. That rate is {found.rate_of}."
    )
    if found.rate_of != "given":
        click.echo("Yours is another: name it with --rate, or have it measured with --bundle.")
    click.echo(found.advice)
