"""A parity report as Markdown and as HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samespace.verification._parity_report import LEGEND, ParityReport
from samespace.verification._templates import template


def parity_verdict(report: ParityReport) -> str:
    """The report in one sentence."""
    ran = [row for row in report.rows if row.figures]
    failed = [f"{row.variant} in {row.runtime}" for row in ran if row.status == "fail"]
    rest = f"; {len(report.rows) - len(ran)} could not be run here"
    if not ran:
        return "Nothing could be run here."
    if failed:
        return f"NOT at parity: {', '.join(failed)} of {len(ran)} that ran{rest}."
    return f"At parity: all {len(ran)} that ran hold their floors{rest}."


def write_parity(report: ParityReport, folder: str | Path) -> None:
    """Write `parity.json`, `parity.md` and `parity.html` into a folder."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    context: dict[str, Any] = {
        "report": report,
        "verdict": parity_verdict(report),
        "legend": list(LEGEND.items()),
    }
    for name, autoescape in (("parity.md", False), ("parity.html", True)):
        text = template(f"{name}.j2", autoescape).render(**context)
        (out / name).write_text(text, encoding="utf-8")
    report.write(out / "parity.json")
