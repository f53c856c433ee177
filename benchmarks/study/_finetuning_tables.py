"""The tables of fine-tuning, made from `results/finetuning.json`."""

from __future__ import annotations

import re
from typing import Any

from benchmarks._markdown import markdown
from benchmarks.study._tables import in_points

Result = dict[str, Any]
Row = dict[str, Any]

_BASE = "fine-tuning"
_DECAY = re.compile(r", weight_decay [^,]+")
_HEADER = [
    "method",
    "accuracy",
    "95 % interval",
    "above fine-tuning, points",
    "NFR between seeds",
    "of fine-tuning's",
    "seeds",
]


def finetuning_table(result: Result) -> str:
    """By start, shots and data set: each method beside fine-tuning; means of data sets last."""
    rows = [r for r in result["rows"] if r["part"] == "main"]
    parts = []
    for network, start in dict.fromkeys((r["network"], r["start"]) for r in rows):
        of_start = [r for r in rows if (r["network"], r["start"]) == (network, start)]
        # All pictures, 0, come first; then from the fewest on.
        for shots in sorted({r["shots"] for r in of_start}):
            there = [r for r in of_start if r["shots"] == shots]
            lines = [[r["data"], *_line(r)] for r in there]
            told = f"**{_amount(shots)}**, {network}, from {_started(start)}"
            parts.append(f"{told}\n\n{markdown(['data', *_HEADER], lines)}")
    return "\n\n".join(parts)


def linear_cost_table(result: Result) -> str:
    """Time and memory of one training by each method."""
    rows = [r for r in result["rows"] if r["part"] == "cost"]
    lines = [
        [
            r["data"],
            _amount(r["shots"]),
            r["method"],
            f"{r['seconds']:.0f}",
            f"{r['peak_mib']:,.0f}",
        ]
        for r in rows
    ]
    return markdown(["data", "pictures", "method", "seconds", "peak MiB"], lines)


def linear_ablation_table(result: Result) -> str:
    """By shots: LQF without each of its changes."""
    rows = [r for r in result["rows"] if r["part"] == "ablation"]
    parts = []
    for data, shots in dict.fromkeys((r["data"], r["shots"]) for r in rows):
        there = [r for r in rows if (r["data"], r["shots"]) == (data, shots)]
        told = f"**{data}, {_amount(shots)}**"
        parts.append(f"{told}\n\n{markdown(_HEADER, [_line(r) for r in there])}")
    return "\n\n".join(parts)


def finetuning_settings_table(result: Result) -> str:
    """What the validation pictures chose, and of how many."""
    lines = []
    tried = [r for r in result["rows"] if r["part"] == "settings"]
    for place in dict.fromkeys(_place(r) for r in tried):
        there = [r for r in tried if _place(r) == place]
        best = max(there, key=lambda r: r["validation"])
        network, start, data, shots, method = place
        lines.append(
            [
                f"{network}, {_started(start)}",
                data,
                _amount(shots),
                method,
                str(len(there)),
                best["settings"],
                _percent(best["validation"]),
            ]
        )
    header = ["from", "data", "pictures", "method", "tried", "best", "validation accuracy"]
    return markdown(header, lines)


def full_tries_table(result: Result) -> str:
    """What was tried for LQF with all pictures, with the best weight decay of each, beside the best
    of fine-tuning."""
    tried = [r for r in result["rows"] if (r["part"], r["shots"]) == ("settings", 0)]
    lines = []
    for data, start in dict.fromkeys((r["data"], r["start"]) for r in tried):
        best = dict[tuple[str, str], Row]()
        for row in (r for r in tried if (r["data"], r["start"]) == (data, start)):
            apart = _DECAY.sub("", row["settings"]) if row["method"] == "LQF" else ""
            place = row["method"], apart
            if place not in best or row["validation"] > best[place]["validation"]:
                best[place] = row
        lines += [
            [data, _started(start), method, row["settings"], _percent(row["validation"])]
            for (method, _), row in best.items()
            if method in (_BASE, "LQF")
        ]
    return markdown(["data", "from", "method", "settings", "validation accuracy"], lines)


def _place(row: Row) -> tuple[str, str, str, int, str]:
    return row["network"], row["start"], row["data"], row["shots"], row["method"]


def _line(row: Row) -> list[str]:
    low, high = row["accuracy_ci"]
    spread = "" if row["accuracy_spread"] is None else f" ± {100 * row['accuracy_spread']:.1f}"
    base = row["method"] == _BASE
    ratio = row["nfr_ratio"]
    return [
        row["method"],
        _percent(row["accuracy"]) + spread,
        f"[{100 * low:.1f}, {100 * high:.1f}]",
        "–" if base else in_points(row["above"], row["above_ci"]),
        "–" if row["nfr"] is None else f"{100 * row['nfr']:.2f} %",
        "–" if base or ratio is None else f"{ratio:.2f}",
        str(row["seeds"]),
    ]


def _amount(shots: int) -> str:
    return {0: "all pictures", 1: "1 picture a class"}.get(shots, f"{shots} pictures a class")


def _started(start: str) -> str:
    return "ImageNet's weights" if start == "ImageNet" else start


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
