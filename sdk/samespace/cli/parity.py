"""`samespace parity`: does every file of a bundle find what the model it came from finds?"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import click

from samespace._dataset import Dataset
from samespace.cli import EXIT_NO
from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace_edge import Bundle, ConfigError, load_measured

if TYPE_CHECKING:
    from samespace.verification import Floor, ParityReport
    from samespace.verification._parity import Reference


@click.command("parity")
@click.argument("bundle")
@click.option("--data", "dataset", required=True, help="Dataset whose test part is searched.")
@click.option("--gallery", required=True, help="Bundle of the model that embeds the gallery.")
@click.option("--checkpoint", help="Compare with this torch model; else with the fp32 ONNX file.")
@click.option("--from", "elsewhere", multiple=True, help="Results of another machine, .npz.")
@click.option(
    "--pixels",
    type=click.Path(path_type=Path),
    help="Only write the queries as the graphs take them, for python -m samespace_edge elsewhere.",
)
@click.option("--floor", "floors", multiple=True, help="PRECISION=DROP,AGREEMENT as fractions.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for JSON, Markdown and HTML.")
@click.option("--gate", is_flag=True, help="Exit with 1 unless every file that ran passes.")
@json_option
def parity_command(
    bundle: str,
    dataset: str,
    gallery: str,
    checkpoint: str | None,
    elsewhere: tuple[str, ...],
    pixels: Path | None,
    floors: tuple[str, ...],
    out: Path | None,
    gate: bool,
    as_json: bool,
) -> int:
    """Run every file of BUNDLE in every runtime that is here, and search a gallery with it.

    \b
    Example, in a release pipeline:
      samespace parity edge.bundle --gallery cloud.bundle --data shop/manifest.csv --gate
    Example, with a board that has no more than the edge runtime:
      samespace parity edge.bundle --gallery cloud.bundle --data shop.zip --pixels queries.npy
      python -m samespace_edge edge.bundle queries.npy board.npz   (on the board)
      samespace parity edge.bundle --gallery cloud.bundle --data shop.zip --from board.npz
    """
    import numpy as np

    from samespace.verification import FLOORS, parity, query_pixels, write_parity

    data, opened = Dataset.open(dataset), Bundle.open(bundle)
    chosen = {**FLOORS, **dict(_floor(text) for text in floors)}
    results = [result for path in elsewhere for result in load_measured(path)]
    with progress_bar() as progress:
        if pixels:
            np.save(pixels, query_pixels(opened, data, progress))
            return 0
        reference = _torch_reference(checkpoint, opened) if checkpoint else None
        report = parity(
            opened,
            gallery,
            data,
            reference=reference,
            elsewhere=results,
            floors=chosen,
            progress=progress,
        )
    if out:
        write_parity(report, out)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
        if out:
            click.echo(f"report: {out / 'parity.html'}")
    return EXIT_NO if gate and not report.passed else 0


def _print(report: ParityReport) -> None:
    from samespace.verification import parity_verdict

    rows = []
    for r in report.rows:
        f = r.figures
        if f is None:
            rows.append((r.variant, r.runtime, r.status, *[""] * 8, r.reason))
            continue
        rows.append(
            (
                r.variant,
                r.runtime,
                r.status,
                f"{r.bytes / 2**20:.2f}",
                f"{f.p50_ms:.2f}",
                f"{f.cosine_min:.5f}",
                f"{f.cosine_mean:.5f}",
                f"{100 * f.agreement:.2f} %",
                f"{100 * f.label_agreement:.2f} %",
                f"{100 * f.difference:+.2f}",
                f"-{f.negative} +{f.positive}",
                r.reason or (f"proves {r.proves}" if r.proves else ""),
            )
        )
    print_table(
        [
            "file",
            "runtime",
            "status",
            "MiB",
            "p50 ms",
            "cosine min",
            "mean",
            "same first hit",
            "same label",
            "R@1, points",
            "flips",
            "",
        ],
        rows,
        f"against {report.reference}, R@1 {report.reference_recall_at_1:.3f}",
    )
    click.echo(parity_verdict(report))


def _floor(text: str) -> tuple[str, Floor]:
    from samespace.verification import FLOORS, Floor

    precision, _, values = text.partition("=")
    try:
        drop, agreement = (float(v) for v in values.split(","))
    except ValueError:
        raise ConfigError(
            f"--floor {text!r} is not PRECISION=DROP,AGREEMENT, such as int8=0.005,0.97"
        ) from None
    if precision not in FLOORS:
        raise ConfigError(f"--floor {text!r}: no precision {precision!r}; {', '.join(FLOORS)}")
    return precision, Floor(drop, agreement)


def _torch_reference(checkpoint: str, bundle: Bundle) -> Reference:
    brought = entry_points(group="samespace.references")
    if "checkpoint" not in brought.names:
        raise ConfigError('--checkpoint needs torch: pip install "samespace[cloud]"')
    reference: Reference = brought["checkpoint"].load()(checkpoint, bundle)
    return reference
