"""`samespace index`: very many pictures into a gallery."""

from __future__ import annotations

import dataclasses
import json
from itertools import islice
from pathlib import Path
from typing import Any

import click

from samespace.cli import EXIT_NO
from samespace.cli._output import console, json_option, print_json, progress_bar
from samespace.gallery import Gallery
from samespace.indexing import IndexReport, Manifest, index_pictures, read_failures
from samespace.pool import open_pool
from samespace_edge import ConfigError, Embedder, FilterError

_SHOWN = 10


@click.command()
@click.argument("manifest")
@click.option("--gallery", "path", required=True, help="The gallery's folder.")
@click.option("--bundle", required=True, help="Bundle that embeds the pictures.")
@click.option("--variant", help="Which graph file, such as onnx-fp32.")
@click.option("--workers", type=int, help="Processes; by default 1, with --ray one a CPU.")
@click.option("--ray", is_flag=True, help="Embed through Ray Data (extra: ray).")
@click.option("--ray-address", help="Of a Ray cluster, or 'auto'; by default this machine alone.")
@click.option("--batch-size", default=64, show_default=True, help="Pictures in one transaction.")
@click.option("--limit", type=int, help="Stop after so many pictures.")
@click.option("--where", help="A filter on the manifest's columns, as JSON.")
@click.option("--number", "numbers", multiple=True, help="A column of a CSV that holds numbers.")
@click.option("--trust-sources", is_flag=True, help="Do not ask whether pictures have changed.")
@click.option("--retry-failed", is_flag=True, help="Try pictures again that were set aside.")
@click.option(
    "--failed",
    "report",
    type=click.Path(path_type=Path),
    help="CSV of what is set aside.  [default: MANIFEST.failed.csv]",
)
@json_option
def index(
    manifest: str,
    path: str,
    bundle: str,
    variant: str | None,
    workers: int | None,
    ray: bool,
    ray_address: str | None,
    batch_size: int,
    limit: int | None,
    where: str | None,
    numbers: tuple[str, ...],
    trust_sources: bool,
    retry_failed: bool,
    report: Path | None,
    as_json: bool,
) -> int:
    """Bring the pictures of MANIFEST, a .csv or .parquet, into a gallery, each of them once.

    The column 'path' has paths from the manifest's folder or URLs such as s3://, 'id' the items'
    ids (by default the paths), and what else there is becomes the payload. Stopped, by whatever,
    the same command goes on; what is there is not embedded again. Exits with 1 where pictures
    were set aside.

    \b
    Example:
      samespace index shop.csv --gallery shop --bundle cloud.bundle --workers 8
      samespace index s3://photos/shop.parquet --gallery shop --bundle cloud.bundle --ray \\
        --ray-address auto
    """
    try:
        condition = json.loads(where) if where else None
    except ValueError as error:
        raise FilterError(f"--where is not JSON: {error}") from None
    if "://" in path:
        raise ConfigError(f"{path} is no folder: index where the gallery's folder is")
    model = Embedder(bundle, variant=variant)
    at = {"done": 0}
    with Gallery.open(path) as gallery, progress_bar(rate=True) as bar:

        def progress(stage: str, done: int, total: int) -> None:
            at["done"] = done
            bar(stage, done, total)

        try:
            with open_pool(model, workers=workers, ray=ray, ray_address=ray_address) as pool:
                found = index_pictures(
                    Manifest(manifest, numbers=numbers),
                    gallery,
                    model,
                    pool=pool,
                    batch=batch_size,
                    limit=limit,
                    where=condition,
                    trust_sources=trust_sources,
                    retry_failed=retry_failed,
                    report=report,
                    progress=progress,
                )
        except KeyboardInterrupt:
            console(stderr=True).print(
                f"stopped after {at['done']:,} rows; the same command goes on",
                markup=False,
            )
            raise
        items = len(gallery)
    _show(found, path, items, as_json)
    return EXIT_NO if found.aside else 0


def _show(found: IndexReport, path: str, items: int, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
        print_json({**fields, "report": found.report and str(found.report), "items": items})
        return
    tried = found.added + found.again
    click.echo(
        f"{found.added:,} added, {found.again:,} embedded again, {found.payloads:,} new payloads, "
        f"{found.there:,} were there; {path} now holds {items:,} "
        f"({tried / max(found.seconds, 1e-9):.0f} pictures a second)"
    )
    if not found.finished:
        click.echo("stopped at the limit; the same command goes on")
    if found.aside:
        click.echo(f"{found.aside:,} set aside, listed in {found.report}:")
        assert found.report is not None
        for failure in islice(read_failures(found.report), _SHOWN):
            click.echo(f"  {failure.id or f'row {failure.row}'}: {failure.reason}")
        click.echo("they are tried again when their sources change, or with --retry-failed")
