"""A comparison in words, as Markdown and as HTML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from samespace.regressions._gate import Gate
from samespace.regressions._pictures import Pictures
from samespace.regressions._report import Calibration, RegressionReport
from samespace.verification import Estimate
from samespace.verification._templates import template as verification_template

LIMIT = 60
"""How many flips a page shows unless told otherwise."""

_GROUPS = 20


def verdict(report: RegressionReport) -> str:
    """The report in two sentences."""
    rate, change = report.negative_rate, report.error_difference
    return (
        f"Of {report.pictures:,} pictures {len(report.negative):,} turned wrong (NFR "
        f"{100 * rate.value:.2f} %, interval {100 * rate.low:.2f} to {100 * rate.high:.2f} %) and "
        f"{len(report.positive):,} turned right. The error goes from "
        f"{100 * report.error_old:.2f} % to {100 * report.error_new:.2f} %, "
        f"{100 * change.value:+.2f} points [{100 * change.low:+.2f}, {100 * change.high:+.2f}]."
    )


def figures(report: RegressionReport) -> list[tuple[str, str, str]]:
    """Name, value and interval of every figure of the whole, as texts."""
    r = report
    rows = [
        ("error, old", _percent(r.error_old), ""),
        ("error, new", _percent(r.error_new), ""),
        ("error, new less old", _points(r.error_difference.value), _points_ci(r.error_difference)),
        ("NFR: turned wrong", _percent(r.negative_rate.value), _percent_ci(r.negative_rate)),
        *_relative(r.relative_negative_rate),
        ("NFI: turned wrong, of the new model's errors", _percent(r.negative_impact), ""),
        ("PFR: turned right", _percent(r.positive_rate), ""),
        ("PFI: turned right, of what the new model has right", _percent(r.positive_impact), ""),
        ("McNemar's p, exact", f"{r.mcnemar_p:.2g}", ""),
    ]
    for name, digits in (("ece", "ECE, 15 bins"), ("brier", "Brier score"), ("nll", "NLL, nats")):
        for when, c in (("old", r.calibration_old), ("new", r.calibration_new)):
            if (value := _of(c, name)) is not None:
                rows.append((f"{digits}, {when}", f"{value:.4f}", ""))
    return rows


def to_markdown(report: RegressionReport, gate: Gate | None = None, limit: int = LIMIT) -> str:
    """The report as Markdown, with at most `limit` flips and no pictures."""
    return str(_template("regressions.md.j2", False).render(**_context(report, gate, limit)))


def to_html(
    report: RegressionReport,
    pictures: Pictures | None = None,
    gate: Gate | None = None,
    limit: int = LIMIT,
) -> str:
    """The report as one HTML file that needs nothing beside it.

    Args:
        pictures: where those of the flips are taken from; without them their ids are shown.
        gate: what it was held against.
        limit: how many negative flips are shown, where the wrong answer was surest.

    Pictures that cannot be read are listed with the reason.
    """
    context = _context(report, gate, limit)
    thumbnails: dict[str, str] = {}
    missing: dict[str, str] = {}
    if pictures is not None:
        thumbnails, missing = pictures.thumbnails(flip.id for flip in context["shown"])
    page = _template("regressions.html.j2", True)
    return str(page.render(**context, thumbnails=thumbnails, missing=missing))


def write_report(
    report: RegressionReport,
    folder: str | Path,
    pictures: Pictures | None = None,
    gate: Gate | None = None,
    limit: int = LIMIT,
) -> None:
    """Write `regressions.json`, `regressions.html` and `regressions.md` into a folder."""
    out = Path(folder)
    text = json.dumps(report_json(report, gate), indent=1, ensure_ascii=False, allow_nan=False)
    texts = {
        "regressions.html": to_html(report, pictures, gate, limit),
        "regressions.md": to_markdown(report, gate, limit),
        ".regressions.json": text + "\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in texts.items():
        # A file's name may hold bytes that are no text.
        (out / name).write_bytes(content.encode("utf-8", "backslashreplace"))
    # Last and in one step: where it is, all three are.
    (out / ".regressions.json").replace(out / "regressions.json")


def report_json(report: RegressionReport, gate: Gate | None) -> dict[str, Any]:
    """The report's JSON, with what it was held against."""
    return {**report.to_json(), **({} if gate is None else {"gate": gate.to_json()})}


def _context(report: RegressionReport, gate: Gate | None, limit: int) -> dict[str, Any]:
    tables = [("class", report.by_class), *report.by_column.items()]
    return {
        "report": report,
        "verdict": verdict(report),
        "figures": figures(report),
        "gate": gate,
        "shown": report.negative[:limit],
        "left_out": max(0, len(report.negative) - limit),
        "tables": [
            (name, groups[:_GROUPS], max(0, len(groups) - _GROUPS)) for name, groups in tables
        ],
    }


def _template(name: str, autoescape: bool) -> Any:
    """A template of this package, with the style and the figures of verification's."""
    import jinja2

    shared = verification_template("style.css", autoescape).environment
    own = jinja2.PackageLoader("samespace.regressions", "templates")
    return shared.overlay(loader=jinja2.ChoiceLoader([own, shared.loader])).get_template(name)


def _relative(estimate: Estimate | None) -> list[tuple[str, str, str]]:
    name = "relative NFR: over that of independent errors"
    if estimate is None:
        return [(name, "–", "")]
    return [(name, f"{estimate.value:.3f}", f"[{estimate.low:.3f}, {estimate.high:.3f}]")]


def _of(calibration: Calibration | None, name: str) -> float | None:
    return None if calibration is None else getattr(calibration, name)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _percent_ci(e: Estimate) -> str:
    return f"[{100 * e.low:.2f}, {100 * e.high:.2f}]"


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f} points"


def _points_ci(e: Estimate) -> str:
    return f"[{100 * e.low:+.2f}, {100 * e.high:+.2f}]"
