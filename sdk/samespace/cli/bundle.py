"""`samespace bundle`: look into a bundle, and check that it runs here as where it was made."""

from __future__ import annotations

import dataclasses

import click

from samespace.cli import EXIT_NO
from samespace.cli._output import json_option, print_json, print_table
from samespace_edge import Bundle, BundleCheck, check_bundle, instruction_set


@click.group()
def bundle() -> None:
    """Look into bundles and check them."""


@bundle.command()
@click.argument("path")
@json_option
def show(path: str, as_json: bool) -> None:
    """Print what the bundle at PATH says of itself.

    \b
    Example:
      samespace bundle show edge.bundle
    """
    manifest = Bundle.open(path).manifest
    if as_json:
        print_json(manifest.to_json())
        return
    rows = [
        ("name", manifest.name),
        ("role", manifest.role),
        ("fingerprint", manifest.fingerprint),
        ("space", "its own" if manifest.space == manifest.fingerprint else manifest.space),
        ("dim", manifest.dim),
        ("input", f"{manifest.resize.width}x{manifest.resize.height}, {manifest.resize.policy}"),
        ("cost", f"{manifest.macs / 1e6:.2f} MMACs, {manifest.parameters:,} parameters"),
        ("made", f"{manifest.created} by {manifest.producer}"),
        *[(f"file {v.name}", f"{v.file}, {v.bytes / 2**20:.2f} MiB") for v in manifest.variants],
        *manifest.card.items(),
    ]
    print_table(["", "value"], rows)


@bundle.command()
@click.argument("path")
@click.option("--runtime", help="Run this one only, such as ai_edge_litert.")
@json_option
def check(path: str, runtime: str | None, as_json: bool) -> int:
    """Check every hash of the bundle at PATH and replay its golden pictures on this machine.

    Says at which stage this machine departs: files, decode, resize, embed, or end to end.

    \b
    Example:
      samespace bundle check edge.bundle
    """
    result = check_bundle(path, runtime)
    if as_json:
        rows = [{**dataclasses.asdict(r), "ok": r.ok} for r in result.results]
        print_json(
            {
                "ok": result.ok,
                "instructions": instruction_set(),
                "departs_at": result.departs_at,
                "problems": result.problems,
                "skipped": result.skipped,
                "results": rows,
            }
        )
    else:
        if result.results:
            print_table(
                ["stage", "of", "error", "tolerance", "ok"],
                [
                    (r.stage, r.subject, f"{r.error:.2g}", f"{r.tolerance:.2g}", _yes(r.ok))
                    for r in result.results
                ],
            )
        for problem in result.problems:
            click.echo(problem)
        for variant in result.skipped:
            click.echo(f"not run: {variant}")
        click.echo(f"{result.name} on {instruction_set()}: {_verdict(result)}")
    return 0 if result.ok else EXIT_NO


def _verdict(result: BundleCheck) -> str:
    if result.ok:
        return "this machine agrees with the exporter"
    if result.departs_at:
        return f"departs at: {result.departs_at}"
    return "nothing could be run here"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
