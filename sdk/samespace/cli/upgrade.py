"""`samespace upgrade`: a gallery's way to a newer model, while it is searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from samespace._dataset import Dataset
from samespace.backfill import ORDERS
from samespace.cli import EXIT_NO
from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace.gallery import (
    Gallery,
    GivenVectors,
    Pictures,
    UpgradeOrder,
    UpgradePlan,
    UpgradeStatus,
)
from samespace.gallery._export import read_export
from samespace.indexing import PooledPictures, noted_sources
from samespace.verification import Report
from samespace_edge import Adapter, Embedder

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SHOWN = 10


def _what_with(command: _Command) -> _Command:
    """Options that say from what items are embedded again, and in which order."""
    for option in (
        click.option(
            "--ray-address", help="Of a Ray cluster, or 'auto'; by default this machine alone."
        ),
        click.option("--ray", is_flag=True, help="Embed through Ray Data (extra: ray)."),
        click.option("--workers", type=int, help="Processes; by default 1, with --ray one a CPU."),
        click.option("--column", help="Payload field of numbers, for --order column."),
        click.option("--label", default="label", show_default=True, help="Payload field."),
        click.option(
            "--order",
            default="random",
            show_default=True,
            type=click.Choice(sorted(ORDERS)),
            help="Which items come first.",
        ),
        click.option(
            "--vectors", type=click.Path(path_type=Path), help="New vectors, as 'gallery export'."
        ),
        click.option(
            "--sources",
            help="Folder or URL of the manifest that 'samespace index' read: pictures are found by "
            "what it noted of every item.",
        ),
        click.option("--images", help="Folder that ids are paths in."),
        click.option("--data", help="Dataset whose pictures' paths are the ids."),
        click.option("--bundle", required=True, help="Bundle of the new model."),
    ):
        command = option(command)
    return command


@click.group()
def upgrade() -> None:
    """Bring a gallery to a newer model while it is searched."""


@upgrade.command()
@click.argument("path")
@_what_with
@click.option("--report", help="Report of 'samespace verify' on both models, to be summed up.")
@json_option
def plan(path: str, report: str | None, as_json: bool, **options: Any) -> int:
    """Say what an upgrade of the gallery PATH would do, after trying it on a few items.

    Nothing is changed. Exits with 1 where the gallery does not accept the model yet.

    \b
    Example:
      samespace upgrade plan shop --bundle new.bundle --images photos
      samespace upgrade plan shop --bundle new.bundle --data manifest.csv --report report.json
    """
    originals, order = _originals(**options)
    measured = Report.read(report) if report else None
    with Gallery.open(path) as gallery:
        found = gallery.upgrade.plan(originals, order=order)
        if as_json:
            print_json(_plan_json(found))
        else:
            _show_plan(found, measured)
    return 0 if found.certified else EXIT_NO


@upgrade.command()
@click.argument("path")
@_what_with
@click.option("--limit", type=int, help="Stop after so many items: a canary.")
@click.option("--batch", default=64, show_default=True, help="Items in one transaction.")
@click.option("--retry", is_flag=True, help="Try items again that could not be read before.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as 'plan' does.")
@json_option
@click.pass_context
def run(
    context: click.Context,
    /,
    path: str,
    limit: int | None,
    batch: int,
    retry: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Embed the items of the gallery PATH again; stopped, the same command goes on.

    The gallery is searched meanwhile, every item once, and old vectors are kept.

    \b
    Example:
      samespace upgrade run shop --bundle new.bundle --images photos --order farthest --workers 8
      samespace upgrade run shop --bundle new.bundle --sources s3://photos --ray --ray-address auto
    """
    if dry_run:
        return int(context.invoke(plan, path=path, report=None, as_json=as_json, **options))
    originals, order = _originals(**options)
    with Gallery.open(path) as gallery, progress_bar() as progress:
        found = gallery.upgrade.run(
            originals, order=order, limit=limit, batch=batch, retry=retry, progress=progress
        )
    _show_status(found, as_json)
    return 0


