"""Write the tables in the docs from the results; nothing in them is typed by hand.

    python -m benchmarks.tables            (or: make docs)

A place for a table is a pair of comments in a Markdown file: `<!-- table: NAME -->` and
`<!-- end -->`. With `--check` nothing is written, and the exit code says whether all are current.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _rates
from benchmarks._gallery_tables import open_table, upgrade_scale_table
from benchmarks._interval_table import intervals_table
from benchmarks._markdown import markdown, where
from benchmarks._milvus_table import milvus_table
from benchmarks._processor_tables import demo_time_table, int8_table
from benchmarks._scale_tables import capacity_table, indexing_table, sizing_table
from benchmarks._service_tables import SERVICE
from benchmarks.study._finetuning_tables import (
    finetuning_settings_table,
    finetuning_table,
    full_tries_table,
    linear_ablation_table,
    linear_cost_table,
)
from benchmarks.study._regression_tables import (
    alpha_beta_table,
    rates_table,
    regressions_table,
    weights_table,
)
from benchmarks.study._tables import (
    architectures_table,
    family_table,
    losses_table,
    pool_table,
    ratios_table,
    search_table,
    study_latency_table,
    teaching_table,
    together_table,
    widths_table,
)
from benchmarks.study._upgrade_tables import chain_table, lifting_table, upgrades_table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Result = dict[str, Any]


def mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def demo_table(result: Result) -> str:
    """R@1 of every pair: mean and standard deviation over seeds, and the widest interval."""
    pairs = [
        ("cloud", "cloud", "paragon: the cloud model on both sides"),
        ("edge", "cloud", "**heterogeneous: edge queries, cloud gallery**"),
        ("edge", "edge", "the edge model on both sides"),
        ("edge-alone", "edge-alone", "the same network trained alone, on both sides"),
        ("edge-alone", "cloud", "trained alone, with the cloud's gallery"),
    ]
    lines = []
    for query, gallery, what in pairs:
        found = [r for r in result["rows"] if (r["query"], r["gallery"]) == (query, gallery)]
        low = min(r["recall_at_1_ci"][0] for r in found)
        high = max(r["recall_at_1_ci"][1] for r in found)
        lines.append(
            [
                what,
                f"{found[0]['mmacs_query']:.1f}",
                f"{found[0]['cost_ratio']:.1f}x",
                mean_and_spread([r["recall_at_1"] for r in found]),
                f"[{low:.3f}, {high:.3f}]",
                mean_and_spread([r["map"] for r in found]),
            ]
        )
    above = [r for r in result["rows"] if r["above_alone"] is not None]
    intervals = "; ".join(
        f"seed {r['seed']}: {r['above_alone']:+.3f} "
        f"[{r['above_alone_ci'][0]:+.3f}, {r['above_alone_ci'][1]:+.3f}]"
        for r in above
    )
    header = ["search", "MMACs a query", "cheaper by", "R@1", "95 % interval", "mAP"]
    return (
        markdown(header, lines)
        + f"\n\nM(edge, cloud) above the network trained alone, paired: {intervals}. "
        + f"Setting: {above[0]['setting']}. "
        + " ".join(result["notes"])
        + where(result)
    )


def overhead_table(result: Result) -> str:
    """Ours against theirs, with the target."""
    rows = [
        [
            r["question"],
            f"{r['ours']:,.3g}" if r["ours"] < 1000 else f"{r['ours']:,.0f}",
            f"{r['theirs']:,.3g}" if r["theirs"] < 1000 else f"{r['theirs']:,.0f}",
            r["unit"],
            f"{r['ratio']:.2f}",
            r["target"]
            if r["target"] == "none"
            else f"{r['target']}: " + ("met" if r["met"] else "**missed**"),
        ]
        for r in result["rows"]
    ]
    header = ["ours / theirs", "ours", "theirs", "unit", "ratio", "target"]
    return markdown(header, rows) + "\n\n" + " ".join(result["notes"]) + "." + where(result)


def parity_table(result: Result) -> str:
    """Every file in every runtime, by model."""
    models = dict.fromkeys(r["model"] for r in result["rows"])
    parts = []
    for model in models:
        lines, why = [], []
        for r in (r for r in result["rows"] if r["model"] == model):
            name = [r["variant"], r["runtime"]]
            if r["status"] == "not run":
                why.append(f"{r['variant']} in {r['runtime']}: {r['reason']}")
                continue
            low, high = r["difference_ci"]
            lines.append(
                [
                    *name,
                    r["status"] if r["status"] == "pass" else f"**below floor**: {r['reason']}",
                    f"{r['bytes'] / 2**20:.2f}",
                    f"{r['cosine_min']:.5f}",
                    f"{r['cosine_p1']:.5f}",
                    f"{r['cosine_mean']:.5f}",
                    f"{100 * r['same_first_hit']:.2f} %",
                    f"{100 * r['same_label']:.2f} %",
                    f"{100 * r['difference']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]",
                    f"-{r['negative']} +{r['positive']}",
                ]
            )
            total = r["torch_recall_at_1"]
        header = [
            "file",
            "runtime",
            "status",
            "MiB",
            "cosine to torch: min",
            "p1",
            "mean",
            "same first hit",
            "same label",
            "R@1, points",
            "flips",
        ]
        title = f"**{model}** (R@1 of the torch model in the cloud's gallery: {total:.3f})"
        skipped = f"\n\nNot run here: {'; '.join(why)}." if why else ""
        parts.append(f"{title}\n\n{markdown(header, lines)}{skipped}")
    notes = " ".join(result["notes"])
    proves = next((r["proves"] for r in result["rows"] if r["proves"]), None)
    said = f" mil-interpreter's figures prove {proves}." if proves else ""
    return "\n\n".join(parts) + f"\n\n{notes}.{said}" + where(result)


def resize_table(result: Result) -> str:
    """What another resize costs."""
    lines = [
        [
            r["resize"],
            str(r["max"]),
            f"{r['mean']:.2f}",
            f"{r['cosine_min']:.3f}",
            f"{r['cosine_mean']:.4f}",
            f"{100 * r['same_first_hit']:.1f} %",
            f"{100 * r['difference']:+.1f} [{100 * r['difference_ci'][0]:+.1f}, "
            f"{100 * r['difference_ci'][1]:+.1f}]",
        ]
        for r in result["rows"]
    ]
    header = [
        "resize",
        "pixels: largest difference",
        "mean",
        "vectors: smallest cosine",
        "mean",
        "same first hit",
        "R@1, points",
    ]
    return markdown(header, lines) + "\n\n" + " ".join(result["notes"]) + "." + where(result)


def install_table(result: Result) -> str:
    """What an environment takes."""
    columns = {
        "extra": "environment",
        "runtime": "runtime",
        "mib": "MiB",
        "packages": "packages",
        "install_s": "installing, s",
        "import_ms": "import, ms",
        "first_vector_ms": "first vector, ms",
    }
    by_make = {"demo": "`make demo`", "dev": "`make test`, after it"}
    lines = []
    for r in result["rows"]:
        name = by_make.get(r["extra"], f'`pip install "samespace[{r["extra"]}]"`')
        numbers = ["–" if r[c] is None else f"{r[c]:,.0f}" for c in list(columns)[2:]]
        lines.append([name, r["runtime"] or "–", *numbers])
    return markdown(list(columns.values()), lines) + where(result)


def demo_install_text(result: Result) -> str:
    """What the first command installs, and how soon it shows something."""
    demo, dev = ({r["extra"]: r for r in result["rows"]}[name] for name in ("demo", "dev"))
    more = dev["mib"] - demo["mib"]
    return (
        f"`make demo` installs {demo['mib']:,.0f} MiB into `.venv`, with torch for the CPU. It "
        f"showed its first progress {demo['first_progress_s']:.0f} s after `git clone` began. "
        f"`make test` adds {more:,.0f} MiB: converters, services, tools "
        f"({dev['install_s'] / 60:.1f} minutes)." + where(result)
    )


def latency_table(result: Result) -> str:
    """A query by file and runtime: raw and through samespace, with one thread and with two."""
    keys = ("model", "what", "runtime", "via", "threads")
    found = {tuple(r[k] for k in keys): r for r in result["rows"]}
    lines = []
    for key in [k for k in found if k[3:] == ("raw", 1)]:
        one, two = found[key], found[*key[:4], 2]
        ours = found.get((*key[:3], "samespace", 1))
        label = [one["model"], one["what"], one["runtime"]]
        if one["reason"]:
            lines.append([*label, *["–"] * 7, one["reason"]])
            continue
        both = f"{two['p50_ms']:.2f}; {two['cpu_ms']:.2f}" if not two["reason"] else "–"
        lines.append(
            [
                *label,
                f"{one['p50_ms']:.2f} ({one['p95_ms']:.2f})",
                f"{ours['p50_ms']:.2f}" if ours else "–",
                f"{one['ratio_to']:.2f}x",
                f"{one['cpu_ms']:.2f}",
                both,
                f"{one['peak_mib']:.0f}",
                f"{one['load_ms']:,.0f}",
                f"{one['cosine']:.4f}",
            ]
        )
    header = [
        "model",
        "file",
        "runtime",
        "ms (p95)",
        "through samespace",
        "of onnx-fp32",
        "processor ms",
        "two threads: ms; processor ms",
        "peak MiB",
        "load ms",
        "cosine",
    ]
    return markdown(header, lines) + "\n\n" + " ".join(result["notes"]) + where(result)


def quickstart_output(result: Result) -> str:
    """What the README's example printed."""
    lines = "\n".join(row["line"] for row in result["rows"])
    return f"```\n{lines}\n```"


