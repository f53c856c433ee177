"""`samespace export`: checkpoint in, bundle out."""

from __future__ import annotations

from pathlib import Path

import click

from samespace.cli._output import json_option, print_json


@click.command("export")
@click.argument("checkpoint")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--name", help="A label; by default the checkpoint's folder.")
@click.option("--golden", multiple=True, help="A picture that travels with the bundle.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
@json_option
def export_command(
    checkpoint: str,
    out: Path,
    name: str | None,
    golden: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export CHECKPOINT to the bundle folder OUT, and run the file that was written.

    \b
    Example:
      samespace export runs/edge edge.bundle --golden cup.jpg --golden mug.jpg
    """
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_edge import DecodeError
    from samespace_export import export

    loaded = Checkpoint.load(checkpoint)
    try:
        pictures = [Path(path).read_bytes() for path in golden]
    except OSError as error:
        raise DecodeError(f"golden picture: {error}") from None
    label = name or Path(checkpoint).resolve().name
    written = export(
        loaded.model, loaded.export_spec(label), out, golden=pictures, overwrite=overwrite
    )
    if as_json:
        print_json({"bundle": str(out), "parity": [vars(p) for p in written.parity]})
        return
    click.echo(repr(written.bundle))
    for parity in written.parity:
        click.echo(
            f"{parity.variant}: within {parity.max_abs:.1e} of the torch model on "
            f"{parity.pictures} pictures"
        )