@upgrade.command()
@click.argument("path")
@json_option
def status(path: str, as_json: bool) -> int:
    """Say how far the upgrade of the gallery PATH is.

    \b
    Example:
      samespace upgrade status shop
    """
    with Gallery.open(path) as gallery:
        found = gallery.upgrade.status()
    if found is not None:
        _show_status(found, as_json)
    elif as_json:
        print_json(None)
    else:
        click.echo(f"no upgrade of {path} is under way, and no old vectors are kept")
    return 0


@upgrade.command()
@click.argument("path")
@click.option("--partial", is_flag=True, help="Items that are waiting keep their old vectors.")
@json_option
def commit(path: str, partial: bool, as_json: bool) -> int:
    """Say that the upgrade of the gallery PATH is done; old vectors are kept until 'discard'.

    \b
    Example:
      samespace upgrade commit shop
    """
    with Gallery.open(path) as gallery:
        found = gallery.upgrade.commit(partial=partial)
    _show_status(found, as_json)
    return 0


@upgrade.command()
@click.argument("path")
@json_option
def rollback(path: str, as_json: bool) -> int:
    """Put all old vectors of the gallery PATH back, in one step.

    \b
    Example:
      samespace upgrade rollback shop
    """
    with Gallery.open(path) as gallery:
        count = gallery.upgrade.rollback()
    _say(as_json, {"restored": count}, f"{count:,} items of {path} have their old vectors back")
    return 0


@upgrade.command()
@click.argument("path")
@json_option
def discard(path: str, as_json: bool) -> int:
    """Drop the old vectors that a committed upgrade of the gallery PATH has kept, for good.

    \b
    Example:
      samespace upgrade discard shop
    """
    with Gallery.open(path) as gallery:
        count = gallery.upgrade.discard()
    _say(as_json, {"discarded": count}, f"{count:,} old vectors of {path} are gone")
    return 0


@upgrade.command()
@click.argument("path")
@click.argument("new")
@click.option("--adapter", required=True, help="From the gallery's model to the new one.")
@click.option("--anchor", required=True, help="Bundle of the new model.")
@click.option(
    "--certificate", required=True, help="Of the old bundle with the adapter, for the new model."
)
@json_option
def lift(path: str, new: str, adapter: str, anchor: str, certificate: str, as_json: bool) -> int:
    """Write the items of the gallery PATH into the folder NEW, in a new model's space.

    For a new model that was not trained to be compatible, without the pictures. PATH stays as it
    is; 'samespace upgrade run NEW' embeds anew what still can be.

    \b
    Example:
      samespace adapter fit --source-bundle old.bundle --target-bundle new.bundle \\
        --data manifest.csv --out old-new.adapter
      samespace adapter bundle old.bundle old-new.adapter lifted.bundle
      samespace verify --query lifted.bundle --gallery new.bundle --baseline old.bundle \\
        --data manifest.csv --out report
      samespace upgrade lift shop shop-new --adapter old-new.adapter --anchor new.bundle \\
        --certificate report/lifted-*.certificate.json
    """
    with Gallery.open(path) as gallery, progress_bar() as progress:
        how = Adapter.read(adapter)
        with gallery.lift(
            new, how, anchor=anchor, certificate=certificate, progress=progress
        ) as lifted:
            count = len(lifted)
    _say(as_json, {"items": count, "path": new}, f"{count:,} items lifted into {new}")
    return 0


