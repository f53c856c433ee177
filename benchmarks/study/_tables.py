"""The study's tables, made from `results/compatibility.json` and `results/search.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks._markdown import markdown

Result = dict[str, Any]
Row = dict[str, Any]


def _tasks(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(r["task"] for r in rows))


def _recall(row: Row) -> str:
    spread = f" ± {row['spread']:.3f}" if row.get("spread") and row["seeds"] > 1 else ""
    return f"{row['recall_at_1']:.3f}{spread}"


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def _interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return "–"
    holds = "**" if interval[0] > 0 else ""
    low, high = (f"{100 * x:+.1f}" for x in interval)
    return f"{holds}{100 * value:+.1f}{holds} [{low}, {high}]"


def ratios_table(result: Result) -> str:
    """By task: the paragon, and at every ratio the edge model alone and taught."""
    parts = []
    for task in _tasks(result["rows"]):
        rows = [
            r for r in result["rows"] if r["task"] == task and r["part"] in ("paragon", "ratios")
        ]
        rows.sort(key=lambda r: (round(r["cost_ratio"]), r["query"] != "edge alone", r["setting"]))
        lines = [
            [
                "paragon: cloud on both sides"
                if r["part"] == "paragon"
                else ("alone, on both sides" if r["query"] == "edge alone" else r["setting"]),
                f"{r['mmacs_query']:.2f}",
                f"{r['cost_ratio']:.0f}x",
                _recall(r),
                f"[{r['recall_at_1_ci'][0]:.3f}, {r['recall_at_1_ci'][1]:.3f}]",
                f"{r['map']:.3f}",
                _number(None if r["query"] == "edge alone" else r["homogeneous"]),
                f"{r['gap']:.1f}",
                _interval(r["above_alone"], r["above_alone_ci"]),
                _number(r["corrected"]),
                str(r["seeds"]),
            ]
            for r in rows
        ]
        header = [
            "queries by",
            "MMACs",
            "cheaper",
            "R@1 in the cloud's gallery",
            "95 % interval",
            "mAP",
            "R@1 in its own",
            "gap, points",
            "above alone, points",
            "R@1, hubs corrected",
            "seeds",
        ]
        parts.append(f"**{task}**\n\n{markdown(header, lines)}")
    return "\n\n".join(parts)


def _by_name(result: Result, part: str) -> str:
    rows = [r for r in result["rows"] if r["part"] == part]
    tasks = _tasks(rows)
    header = ["", *tasks, "MMACs", "seeds"]
    lines = []
    for name in dict.fromkeys(r["name"] for r in rows):
        found = {r["task"]: r for r in rows if r["name"] == name}
        cells = [
            f"{_recall(found[t])} ({found[t]['homogeneous']:.3f})" if t in found else "–"
            for t in tasks
        ]
        some = next(iter(found.values()))
        seeds = "–".join(
            str(s) for s in sorted({min(r["seeds"] for r in found.values()), some["seeds"]})
        )
        lines.append([name, *cells, f"{some['mmacs_query']:.2f}", seeds])
    return markdown(header, lines)


def losses_table(result: Result) -> str:
    """Every loss: R@1 in the cloud's gallery, and in brackets in its own."""
    return _by_name(result, "losses")


def teaching_table(result: Result) -> str:
    """One setting of the best recipe changed at a time."""
    return _by_name(result, "teaching")


def pool_table(result: Result) -> str:
    """By the number of unlabelled pictures."""
    return _by_name(result, "pool")


def architectures_table(result: Result) -> str:
    """Searched and hand-made networks at equal cost."""
    return _by_name(result, "architectures")


def widths_table(result: Result) -> str:
    """R@1 of the leading coordinates."""
    rows = [
        r
        for r in result["rows"]
        if r["part"] == "paragon" or (r["part"] == "ratios" and r["query"] == "edge")
    ]
    lines = [
        [
            r["task"],
            r["name"] if r["part"] == "paragon" else f"{r['name']}, {r['setting']}",
            f"{r['recall_at_1']:.3f}",
            f"{r['at_64']:.3f}",
            f"{r['at_32']:.3f}",
        ]
        for r in rows
    ]
    return markdown(["task", "queries by", "128", "64", "32"], lines)


def search_table(result: Result) -> str:
    """Rank correlation, what the search took, and both Pareto fronts."""
    rows = result["rows"]
    taus = [[r["name"], f"{r['value']:.2f}"] for r in rows if r["kind"] == "tau"]
    seconds = [[r["name"], f"{r['value']:.0f}"] for r in rows if r["kind"] == "seconds"]
    fronts = [
        [r["kind"], f"{r['mmacs']:.2f}", f"{r['supernet']:.4f}", str(r["input_size"])]
        for r in rows
        if r["kind"] in ("evolution", "random")
    ]
    count = sum(r["kind"] == "alone" for r in rows) // 3
    return "\n\n".join(
        [
            f"Kendall's tau between supernet and stand-alone scores of {count} sub-networks:",
            markdown(["reward", "tau"], taus),
            markdown(["what", "seconds"], seconds),
            "Pareto fronts of what was scored in the supernet:",
            markdown(["found by", "MMACs", "R3", "input, px"], fronts),
            " ".join(result["notes"]),
        ]
    )


def study_latency_table(result: Result) -> str:
    """Cost and time, with the cloud model as the measure of both."""
    lines = [
        [
            r["name"],
            str(r["input_size"]),
            f"{r['mmacs']:.2f}",
            f"{r['ms']:.3f}",
            f"{r['cheaper']:.0f}x",
            f"{r['faster']:.0f}x",
        ]
        for r in result["rows"]
    ]
    header = ["network", "input, px", "MMACs", "ms a query", "cheaper by MACs", "faster"]
    return markdown(header, lines) + "\n\n" + " ".join(result["notes"])


def family_table(result: Result) -> str:
    """R@1 of every pair: query models down, gallery models across."""
    rows = result["rows"]
    galleries = list(dict.fromkeys(r["gallery"] for r in rows))
    lines = []
    for query in dict.fromkeys(r["query"] for r in rows):
        found = {r["gallery"]: r for r in rows if r["query"] == query}
        some = next(iter(found.values()))
        lines.append(
            [
                query,
                f"{some['mmacs_query']:.2f}",
                *(f"{found[g]['recall_at_1']:.3f}" for g in galleries),
                "anchor" if query == "cloud" else ("yes" if some["certified"] else "no"),
            ]
        )
    header = ["queries by", "MMACs", *(f"gallery of {g}" for g in galleries), "certified"]
    return markdown(header, lines) + "\n\n" + " ".join(result["notes"])
