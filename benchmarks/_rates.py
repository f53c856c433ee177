"""The rates that `samespace plan capacity` plans with, out of the results: none is typed.

`python -m benchmarks.tables` writes them where the package reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FILE = Path(__file__).parent.parent / "sdk" / "samespace" / "measured_rates.json"


def rates_text() -> str:
    """The file that the package should have."""
    indexing, upgrades, capacity = (_read(n) for n in ("indexing", "upgrade_scale", "capacity"))
    one = next(
        r for r in indexing["rows"] if (r["what"], r["how"], r["workers"]) == ("index", "pool", 1)
    )
    of_milvus = [r for r in capacity["rows"] if r["store"] == "milvus"]
    # Of a folder, the largest: the more there is, the slower it gets.
    largest = {
        "embedded": (max(upgrades["rows"], key=lambda r: r["items"]), upgrades),
        "milvus": (next((r for r in of_milvus if r["backfill_rate"]), None), capacity),
    }
    found = {
        "embedding": {
            "value": _rounded(one["rate"]),
            "what": "one process, the quick start's cloud network, JPEGs of 640 x 480, "
            + _machine(indexing),
            "source": "benchmarks/results/indexing.json",
        }
    }
    for store, (row, result) in largest.items():
        if row is not None:
            found[f"backfill {store}"] = {
                "value": _rounded(row["backfill_rate"]),
                "what": f"{row['items']:,} items, vectors given, {_machine(result)}",
                "source": f"benchmarks/results/{result['name']}.json",
            }
    return json.dumps(found, indent=1) + "\n"


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['processor']} of {machine['cores']} cores"


def _rounded(rate: float) -> float:
    """Two digits: more are not the same from one run to the next."""
    return float(f"{rate:.2g}")
