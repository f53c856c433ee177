"""The table of what the SDK costs over a Milvus."""

from __future__ import annotations

from typing import Any

from benchmarks._markdown import markdown

Result = dict[str, Any]


def milvus_table(result: Result) -> str:
    rows = []
    for row in result["rows"]:
        rate = row["unit"] == "items/s"
        recall = "" if rate else f"{row['recall_sdk']:.3f} / {row['recall_raw']:.3f}"
        shown = [f"{v:,.0f}" if rate else f"{v:,.1f}" for v in (row["sdk"], row["raw"])]
        rows.append([row["what"], *shown, row["unit"], f"{row['ratio']:.2f}", recall])
    header = ["", "SDK", "pymilvus", "", "speed beside pymilvus", "recall@10, SDK / pymilvus"]
    items = result["rows"][0]["items"]
    return (
        markdown(header, rows) + f"\n\n{items:,} items of 128 numbers. " + " ".join(result["notes"])
    )
