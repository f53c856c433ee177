"""`samespace train family`: several edge models in one space, and the matrix of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from samespace.cli._output import print_json, progress_bar
from samespace.cli.verify import print_report
from samespace_cloud.cli._settings import (
    config_from,
    described,
    edge_defaults,
    opened,
    opened_pool,
    shared_options,
    teaching_options,
    weighted,
)


@click.command()
@shared_options
@click.option("--cloud", "cloud_path", required=True, help="Checkpoint of the cloud model.")
@click.option(
    "--member",
    "members",
    multiple=True,
    required=True,
    help="NAME=BACKBONE@SIZE, once for every model; the backbone is a row or a network as text.",
)
@click.option(
    "--alone",
    multiple=True,
    help="NAME=CHECKPOINT of the same network trained alone, which the member has to beat.",
)
@click.option("--loss", "losses", multiple=True, help="NAME or NAME=WEIGHT; may be repeated.")
@teaching_options
def family(
    dataset: str,
    out: Path,
    cloud_path: str,
    members: tuple[str, ...],
    alone: tuple[str, ...],
    losses: tuple[str, ...],
    gallery_aware: bool,
    pool: str | None,
    teacher_view: str | None,
    mixed_views: int | None,
    steady: float | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train several edge models on DATASET into one cloud model's space, and certify them.

    The cloud model embeds the views once for all members. Every pair is measured: each member in
    the cloud's gallery, and in every other member's. Members that are there already are kept.

    \b
    Example:
      samespace train family shop.csv --cloud runs/cloud --out runs/family \\
        --member phone=lite0-edge@48 --member watch=edge-s@48
    """
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.family import certify_family, train_family
    from samespace_cloud.teacher import CheckpointTeacher

    data = opened(dataset)
    cloud = Checkpoint.load(cloud_path)
    teacher = CheckpointTeacher(cloud)
    given = {
        "losses": tuple(weighted(x) for x in losses),
        "teacher_view": teacher_view,
        "mixed_views": mixed_views,
        "steady": steady,
    }
    if settings["backbone"] or settings["size"]:
        raise click.UsageError("backbone and size stand in --member NAME=BACKBONE@SIZE")
    configs = {}
    for text in members:
        name, model = _member(text)
        if name in configs or name == "cloud":
            raise click.UsageError(f"--member {text!r}: the name {name!r} is taken")
        defaults = edge_defaults(teacher, data)
        defaults["model"] |= model
        configs[name] = config_from(defaults, given, dict(settings))
    baselines = {}
    for text in alone:
        name, named, path = text.partition("=")
        if not named or name not in configs:
            raise click.UsageError(f"--alone {text!r} is not NAME=CHECKPOINT of a member")
        baselines[name] = Checkpoint.load(path)
    with progress_bar() as progress:
        trained = train_family(
            data,
            configs,
            teacher,
            out,
            gallery_aware=gallery_aware,
            pool=opened_pool(pool),
            ridge_head=any(n == "cosine-regression" for c in configs.values() for n, _ in c.losses),
            progress=progress,
        )
        report, certificates = certify_family(
            data, trained, cloud, out, baselines=baselines, progress=progress
        )
    if as_json:
        found = {name: described(c, out / name) for name, c in trained.items()}
        certified = {name: str(path) for name, path in certificates.items()}
        print_json({"members": found, "certificates": certified, "report": report.to_json()})
    else:
        print_report(report)
        for name in trained:
            click.echo(f"{name}: {certificates.get(name, 'not certified')}")
        click.echo(f"report: {out / 'report.html'}")


def _member(text: str) -> tuple[str, dict[str, Any]]:
    name, named, model = text.partition("=")
    backbone, sized, size = model.rpartition("@")
    if not (named and sized and name and backbone and size.isdigit()):
        raise click.UsageError(f"--member {text!r} is not NAME=BACKBONE@SIZE")
    return name, {"backbone": backbone, "input_size": int(size)}
