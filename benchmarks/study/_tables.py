"""The study's tables, made from `results/compatibility.json` and `results/search.json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks._markdown import markdown

Result = dict[str, Any]
Row = dict[str, Any]


def _tasks(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(r["task"] for r in rows))


def _recall(row: Row) -> str:
    spread = f" ± {row['spread']:.3f}" if row.get("spread") and row["seeds"] > 1 else ""
    return f"{row['recall_at_1']:.3f}{spread}"


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def in_points(value: float | None, interval: Sequence[float] | None) -> str:
    """A difference of shares, bold where its whole interval is above 0."""
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
        lines = []
        for r in rows:
            if r["naive"] is not None:
                how, empty = "alone, in the cloud's gallery", ["–"] * 6
                cells = [f"{r['mmacs_query']:.2f}", f"{r['cost_ratio']:.0f}x", f"{r['naive']:.3f}"]
                lines.append([how, *cells, *empty, str(r["seeds"])])
            line = [
                _asked_by(r),
                f"{r['mmacs_query']:.2f}",
                f"{r['cost_ratio']:.0f}x",
                _recall(r),
                f"[{r['recall_at_1_ci'][0]:.3f}, {r['recall_at_1_ci'][1]:.3f}]",
                f"{r['map']:.3f}",
                _number(None if r["query"] == "edge alone" else r["homogeneous"]),
                f"{r['gap']:.1f}",
                in_points(r["above_alone"], r["above_alone_ci"]),
                _number(r["corrected"]),
                str(r["seeds"]),
            ]
            lines.append(line)
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


def _asked_by(row: Row) -> str:
    if row["query"] == "cloud":
        return "paragon: cloud on both sides"
    if row["part"] == "paragon":
        return "cloud models of other seeds, each on both sides"
    return "alone, on both sides" if row["query"] == "edge alone" else str(row["setting"])


def _by_name(result: Result, *parts: str, like: str | None = None) -> str:
    """One line for every name: R@1 in the cloud's gallery, and in brackets in its own.

    Args:
        like: of rows of `ratios`, those whose name this is come first.
    """
    rows = [r for r in result["rows"] if r["part"] in parts]
    settings = {r["setting"] for r in rows}
    first = [r for r in result["rows"] if r["part"] == "ratios" and r["name"] == like]
    rows = [r for r in first if r["setting"] in settings] + rows
    tasks = _tasks(r for r in rows if r["part"] in parts)
    header = ["", *tasks, "MMACs", "seeds"]
    lines = []
    for name in dict.fromkeys(r["name"] for r in rows):
        found = {r["task"]: r for r in rows if r["name"] == name}
        cells = [
            f"{_recall(found[t])} ({found[t]['homogeneous']:.3f})" if t in found else "–"
            for t in tasks
        ]
        some = next(iter(found.values()))
        lines.append([name, *cells, f"{some['mmacs_query']:.2f}", str(some["seeds"])])
    return markdown(header, lines)


def losses_table(result: Result) -> str:
    """Every loss: R@1 in the cloud's gallery, and in brackets in its own."""
    return _by_name(result, "losses")


def teaching_table(result: Result) -> str:
    """The best recipe, and with one setting changed at a time."""
    return _by_name(result, "teaching", like="cut by hand, 80x")


def pool_table(result: Result) -> str:
    """The gap by the number of unlabelled pictures, from none to the gallery's own."""
    tasks = [t for t in _tasks(result["rows"]) if _of(result, "pool", t)]
    header = ["unlabelled teaching pictures", *(f"{t}: R@1 (gap, points)" for t in tasks), "seeds"]
    lines = []
    names = ["none", *dict.fromkeys(r["name"] for t in tasks for r in _of(result, "pool", t))]
    for name in [*names, "the gallery's own (gallery-aware)"]:
        rows = [_unlabelled(result, name, task) for task in tasks]
        cells = [f"{_recall(r)} ({r['gap']:.1f})" for r in rows]
        lines.append([name, *cells, str(rows[0]["seeds"])])
    return markdown(header, lines)