TABLES: dict[str, Callable[[Result], str]] = {
    "demo": demo_table,
    "demo_grocery": demo_table,
    "demo_time": demo_time_table,
    "overhead": overhead_table,
    "open": open_table,
    "upgrade_scale": upgrade_scale_table,
    "indexing": lambda r: indexing_table(r) + where(r),
    "capacity": lambda r: capacity_table(r) + where(r),
    "sizing": lambda r: sizing_table(),  # the command's own answer, with rates of results
    **SERVICE,
    "milvus": lambda r: milvus_table(r) + where(r),
    "quickstart": quickstart_output,
    "parity": parity_table,
    "parity_grocery": parity_table,
    "intervals": intervals_table,
    "int8": int8_table,
    "resize": resize_table,
    "install_size": install_table,
    "demo_install": demo_install_text,
    "latency": latency_table,
    "ratios": lambda r: ratios_table(r) + "\n\n" + " ".join(r["notes"]) + where(r),
    "losses": losses_table,
    "teaching": teaching_table,
    "pool": pool_table,
    "architectures": architectures_table,
    "widths": widths_table,
    "study_latency": lambda r: study_latency_table(r) + where(r),
    "family": lambda r: family_table(r) + where(r),
    "search": lambda r: search_table(r) + where(r),
    "together": lambda r: together_table(r) + where(r),
    "upgrades": lambda r: upgrades_table(r) + "\n\n" + " ".join(r["notes"]) + where(r),
    "lifting": lifting_table,
    "regressions": lambda r: regressions_table(r) + "\n\n" + " ".join(r["notes"]) + where(r),
    "alpha_beta": alpha_beta_table,
    "weights": weights_table,
    "sgd_rates": rates_table,
    "finetuning": lambda r: finetuning_table(r) + "\n\n" + " ".join(r["notes"]) + where(r),
    "linear_ablation": linear_ablation_table,
    "finetuning_settings": finetuning_settings_table,
    "full_tries": full_tries_table,
    "finetuning_gpu": lambda r: (
        finetuning_settings_table(r) + "\n\n" + " ".join(r["notes"]) + where(r)
    ),
    "linear_cost": linear_cost_table,
    "upgrade_chain": lambda r: chain_table(r) + "\n\n" + " ".join(r["notes"]) + where(r),
}


