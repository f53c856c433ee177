"""The report's plots, as PNG bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from samespace.verification._report import Report, Threshold
from samespace.verification._upgrade import UpgradeSection

_DPI = 110
_SAME, _DIFFERENT = "#1b7f5c", "#b9bfc9"
_LINES = ("#1d2430", "#1b7f5c", "#d98014", "#3566b8", "#a3478f", "#7a6a55", "#5b9aa0")


def matrix_plot(report: Report) -> bytes:
    """Heat map of R@1: query models down, gallery models across."""
    labels = [m.label for m in report.models]
    values = np.full((len(labels), len(labels)), np.nan)
    for cell in report.matrix:
        row, column = labels.index(cell.query), labels.index(cell.gallery)
        values[row, column] = cell.estimates["recall_at_1"].value
    figure, axes = _figure(2.2 + 1.0 * len(labels), 1.4 + 0.62 * len(labels))
    top = max(0.01, float(np.nanmax(values)))
    axes.imshow(values, cmap="YlGn", vmin=0, vmax=top * 1.25, aspect="auto")
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=11)
    axes.set_xticks(range(len(labels)), labels, rotation=20, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("gallery embedded by")
    axes.set_ylabel("query embedded by")
    axes.set_title("R@1")
    return _png(figure)


def cost_plot(report: Report) -> bytes:
    """R@1 against the query model's cost, for every pair with a gallery model."""
    figure, axes = _figure(6.4, 3.8)
    galleries = [m.label for m in report.models if "gallery" in m.declared]
    for cell in report.matrix:
        if not cell.homogeneous and cell.gallery not in galleries:
            continue
        estimate = cell.estimates["recall_at_1"]
        x = report.model(cell.query).macs / 1e6
        colour = "#444b57" if cell.homogeneous else _SAME
        error = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        axes.errorbar(
            [x],
            [estimate.value],
            yerr=np.maximum(error, 0),
            marker="s" if cell.homogeneous else "o",
            color=colour,
            capsize=3,
        )
        axes.annotate(
            f"{cell.query} → {cell.gallery}",
            (x, estimate.value),
            xytext=(7, 4),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.25)
    axes.set_xlabel("cost of a query, MMACs (log)")
    axes.set_ylabel("R@1")
    axes.set_title("Accuracy against cost (95 % intervals)")
    return _png(figure)


def score_plot(threshold: Threshold, name: str) -> bytes:
    """Histogram of the scores of matching and other pairs, with the threshold called `name`."""
    figure, axes = _figure(6.4, 2.8)
    edges = np.array(threshold.bins)
    centres, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    for counts, colour, label in (
        (threshold.different, _DIFFERENT, "other items"),
        (threshold.same, _SAME, "matching items"),
    ):
        share = np.array(counts) / max(1, sum(counts))
        axes.bar(centres, share, width, color=colour, alpha=0.75, label=label)
    axes.axvline(threshold.threshold, color="#b3261e", lw=1.2, label=name)
    axes.set_xlabel(f"cosine of {threshold.query} queries with {threshold.gallery} items")
    axes.set_ylabel("share of pairs")
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def backfill_plot(upgrade: UpgradeSection) -> bytes:
    """R@1 against the share of the items that the new model has embedded.

    Left the new model's queries, in every order; right every query model's, in the first one.
    """
    figure, left = _figure(9.6, 3.4)
    left.set_subplotspec(figure.add_gridspec(1, 2)[0])
    right = figure.add_subplot(1, 2, 2)
    right.spines[["top", "right"]].set_visible(False)
    first = upgrade.curves[0].order
    for axes, title, curves in (
        (
            left,
            f"queries of {upgrade.new}, by the order of the items",
            [(c.order, c) for c in upgrade.curves if c.query == upgrade.new],
        ),
        (
            right,
            f"every query model, items in {first} order",
            [(c.query, c) for c in upgrade.curves if c.order == first],
        ),
    ):
        for i, (name, curve) in enumerate(curves):
            shares = [100 * s for s in curve.shares]
            colour = _LINES[i % len(_LINES)]
            axes.plot(shares, curve.recall_at_1, "o-", ms=3.5, lw=1.6, color=colour, label=name)
        axes.set_xlabel(f"items embedded by {upgrade.new}, %")
        axes.set_ylabel("R@1")
        axes.set_title(title, fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