def _of(result: Result, part: str, task: str) -> list[Row]:
    return [r for r in result["rows"] if (r["part"], r["task"]) == (part, task)]


def _unlabelled(result: Result, name: str, task: str) -> Row:
    setting = {"none": "inductive"}.get(name, "gallery-aware")
    for row in _of(result, "pool", task):
        if row["name"] == name:
            return row
    return next(
        r
        for r in _of(result, "ratios", task)
        if (r["name"], r["setting"]) == ("cut by hand, 80x", setting)
    )


def together_table(result: Result) -> str:
    """Both ways: the paragon, and the edge model in its gallery and in its own."""
    lines = [
        [
            r["how"] if r["how"] == "two steps" else f"co-training, cloud spared {r['spared']:.0%}",
            r["task"],
            *(f"{r[k]:.3f} [{r[f'{k}_ci'][0]:.3f}, {r[f'{k}_ci'][1]:.3f}]" for k in _BOTH),
            f"{r['edge']:.3f}",
            f"{r['mmacs_cloud'] / r['mmacs_query']:.0f}x",
        ]
        for r in result["rows"]
    ]
    header = ["how", "task", "paragon", "edge in the cloud's gallery", "edge in its own", "cheaper"]
    return markdown(header, lines) + "\n\n" + " ".join(result["notes"])


_BOTH = ("paragon", "cross")


def architectures_table(result: Result) -> str:
    """Searched and hand-made networks at equal cost."""
    return _by_name(result, "architectures")


def widths_table(result: Result) -> str:
    """R@1 of the leading coordinates."""
    rows = [
        r
        for r in result["rows"]
        if r["part"] in ("paragon", "ratios") and r["query"] != "edge alone"
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
    """Rank correlation, what the searches took, and both Pareto fronts."""
    rows = result["rows"]
    searches = list(dict.fromkeys(_search(r) for r in rows))
    values = {
        (r["kind"], r["name"], *_search(r)): r["value"] for r in rows if r["value"] is not None
    }
    names = list(dict.fromkeys((kind, name) for kind, name, *_ in values))
    by_search = [
        [
            f"tau of {name}" if kind == "tau" else f"{name}, s",
            *(_number(values.get((kind, name, *s)), _FORMS[kind]) for s in searches),
        ]
        for kind, name in names
    ]
    fronts = {
        (kind, *s): [r for r in rows if (r["kind"], *_search(r)) == (kind, *s)]
        for kind in ("evolution", "random")
        for s in searches
    }
    for kind in ("evolution", "random"):
        best = [max(fronts[kind, *s], key=lambda r: r["supernet"]) for s in searches]
        cells = (f"{r['supernet']:.3f} at {r['mmacs']:.2f} MMACs" for r in best)
        by_search.append([f"best R3 by {kind}", *cells])
    first = searches[0]
    front = [
        [kind, f"{r['mmacs']:.2f}", f"{r['supernet']:.4f}", str(r["input_size"])]
        for kind in ("evolution", "random")
        for r in fronts[kind, *first]
    ]
    count = sum((r["kind"], *_search(r)) == ("alone", *first) for r in rows) // 3
    named = [f"{data}, {ratio}x, seed {seed}" for data, ratio, seed in searches]
    return "\n\n".join(
        [
            f"Kendall's tau is between supernet and stand-alone scores of {count} sub-networks:",
            markdown(["search", *named], by_search),
            f"Pareto fronts of what was scored in the supernet of {named[0]}:",
            markdown(["found by", "MMACs", "R3", "input, px"], front),
            " ".join(result["notes"]),
        ]
    )


def _search(row: Row) -> tuple[str, int, int]:
    return row["data"], row["ratio"], row["seed"]


_FORMS = {"tau": ".2f", "seconds": ".0f"}


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
