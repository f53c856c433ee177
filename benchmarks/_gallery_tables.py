"""Tables of a gallery's own cost: opening it, and upgrading it."""

from __future__ import annotations

from typing import Any

from benchmarks._markdown import markdown, where

Result = dict[str, Any]


def open_table(result: Result) -> str:
    """Opening and answering, by size."""
    rows = [
        [
            f"{r['items']:,}",
            f"{r['open_ms']:,.0f}",
            f"{r['first_query_ms']:,.0f}",
            f"{r['second_query_ms']:.1f}",
            f"{r['peak_mib'] - r['start_mib']:,.0f}",
            f"{r['disk_mib']:,.0f}",
            f"{r['add_seconds']:.1f}",
        ]
        for r in result["rows"]
    ]
    header = [
        "items",
        "open, ms",
        "first query, ms",
        "next query, ms",
        "memory, MiB",
        "disk, MiB",
        "add all and index, s",
    ]
    return markdown(header, rows) + where(result)


def upgrade_scale_table(result: Result) -> str:
    """Plan, backfill, rollback and a search half way, by size."""
    lines = [
        [
            f"{r['items']:,}",
            f"{r['plan_s']:.1f}",
            f"{r['backfill_rate']:,.0f}",
            f"{r['rollback_s']:.1f}",
            f"{r['mixed_ms']:.3f}",
            f"{r['single_ms']:.3f}",
            f"{r['ratio']:.2f}",
            f"{r['recall']:.3f}",
            f"{r['start_mib']:,.0f} to {r['peak_mib']:,.0f}",
            f"{r['disk_before_mib']:,.0f} to {r['disk_half_mib']:,.0f}",
        ]
        for r in result["rows"]
    ]
    header = [
        "items",
        "plan, s",
        "backfilled a second",
        "roll half back, s",
        "query half way, ms",
        "one version, ms",
        "ratio",
        "recall@10",
        "memory, MiB",
        "disk, MiB",
    ]
    return markdown(header, lines) + "\n\n" + " ".join(result["notes"]) + where(result)
