"""Tables of what depends on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._markdown import markdown, where

Result = Mapping[str, Any]


def int8_table(result: Result) -> str:
    """Whether int8 files compute alike everywhere."""
    lines = [
        [
            r["model"],
            r["scales"],
            r["processor"],
            f"{r['error']:.4f}",
            f"{r['worst']:.3f}",
            f"{100 * r['same_first_hit']:.1f} %",
            "–" if r["p50_ms"] is None else f"{r['p50_ms']:.2f}",
            "–" if r["to_fp32"] is None else f"{r['to_fp32']:.2f}x",
        ]
        for r in result["rows"]
    ]
    header = [
        "model",
        "scales",
        "processor",
        "mean error",
        "worst",
        "same first hit",
        "ms",
        "time to fp32",
    ]
    return " ".join([markdown(header, lines) + "\n\n", *result["notes"]]) + where(result)


def demo_time_table(result: Result) -> str:
    """Every stage of the quick start, alone and next to a busy process, by processor."""
    parts = []
    for processor in dict.fromkeys(r["processor"] for r in result["rows"]):
        found = {(r["stage"], r["busy"]): r for r in result["rows"] if r["processor"] == processor}
        lines = []
        for stage in dict.fromkeys(stage for stage, _ in found):
            alone, beside = found.get((stage, 0)), found.get((stage, 1))
            cells = [f"**{stage}**" if stage == "total" else stage]
            for row in (alone, beside):
                cells.append(f"{row['seconds']:.0f}" if row else "–")
                has_rate = row is not None and row["gmacs_per_second"] is not None
                cells.append(
                    f"{row['gmacs_per_second']:.1f} ({row['raw']:.1f})" if has_rate else ""
                )
            slower = beside["seconds"] / alone["seconds"] if alone and beside else None
            cells.append(f"{slower:.1f}x" if slower else "–")
            lines.append(cells)
        header = ["stage", "s", "GMAC/s (bare)", "busy: s", "GMAC/s (bare)", "of alone"]
        parts.append(f"**{processor}**\n\n{markdown(header, lines)}")
    return "\n\n".join(parts) + "\n\n" + " ".join(result["notes"]) + where(result)
