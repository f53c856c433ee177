"""The table of how often intervals cover the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._markdown import markdown, where


def intervals_table(result: Mapping[str, Any]) -> str:
    """Cover and false passes by the number of labels: mean over the populations, and the worst."""
    lines = []
    worst = min(result["rows"], key=lambda r: float(r["cover"]))
    for labels in dict.fromkeys(r["labels"] for r in result["rows"]):
        rows = [r for r in result["rows"] if r["labels"] == labels]
        lines.append(
            [
                str(labels),
                *_cells(rows, "cover", min),
                *_cells(rows, "false_passes", max),
                *_cells(rows, "cover_bootstrap", min),
                *_cells(rows, "false_passes_bootstrap", max),
            ]
        )
    header = ["labels", "cover", "worst", "false passes", "worst"]
    header += ["cover, bootstrap", "worst", "false passes, bootstrap", "worst"]
    said = (
        f"The least cover, {100 * worst['cover']:.1f} %, is that of {worst['labels']} labels with "
        f"an accuracy of {worst['accuracy']}, a correlation of {worst['correlation']} and "
        f"{worst['queries']} queries a label: there, test sets without a hard label are common."
    )
    return " ".join([markdown(header, lines) + "\n\n" + said, *result["notes"]]) + where(result)


def _cells(rows: Sequence[Mapping[str, Any]], name: str, worst: Any) -> tuple[str, str]:
    values = [r[name] for r in rows if r[name] is not None]
    if not values:
        return "–", "–"
    return f"{100 * sum(values) / len(values):.1f} %", f"{100 * worst(values):.1f} %"
