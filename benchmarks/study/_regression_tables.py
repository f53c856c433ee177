"""The tables of taggers' updates, made from `results/regressions.json`."""

from __future__ import annotations

from typing import Any

from benchmarks._markdown import markdown

Result = dict[str, Any]
Row = dict[str, Any]

PUBLISHED = {
    "retrained": {
        "none": (30.29, 6.44),
        "naive": (29.34, 5.72),
        "BCT": (29.66, 6.39),
        "FD-KL": (30.63, 2.50),
        "FD-LM": (30.47, 2.35),
        "ensemble of 16": (25.98, 1.70),
    },
    "small to large": {
        "none": (25.85, 4.89),
        "naive": (24.41, 3.78),
        "FD-KL": (26.32, 2.90),
        "FD-LM": (26.53, 2.92),
        "ensemble of 16": (22.20, 1.64),
    },
    "half of the pictures to all": {
        "none": (23.65, 3.98),
        "naive": (24.46, 3.27),
        "FD-KL": (25.20, 2.89),
        "FD-LM": (24.77, 2.85),
        "ensemble of 16": (22.09, 2.75),
    },
    "half of the classes to all": {
        "none": (23.65, 8.05),
        "naive": (23.74, 7.70),
        "FD-KL": (24.14, 7.07),
        "FD-LM": (25.11, 7.37),
        "ensemble of 16": (21.98, 6.72),
    },
}
"""By scenario and method: error and NFR in percent on ImageNet, Yan et al. 2021, tables 1 to 5."""

PUBLISHED_SWEEP = {
    "none": (30.29, 6.44),
    "(0, 1)": (31.52, 5.25),
    "(1, 0)": (31.12, 3.90),
    "(1, 1)": (30.59, 2.75),
    "(1, 2)": (30.79, 2.73),
    "(1, 5)": (30.47, 2.35),
    "(1, 10)": (30.44, 2.39),
    "(1, 20)": (33.55, 6.94),
}
"""(alpha, beta) of FD-LM: the same of ResNet-18 retrained, ibid."""


def regressions_table(result: Result) -> str:
    """By scenario and data set: errors and negative flips of every method; then as published."""
    rows = [r for r in result["rows"] if r["part"] == "methods"]
    header = [
        "method",
        "weight",
        "error, new",
        "above none, points",
        "NFR",
        "95 % interval",
        "relative NFR",
        "less NFR than none",
        "seeds",
    ]
    parts = []
    for scenario in dict.fromkeys(r["scenario"] for r in rows):
        for data in dict.fromkeys(r["data"] for r in rows if r["scenario"] == scenario):
            there = [r for r in rows if (r["scenario"], r["data"]) == (scenario, data)]
            told = f"**{scenario}**, {data}: error of the old one {_percent(there[0]['error_old'])}"
            parts.append(f"{told}\n\n{markdown(header, [_line(r) for r in there])}")
        if scenario in PUBLISHED:
            parts.append(_published(scenario))
    return "\n\n".join(parts)


_KINDS = ("error", "NFR")


def alpha_beta_table(result: Result) -> str:
    """FD-LM's alpha and beta: what they do here and what they did as published."""
    rows = [r for r in result["rows"] if r["part"] == "sweep"]
    runs = list(dict.fromkeys((r["data"], r["scenario"]) for r in rows))
    by = {(r["data"], r["scenario"], r["method"]): r for r in rows}
    names = [data + scenario.removeprefix("retrained") for data, scenario in runs]
    of = [*names, "ImageNet"]
    header = ["(alpha, beta)", *(f"{kind}, {name}" for name in of for kind in _KINDS)]
    lines = []
    for pair in dict.fromkeys(r["method"] for r in rows):
        line = [pair]
        for run in runs:
            row = by.get((*run, pair))
            line += [_percent(row["error_new"]), _less(row)] if row else ["–", "–"]
        published = PUBLISHED_SWEEP.get(pair)
        lines.append([*line, *([f"{x:.2f} %" for x in published] if published else ["–", "–"])])
    seeds = ", ".join(
        f"{n}: {by[*run, 'none']['seeds']}" for n, run in zip(names, runs, strict=True)
    )
    told = f"Seeds: {seeds}. Bold: fewer than none beyond the 95 % interval. ImageNet as published"
    return f"{told} (Yan et al. 2021).\n\n{markdown(header, lines)}"


def _less(row: Row) -> str:
    """The negative flips; bold where they are fewer than without treatment beyond chance."""
    interval = row["nfr_difference_ci"]
    shown = _percent(row["nfr"])
    return f"**{shown}**" if interval is not None and interval[1] < 0 else shown


def weights_table(result: Result) -> str:
    """What the validation pictures say of the methods' weights."""
    rows = [r for r in result["rows"] if r["part"] == "weights"]
    lines = [[r["method"], _percent(r["error_new"]), _percent(r["nfr"])] for r in rows]
    return markdown(["method, weight", "validation error", "validation NFR"], lines)


def rates_table(result: Result) -> str:
    """What they say of SGD's learning rate, and of FD-LM's weight at the one that was chosen."""
    rows = [r for r in result["rows"] if r["part"] == "rates"]
    lines = [
        [
            r["scenario"],
            r["method"].replace("none", "AdamW" if r["scenario"] == "retrained" else "none"),
            _percent(r["error_new"]),
            _percent(r["nfr"]),
        ]
        for r in rows
    ]
    return markdown(["scenario", "what", "validation error", "validation NFR"], lines)


def _line(row: Row) -> list[str]:
    low, high = row["nfr_ci"]
    least, most = row["error_difference_ci"]
    untreated = row["method"] == "none"
    relative = row["relative_nfr"]
    return [
        row["method"],
        "–" if row["weight"] is None else f"{row['weight']:g}",
        _percent(row["error_new"]),
        "–"
        if untreated
        else f"{100 * row['error_difference']:+.1f} [{100 * least:+.1f}, {100 * most:+.1f}]",
        f"{_percent(row['nfr'])} ± {100 * row['nfr_spread']:.1f}",
        f"[{100 * low:.1f}, {100 * high:.1f}]",
        "–" if relative is None else f"{relative:.2f}",
        "–" if untreated or row["cut"] is None else f"{100 * row['cut']:.0f} %",
        str(row["seeds"]),
    ]


def _published(scenario: str) -> str:
    of = PUBLISHED[scenario]
    base = of["none"][1]
    lines = [
        [method, f"{e:.2f} %", f"{r:.2f} %", "–" if r == base else f"{100 * (1 - r / base):.0f} %"]
        for method, (e, r) in of.items()
    ]
    told = f"**{scenario}**, ImageNet, as published (Yan et al. 2021), not measured here"
    return f"{told}\n\n{markdown(['method', 'error, new', 'NFR', 'less NFR than none'], lines)}"


def _percent(share: float | None) -> str:
    return "diverged" if share is None else f"{100 * share:.1f} %"
