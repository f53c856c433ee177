"""The tables of upgrades, made from `results/upgrades.json` and `results/upgrade_chain.json`."""

from __future__ import annotations

from typing import Any

from benchmarks._markdown import markdown
from benchmarks.study._tables import in_points

Result = dict[str, Any]
Row = dict[str, Any]

_ADAPTED = ("backward", "forward", "forward with side information")


def upgrades_table(result: Result) -> str:
    """By task: what new queries find in the old gallery, by how the new model was trained."""
    rows = [r for r in result["rows"] if not r["method"].endswith(_ADAPTED)]
    return _by_task(rows)


def lifting_table(result: Result) -> str:
    """By task: the same with adapters, with and without side information."""
    return _by_task([r for r in result["rows"] if r["method"].endswith(_ADAPTED)])


def _by_task(rows: list[Row]) -> str:
    header = [
        "new model",
        "M(new, old)",
        "above M(old, old), points",
        "gain, R@1",
        "gain, mAP",
        "M(new, new)",
        "turn wrong on the first day",
        "once all is embedded again",
        "seeds",
    ]
    parts = []
    for task in dict.fromkeys(r["task"] for r in rows):
        there = [r for r in rows if r["task"] == task]
        lines = [
            [
                r["method"],
                f"{r['new_old']:.3f}",
                in_points(r["above"], r["above_ci"]),
                f"{r['gain']:.2f}",
                f"{r['gain_map']:.2f}",
                f"{r['new_new']:.3f}",
                f"{100 * r['negative_flips']:.1f} %",
                f"{100 * r['backfilled_flips']:.1f} %",
                str(r["seeds"]),
            ]
            for r in there
        ]
        most = max(there, key=lambda r: r["seeds"])
        told = (
            f"**{task}**: M(old, old) {most['old_old']:.3f}, paragon {most['paragon']:.3f}; a full "
            f"re-index with the independent model turns {100 * most['reindex_flips']:.1f} % wrong"
        )
        parts.append(f"{told}\n\n{markdown(header, lines)}")
    return "\n\n".join(parts)


def chain_table(result: Result) -> str:
    """R@1 of every version in its own gallery and in those of all before it."""
    rows = result["rows"]
    lines = [
        [
            r["task"],
            f"version {r['query']}",
            f"version {r['gallery']}",
            f"{r['recall_at_1']:.3f}",
            in_points(r["above"], r["above_ci"]),
            str(r["seeds"]),
        ]
        for r in rows
    ]
    header = ["task", "queries by", "gallery of", "R@1", "above the gallery's own, points", "seeds"]
    return markdown(header, lines)
