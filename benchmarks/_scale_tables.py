"""Tables of docs/scale.md and docs/operations.md."""

from __future__ import annotations

from typing import Any

from benchmarks._markdown import markdown
from benchmarks.capacity import ID_BYTES, PAYLOAD_BYTES
from samespace.capacity import measured_rates, plan_capacity

Result = dict[str, Any]

_WHAT = {
    "index": "index {pictures:,} JPEGs",
    "upgrade": "the same pictures, embedded again for an upgrade",
    "again": "index once more, nothing to do",
}
_HOW = {
    ("here", 0): "in the process itself",
    ("pool", 1): "1 process",
    ("pool", 2): "2 processes",
    ("ray", 2): "Ray, 2 actors",
}
_SIZES = ((1e6, 1), (10e6, 1), (50e6, 1), (50e6, 16), (200e6, 64))


def indexing_table(result: Result) -> str:
    """Every way of bringing pictures into a gallery."""
    lines = []
    for r in result["rows"]:
        around = r["around_seconds"]
        work = r["what"] != "again"
        lines.append(
            [
                _WHAT[r["what"]].format(**r),
                _HOW[r["how"], r["workers"]],
                f"{r['seconds']:.1f}",
                f"{r['rate']:.0f} ({r['rate_low']:.0f} to {r['rate_high']:.0f})" if work else "–",
                "–" if around is None else f"{around:.1f}",
            ]
        )
    header = ["what", "how", "s", "pictures a second (of all rounds)", "to start and end, s"]
    return markdown(header, lines) + "\n\n" + " ".join(result["notes"])


def capacity_table(result: Result) -> str:
    """What is planned beside what was measured."""
    lines = []
    for r in result["rows"]:
        plan = plan_capacity(r["items"], 128, id_bytes=ID_BYTES, payload_bytes=PAYLOAD_BYTES)
        need = next(need for need in plan.needs if need.where == r["store"])
        memory = f"{1024 * need.memory_gib:,.0f} / {r['memory_mib']:,.0f}"
        if r["peak_memory_mib"] is not None:
            memory += f", largest {r['peak_memory_mib']:,.0f}"
        lines.append(
            [
                r["store"],
                f"{r['items']:,}",
                memory,
                f"{1024 * need.disk_gib:,.0f} / {r['disk_mib']:,.0f}",
                f"{1024 * need.upgrade_disk_gib:,.0f} / {_or_dash(r['upgrade_disk_mib'])}",
                _or_dash(r["write_rate"]),
                _or_dash(r["backfill_rate"]),
            ]
        )
    header = [
        "store",
        "items",
        "memory, MiB: planned / measured",
        "disk, MiB",
        "disk while upgraded, MiB",
        "added a second",
        "backfilled a second",
    ]
    return markdown(header, lines) + "\n\n" + " ".join(result["notes"])


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def sizing_table() -> str:
    """What `samespace plan capacity` answers."""
    lines = []
    for items, workers in _SIZES:
        plan = plan_capacity(int(items), 128, workers=workers)
        for need in plan.needs:
            hours = "not measured" if need.backfill_hours is None else f"{need.backfill_hours:,.0f}"
            lines.append(
                [
                    f"{items / 1e6:,.0f} million",
                    need.where,
                    f"{need.memory_gib:,.1f}",
                    f"{need.disk_gib:,.0f}",
                    f"{need.upgrade_disk_gib:,.0f}",
                    str(need.shards) if need.fits else "does not fit",
                    f"{workers}",
                    hours,
                ]
            )
    header = [
        "items",
        "store",
        "memory, GiB",
        "disk, GiB",
        "disk while upgraded, GiB",
        "shards, one a machine",
        "processes that embed",
        "backfill, hours",
    ]
    rates = "; ".join(
        f"{name} {r.value:,.0f} a second ({r.what}; {r.source})"
        for name, r in measured_rates().items()
    )
    return (
        markdown(header, lines)
        + "\n\n`samespace plan capacity --items N --dim 128 --workers W`: machines of 16 GiB, ids "
        f"of 24 bytes, payloads of 100. Its rates: {rates}."
    )
