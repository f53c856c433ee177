"""Tables of the service under load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks._markdown import markdown, where

Result = dict[str, Any]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _latencies(row: dict[str, Any]) -> list[str]:
    return [_ms(row[f"p{p}_ms"]) for p in (50, 95, 99)]


def _of(result: Result, *parts: str) -> list[dict[str, Any]]:
    return [r for r in result["rows"] if r["part"] in parts]


def latency(result: Result) -> str:
    """Latency by number of clients."""
    rows = [
        [
            r["what"],
            str(r["clients"]),
            *_latencies(r),
            _ms(r["cpu_ms"]),
            f"{r['per_second']:,.0f}",
            f"{r['recall']:.3f}",
            str(r["errors"] + r["refused"]),
        ]
        for r in _of(result, "latency", "milvus")
    ]
    header = ["asked", "clients", "p50, ms", "p95, ms", "p99, ms", "CPU a request, ms"]
    header += ["a second", "R@10", "failed"]
    return markdown(header, rows) + "\n\n" + " ".join(result["notes"]) + where(result)


def limits(result: Result) -> str:
    """What happens up to the limits and past them."""
    rows = [
        [
            r["what"],
            f"{r['asked_per_second']:,.0f}",
            f"{r['per_second']:,.0f}",
            f"{r['refused']:,}",
            str(r["errors"]),
            *_latencies(r),
        ]
        for r in _of(result, "limits")
    ]
    header = ["asked", "asked a second", "answered a second", "429", "other errors"]
    return markdown([*header, "p50, ms", "p95, ms", "p99, ms"], rows)


def soak(result: Result) -> str:
    """Memory, minute by minute."""
    rows = [
        [
            str(r["minute"]),
            f"{r['rss_mib']:.1f}",
            f"{r['requests']:,}",
            str(r["errors"] + r["refused"]),
            *_latencies(r),
        ]
        for r in _of(result, "soak")
    ]
    header = ["minute", "memory, MiB", "searches", "failed", "p50, ms", "p95, ms", "p99, ms"]
    return markdown(header, rows)


SERVICE: dict[str, Callable[[Result], str]] = {
    "service_latency": latency,
    "service_limits": limits,
    "service_soak": soak,
}
