"""`samespace verify`: the report, the gate and the certificates."""

from __future__ import annotations

from pathlib import Path

import click

from samespace._dataset import Dataset
from samespace.cli import EXIT_NO
from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace.verification import (
    Report,
    verdict,
    verify,
    write_certificates,
    write_report,
)
from samespace.verification._report import METRIC_NAMES
from samespace_edge import Embedder


@click.command("verify")
@click.option(
    "--query",
    multiple=True,
    required=True,
    help="Bundle that embeds queries, or BUNDLE#FILE such as edge.bundle#tflite-int8.",
)
@click.option(
    "--gallery", multiple=True, required=True, help="Bundle that embeds the gallery, likewise."
)
@click.option("--data", "dataset", required=True, help="Dataset whose test part is searched.")
@click.option("--baseline", help="Query bundle trained alone, which the pair has to beat.")
@click.option(
    "--bank",
    help="Dataset whose train pictures, or folder whose pictures (at most 2,000), make a hub "
    "correction: every figure is shown with and without.",
)
@click.option(
    "--prefix",
    "prefixes",
    multiple=True,
    type=int,
    help="Also measure with the first so many numbers of every vector alone; may be repeated.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report and certificates.")
@click.option("--gate", is_flag=True, help="Exit with 1 unless the criterion holds.")
@json_option
def verify_command(
    query: tuple[str, ...],
    gallery: tuple[str, ...],
    dataset: str,
    baseline: str | None,
    bank: str | None,
    prefixes: tuple[int, ...],
    out: Path | None,
    gate: bool,
    as_json: bool,
) -> int:
    """Measure whether query bundles retrieve in galleries of other bundles.

    \b
    Example, in a release pipeline:
      samespace verify --query edge.bundle --gallery cloud.bundle --data shop/manifest.csv \\
        --out report --gate
    With --bank shop/manifest.csv it also tells what `samespace gallery correct-hubs` would bring,
    with --prefix 32 --prefix 64 what `samespace gallery search --width` finds.
    A gallery admits the very file that was verified. For what a phone runs:
      samespace verify --query edge.bundle#coreml-fp16@mil-interpreter \\
        --gallery cloud.bundle --data shop/manifest.csv --out report
    """
    data = Dataset.open(dataset)
    queries, galleries = [_opened(q) for q in query], [_opened(g) for g in gallery]
    alone = _opened(baseline) if baseline else None
    with progress_bar() as progress:
        report = verify(
            queries,
            galleries,
            data,
            baseline=alone,
            bank=bank,
            prefixes=prefixes,
            progress=progress,
        )
    if out:
        write_report(report, out, data)
        write_certificates(report, out)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
        if out:
            click.echo(f"report: {out / 'report.html'}")
    return EXIT_NO if gate and not report.passed else 0


def _opened(text: str) -> str | Embedder:
    """BUNDLE, or BUNDLE#FILE, or BUNDLE#FILE@RUNTIME."""
    path, marked, rest = text.rpartition("#")
    if not marked or Path(text).exists():
        return text
    variant, _, runtime = rest.partition("@")
    return Embedder(path, variant=variant, runtime=runtime or None)


def print_report(report: Report) -> None:
    """The matrix, the criterion and the cost, in a terminal."""
    rows = []
    for cell in report.matrix:
        e = cell.estimates["recall_at_1"]
        others = [f"{cell.estimates[m].value:.3f}" for m in ("recall_at_5", "recall_at_10", "map")]
        rows.append(
            (cell.query, cell.gallery, f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]", *others)
        )
    print_table(["query", "gallery", "R@1 [95 %]", "R@5", "R@10", "mAP"], rows, "M(query, gallery)")
    if report.bank is not None:
        _print_corrected(report)
    if report.widths:
        _print_widths(report)
    print_table(
        [
            "query → gallery",
            "against",
            "difference of R@1 [95 %]",
            "holds",
            "gap to paragon",
            "cost",
        ],
        [
            (
                f"{c.query} → {c.gallery}",
                f"{c.reference} → {c.reference}",
                f"{c.difference.value:+.3f} [{c.difference.low:+.3f}, {c.difference.high:+.3f}]",
                ("yes" if c.holds else "NO") + (" (decides)" if c.decides else ""),
                f"{c.gap.value:+.3f}",
                f"1/{c.cost_ratio:.1f}",
            )
            for c in report.criteria
        ],
        "criterion",
    )
    click.echo(verdict(report))


def _print_corrected(report: Report) -> None:
    """What hub correction changes, pair by pair."""
    rows = []
    for cell in report.matrix:
        assert cell.corrected is not None
        assert cell.corrected_difference is not None
        d = cell.corrected_difference
        pairs = [
            f"{cell.estimates[m].value:.3f} / {cell.corrected[m].value:.3f}" for m in METRIC_NAMES
        ]
        change = f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
        rows.append((cell.query, cell.gallery, change, *pairs))
    names = [f"{name} without / with" for name in METRIC_NAMES.values()]
    print_table(["query", "gallery", "change of R@1 [95 %]", *names], rows, "with hub correction")


def _print_widths(report: Report) -> None:
    """R@1 with shorter vectors, and where the criterion holds with them."""
    rows = []
    for cell in report.matrix:
        figures = []
        for p in cell.prefixes or ():
            e, d = p.estimates["recall_at_1"], p.difference
            figures += [f"{e.value:.3f}", f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"]
        rows.append(
            (cell.query, cell.gallery, *figures, f"{cell.estimates['recall_at_1'].value:.3f}")
        )
    columns = [c for width in report.widths for c in (f"first {width}", "less full [95 %]")]
    print_table(["query", "gallery", *columns, "full"], rows, "R@1 by width")
    print_table(
        ["query → gallery", "against", "width", "difference of R@1 [95 %]", "holds"],
        [
            (
                f"{c.query} → {c.gallery}",
                f"{c.reference} → {c.reference}",
                p.width,
                f"{p.difference.value:+.3f} [{p.difference.low:+.3f}, {p.difference.high:+.3f}]",
                ("yes" if p.holds else "NO") + (" (decides)" if c.decides else ""),
            )
            for c in report.criteria
            for p in c.prefixes or ()
        ],
        "criterion by width",
    )