# One result may have several tables.
_OF_THE_STUDY = ("ratios", "losses", "teaching", "pool", "architectures", "widths")
_OF_FINETUNING = ("linear_ablation", "linear_cost", "finetuning_settings", "full_tries")
_RESULT_OF = (
    dict.fromkeys(_OF_THE_STUDY, "compatibility")
    | dict.fromkeys(("alpha_beta", "weights", "sgd_rates"), "regressions")
    | dict.fromkeys(_OF_FINETUNING, "finetuning")
    | dict.fromkeys(SERVICE, "service")
    | {"lifting": "upgrades", "sizing": "capacity", "demo_install": "install_size"}
)


def filled(text: str) -> str:
    """A Markdown text with every table made anew from its result."""

    def replace(match: re.Match[str]) -> str:
        name = match[2]
        result = json.loads((RESULTS / f"{_RESULT_OF.get(name, name)}.json").read_text())
        return f"{match[1]}{TABLES[name](result)}\n{match[3]}"

    return _PLACE.sub(replace, text)


def main() -> int:
    stale = []
    if _rates.rates_text() != _rates.FILE.read_text():
        stale.append(str(_rates.FILE.relative_to(ROOT)))
        if "--check" not in sys.argv:  # first, for one of the tables is made with it
            _rates.FILE.write_text(_rates.rates_text())
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text()
        new = filled(text)
        if new != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(new)
    print("\n".join(stale) or "all tables are current")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
