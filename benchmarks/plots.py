"""Draw the docs' plots from the results.

python -m benchmarks.plots            (or: make docs)
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.tables import RESULTS, ROOT

PUBLISHED = (
    ("CMP-NAS, DeepFashion2 (published)", 80.0, 0.3),
    ("CMP-NAS, IJB-C (published)", 23.0, 1.6),
)
"""Cost ratio and gap in points (Duggal et al. 2021, abstract), on other data."""

_COLOURS = ("#1b7f5c", "#2f6db3", "#b3562f")
_MARKS = {"gallery-aware": "o", "inductive": "s"}


def gap_plot(result: dict[str, Any]) -> None:
    """Gap to the paragon against the cost ratio, by task and setting."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.4), dpi=110)
    rows = [r for r in result["rows"] if r["part"] == "ratios" and r["query"] == "edge"]
    for task, colour in zip(dict.fromkeys(r["task"] for r in rows), _COLOURS, strict=False):
        for setting, mark in _MARKS.items():
            found = sorted(
                (r["cost_ratio"], r["gap"])
                for r in rows
                if (r["task"], r["setting"]) == (task, setting)
            )
            if found:
                axes.plot(
                    *zip(*found, strict=True),
                    marker=mark,
                    color=colour,
                    linestyle="-" if setting == "gallery-aware" else ":",
                    label=f"{task}, {setting}",
                )
    for name, ratio, gap in PUBLISHED:
        axes.plot([ratio], [gap], marker="*", markersize=12, color="#444b57", linestyle="")
        axes.annotate(name, (ratio, gap), xytext=(8, 2), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    ticks = [10, 20, 40, 80, 160]
    axes.set_xticks(ticks, [f"{t}x" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(9, 260)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("query cheaper than with the cloud model (MACs)")
    axes.set_ylabel("R@1 below the cloud model, points")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "gap.png", metadata={"Software": None})


def main() -> None:
    gap_plot(json.loads((RESULTS / "compatibility.json").read_text()))


if __name__ == "__main__":
    main()