def _originals(
    bundle: str,
    data: str | None,
    images: str | None,
    vectors: Path | None,
    order: str,
    label: str,
    column: str | None,
    workers: int | None,
    sources: str | None,
    ray: bool,
    ray_address: str | None,
) -> tuple[Pictures | GivenVectors, UpgradeOrder]:
    if sum(x is not None for x in (data, images, sources, vectors)) != 1:
        raise click.UsageError("name one of --data, --images, --sources and --vectors")
    by = UpgradeOrder(order, label, column)
    embedder = Embedder(bundle)
    if vectors is not None:
        return GivenVectors(embedder.identity, *read_export(vectors)), by
    where: Any = images if data is None else Dataset.open(data)
    if sources is not None:
        where = noted_sources(sources)
    elif workers in (None, 1) and not ray and ray_address is None:
        return Pictures(embedder, where), by
    pool: dict[str, Any] = {"workers": workers, "ray": ray, "ray_address": ray_address}
    return PooledPictures(embedder, where, **pool), by


def _say(as_json: bool, value: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(value)
    else:
        click.echo(text)


def _plan_json(plan: UpgradePlan) -> dict[str, Any]:
    fields = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
    return {
        **fields,
        "target": plan.target.to_json(),
        "by_model": {str(m): n for m, n in plan.by_model.items()},
        "seconds": plan.seconds,
    }


def _show_plan(plan: UpgradePlan, report: Report | None) -> None:
    rows = [
        ("to", str(plan.target)),
        ("items", f"{plan.items:,}"),
        *((f"made by {m}", f"{n:,}") for m, n in plan.by_model.items()),
        ("to embed again", f"{plan.to_embed:,}, order {plan.order}"),
        (
            "estimate",
            f"{duration(plan.seconds)} with {plan.workers} process(es), from "
            f"{1e3 * plan.seconds_per_item:.1f} ms an item over {plan.sample} items",
        ),
        ("old vectors kept", f"{plan.kept_bytes / 2**20:.1f} MiB on the disk until 'discard'"),
    ]
    if plan.unreadable:
        rows.append(
            ("cannot be embedded", f"{len(plan.unreadable)} of the {plan.sample} that were tried")
        )
    if plan.criterion is not None:
        c = plan.criterion
        rows.append(
            (
                "measured",
                f"{c['metric']} {c['value']:.3f} in the anchor's gallery, against "
                f"{c['reference_value']:.3f} for {c['reference']}",
            )
        )
    print_table(["", "upgrade"], rows)
    for id_, reason in list(plan.unreadable.items())[:_SHOWN]:
        click.echo(f"{id_}: {reason}")
    if report is not None:
        for cell in report.matrix:
            estimate = cell.estimates["recall_at_1"]
            click.echo(
                f"M({cell.query}, {cell.gallery}): R@1 {estimate.value:.3f} "
                f"[{estimate.low:.3f}, {estimate.high:.3f}]"
            )
        for flip in report.flips:
            click.echo(
                f"{flip.query} in the gallery of {flip.gallery}: {flip.negative_rate:.2%} of the "
                f"queries turn wrong, {flip.positive_rate:.2%} turn right"
            )
    if not plan.certified:
        click.echo(
            "The gallery does not accept this model yet: run 'samespace verify' with it and the "
            "gallery's model, then 'samespace gallery admit' the certificate."
        )


def _show_status(status: UpgradeStatus, as_json: bool) -> None:
    if as_json:
        fields = {f.name: getattr(status, f.name) for f in dataclasses.fields(status)}
        print_json({**fields, "target": status.target.to_json(), "share": status.share})
        return
    print_table(
        ["", "upgrade"],
        [
            ("to", str(status.target)),
            ("state", status.state),
            ("done", f"{status.done:,} of {status.items:,} items, {status.share:.1%}"),
            ("waiting", f"{status.waiting:,}"),
            ("cannot be embedded", f"{len(status.unreadable):,}"),
            ("old vectors kept", f"{status.kept:,}"),
            ("order", status.order),
            ("started", status.started),
        ],
    )
    for id_, reason in list(status.unreadable.items())[:_SHOWN]:
        click.echo(f"{id_}: {reason}")


def duration(seconds: float) -> str:
    """A time for people: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
