"""`samespace verify`: the report, the gate and the certificates."""

from __future__ import annotations

from pathlib import Path

import click

from samespace._dataset import Dataset
from samespace.cli import EXIT_NO
from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace.verification import (
    Estimate,
    Report,
    UpgradeSection,
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
@click.option("--paragon", help="New cloud bundle trained alone: what an upgrade's costs.")
@click.option(
    "--threshold", type=float, help="Your own score threshold; by default each is at FAR 1 %."
)
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
    paragon: str | None,
    threshold: float | None,
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
    A newer cloud model of the same space has to find more in the old one's gallery than the old
    one does; name every query model to see what becomes of its searches:
      samespace verify --query new.bundle --query old.bundle --query edge.bundle \\
        --gallery old.bundle --gallery new.bundle --data shop/manifest.csv --out report --gate
    A gallery admits the very file that was verified. For what a phone runs:
      samespace verify --query edge.bundle#coreml-fp16@mil-interpreter \\
        --gallery cloud.bundle --data shop/manifest.csv --out report
    """
    data = Dataset.open(dataset)
    queries, galleries = [_opened(q) for q in query], [_opened(g) for g in gallery]
    alone, best = (_opened(b) if b else None for b in (baseline, paragon))
    with progress_bar() as progress:
        report = verify(
            queries,
            galleries,
            data,
            baseline=alone,
            paragon=best,
            threshold=threshold,
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
                _signed(c.difference),
                ("yes" if c.holds else "NO") + (" (decides)" if c.decides else ""),
                f"{c.gap.value:+.3f}",
                f"1/{c.cost_ratio:.1f}",
            )
            for c in report.criteria
        ],
        "criterion",
    )
    for upgrade in report.upgrades or ():
        _print_upgrade(upgrade)
    for note in report.notes:
        click.echo(note)
    click.echo(verdict(report))


def _print_upgrade(upgrade: UpgradeSection) -> None:
    """What every query model meets, and what backfill is worth."""
    print_table(
        ["query", "R@1 before", "after", "difference [95 %]", "NFR", "relative", "turned right"],
        [
            (
                c.query,
                f"{c.before:.3f}",
                f"{c.after:.3f}",
                _signed(c.difference),
                f"{c.negative_rate:.2%} ({len(c.negative)})",
                "–" if c.relative_negative_rate is None else f"{c.relative_negative_rate:.0%}",
                f"{c.positive_rate:.2%} ({len(c.positive)})",
            )
            for c in upgrade.changes
        ],
        f"in a gallery of {upgrade.new} instead of {upgrade.old}",
    )
    print_table(
        ["query → gallery", "threshold", "FAR", "TAR", "for the old FAR", "TAR there"],
        [
            (
                f"{a.query} → {a.gallery}",
                f"{upgrade.threshold:.3f}",
                f"{a.far:.2%}",
                f"{a.tar:.2%}",
                f"{a.restoring:.3f}",
                f"{a.restored_tar:.2%}",
            )
            for a in upgrade.acceptances
        ],
        f"at the threshold of {upgrade.old}",
    )
    print_table(
        ["query", "order", *(f"{s:.0%}" for s in upgrade.curves[0].shares), "area", "less random"],
        [
            (
                c.query,
                c.order,
                *(f"{r:.3f}" for r in c.recall_at_1),
                f"{c.area.value:.3f}",
                "–" if c.over_random is None else _signed(c.over_random),
            )
            for c in upgrade.curves
        ],
        f"R@1 by the share of the items that {upgrade.new} has embedded",
    )


def _signed(e: Estimate) -> str:
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


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
        rows.append((cell.query, cell.gallery, _signed(d), *pairs))
    names = [f"{name} without / with" for name in METRIC_NAMES.values()]
    print_table(["query", "gallery", "change of R@1 [95 %]", *names], rows, "with hub correction")


def _print_widths(report: Report) -> None:
    """R@1 with shorter vectors, and where the criterion holds with them."""
    rows = []
    for cell in report.matrix:
        figures = []
        for p in cell.prefixes or ():
            e, d = p.estimates["recall_at_1"], p.difference
            figures += [f"{e.value:.3f}", _signed(d)]
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
                _signed(p.difference),
                ("yes" if p.holds else "NO") + (" (decides)" if c.decides else ""),
            )
            for c in report.criteria
            for p in c.prefixes or ()
        ],
        "criterion by width",
    )
