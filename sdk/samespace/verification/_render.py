"""A report as HTML and as Markdown, made from its JSON and, for the pictures, the dataset."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from samespace._dataset import Dataset
from samespace.metrics import LEAST_LABELS
from samespace.verification._criteria import LEAST_QUERIES
from samespace.verification._matrix import UPGRADE, Criterion
from samespace.verification._plots import backfill_plot, cost_plot, matrix_plot, score_plot
from samespace.verification._report import METRIC_NAMES, METRICS, Report
from samespace.verification._templates import template
from samespace.verification._upgrade_render import losers_sentence, upgrade_context
from samespace_edge import DataError, ImageError
from samespace_edge._image import decode_image

_THUMBNAIL = 72


def to_markdown(report: Report) -> str:
    """The report as Markdown, without pictures."""
    return str(template("report.md.j2", autoescape=False).render(**_context(report)))


def to_html(report: Report, dataset: Dataset | None = None) -> str:
    """The report as one HTML file that needs nothing beside it.

    Args:
        dataset: where the example pictures are taken from; without it their paths are shown.
    """
    name = upgrade_context(report)["thresholds"]["plot"]
    plots = {
        "matrix": _data_url(matrix_plot(report), "png"),
        "cost": _data_url(cost_plot(report), "png"),
        "scores": [_data_url(score_plot(t, name), "png") for t in report.thresholds],
        "backfill": [_data_url(backfill_plot(u), "png") for u in report.upgrades or ()],
    }
    page = template("report.html.j2", autoescape=True)
    thumbnails = _thumbnails(report, dataset)
    return str(page.render(**_context(report), plots=plots, thumbnails=thumbnails))


def write_report(report: Report, folder: str | Path, dataset: Dataset | None = None) -> None:
    """Write `report.json`, `report.html` and `report.md` into a folder."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(to_html(report, dataset), encoding="utf-8")
    (out / "report.md").write_text(to_markdown(report), encoding="utf-8")
    # Last and in one step: where it is, all three are.
    report.write(out / ".report.json")
    (out / ".report.json").replace(out / "report.json")


def verdict(report: Report) -> str:
    """The report in one sentence."""
    deciding = [c for c in report.criteria if c.decides]
    lost = [s for u in report.upgrades or () if (s := losers_sentence(u))]
    passed, failed = ([c for c in deciding if c.holds is held] for held in (True, False))
    if not deciding and report.upgrades:
        first = "No query model here has a claim to judge, so nothing is certified."
    elif not deciding:
        first = "No two of these models claim the same embedding space, so nothing is certified."
    elif too_few := _too_few(report):
        first = too_few
    elif failed:
        first = (
            f"NOT compatible: {'; '.join(criterion_sentence(c) for c in failed)}{_over(report)}."
        )
    else:
        first = f"Compatible: {'; '.join(criterion_sentence(c) for c in passed)}{_over(report)}."
    return " ".join([first, *lost])


def _over(report: Report) -> str:
    return f" ({report.dataset['queries']} queries of {report.dataset['labels']} labels)"


def _too_few(report: Report) -> str:
    """The sentence for a test set that is too small for a verdict; empty for others."""
    queries, labels = int(report.dataset["queries"]), int(report.dataset["labels"])
    if queries >= LEAST_QUERIES and labels >= LEAST_LABELS:
        return ""
    return (
        f"No verdict: {queries} queries of {labels} labels are too few. A verdict needs at least "
        f"{LEAST_QUERIES} queries of {LEAST_LABELS} labels."
    )


def criterion_sentence(criterion: Criterion) -> str:
    """A criterion in words."""
    c = criterion
    relation = "is above" if c.holds else "is not above"
    kind = "as an upgrade, " if c.rule == UPGRADE else ""
    return (
        f"{kind}M({c.query}, {c.gallery}) = {c.value:.3f} {relation} "
        f"M({c.reference}, {c.reference}) = {c.reference_value:.3f} beyond the interval of the "
        f"difference [{c.difference.low:+.3f}, {c.difference.high:+.3f}]"
    )


def bank_sentence(report: Report) -> str:
    """What the hub correction of a report is; empty where there is none."""
    if (b := report.bank) is None:
        return ""
    return (
        f"From every score, {b.weight:g} times the mean of the gallery picture's {b.k} largest "
        f"cosines with {b.pictures} pictures of {b.name} (sha256 {b.sha256[:12]}…), embedded by "
        "the query model, is subtracted. The criterion and the certificates go by the figures "
        "without it."
    )


_WIDTHS = (
    "Query and gallery vectors are cut to their first numbers and made unit again. The verdict "
    "goes by the full width; a certificate also lists the widths at which its criterion holds "
    "against the reference cut to the same width."
)


_CRITERION = (
    "For a device: is searching the cloud's gallery better than having the small model on both "
    "sides? For an upgrade: does the new cloud model find more in the old one's gallery than the "
    "old one does? Gap and gain are towards the gallery model on both sides, of an upgrade towards "
    "the new model on both sides."
)


def _context(report: Report) -> dict[str, Any]:
    return {
        "report": report,
        "verdict": verdict(report),
        "metrics": [(m, METRIC_NAMES[m]) for m in METRICS],
        "bank": bank_sentence(report),
        "widths": _WIDTHS,
        "criterion": _CRITERION,
        **upgrade_context(report),
        "cards": [(m.label, dict(m.card)) for m in report.models if m.card],
    }


def _thumbnails(report: Report, dataset: Dataset | None) -> Mapping[str, str]:
    if dataset is None:
        return {}
    items = {item.path: item for item in (*dataset.queries, *dataset.gallery)}
    wanted = {e.path for e in report.examples}
    wanted |= {path for e in report.examples for hits in e.hits.values() for path, _ in hits}
    found = {}
    for path in sorted(wanted & set(items)):
        try:
            image = decode_image(dataset.read(items[path]))
        except (DataError, ImageError):
            continue  # gone since it was measured: its path is shown instead
        image.thumbnail((_THUMBNAIL * 2, _THUMBNAIL * 2), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=80)
        found[path] = _data_url(buffer.getvalue(), "jpeg")
    return found


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
