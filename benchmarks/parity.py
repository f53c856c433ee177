"""Does every file of an edge model, in every runtime, find what the model finds?

    python -m benchmarks.parity --data manifest.csv --gallery cloud.bundle --name parity
        --model "after training=edge.bundle,runs/edge" --model "tuned=int8.bundle,runs/int8"

A model is TITLE=BUNDLE,CHECKPOINT. tflite-runtime runs in its own environment, which
`make test-tflite-runtime` makes; without it, its rows say so.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import write
from samespace import Dataset
from samespace.verification import ParityReport, parity, query_pixels
from samespace_cloud.checkpoint import reference
from samespace_edge import Bundle, Measured, load_measured

COLUMNS = {
    "model": "which edge model",
    "variant": "file",
    "runtime": "what ran it",
    "status": "pass, fail (below a floor) or not run (its runtime does not run here)",
    "reason": "which floor, or why it did not run",
    "proves": "what the figures say, where that is not the device's own result",
    "bytes": "size of the file",
    "load_ms": "time to load the graph, ms",
    "p50_ms": "one picture, one thread, median, ms",
    "p95_ms": "the same, 95th percentile",
    "cosine_min": "smallest cosine to the torch model's vectors",
    "cosine_p1": "1st percentile",
    "cosine_mean": "mean",
    "same_first_hit": "share of the queries whose first hit is the torch model's",
    "same_label": "share of the queries whose first hit has the label of the torch model's",
    "recall_at_1": "in the cloud model's gallery",
    "difference": "of recall_at_1 to the torch model's",
    "difference_ci": "its 95 % interval, paired, cluster-robust over labels",
    "negative": "queries that turned wrong",
    "positive": "queries that turned right",
    "torch_recall_at_1": "recall_at_1 of the torch model",
}
TFLITE = Path(".venv-tflite/bin/python")


def elsewhere(bundle: Bundle, data: Dataset) -> list[Measured]:
    """What tflite-runtime gives, in its environment."""
    if not TFLITE.exists():
        print("tflite-runtime is left out: no .venv-tflite (make test-tflite-runtime makes it)")
        return []
    with tempfile.TemporaryDirectory() as name:
        pixels, out = Path(name, "pixels.npy"), Path(name, "out.npz")
        np.save(pixels, query_pixels(bundle, data))
        command = [str(TFLITE), "-m", "samespace_edge", str(bundle.path), str(pixels), str(out)]
        subprocess.run([*command, "--runtime", "tflite_runtime"], check=True)
        return load_measured(out)


def rows_of(title: str, report: ParityReport) -> list[dict[str, Any]]:
    rows = []
    for row in report.rows:
        f = row.figures
        rows.append(
            {
                "model": title,
                "variant": row.variant,
                "runtime": row.runtime,
                "status": row.status,
                "reason": row.reason,
                "proves": row.proves,
                "bytes": row.bytes,
                "load_ms": f and f.load_ms,
                "p50_ms": f and f.p50_ms,
                "p95_ms": f and f.p95_ms,
                "cosine_min": f and f.cosine_min,
                "cosine_p1": f and f.cosine_p1,
                "cosine_mean": f and f.cosine_mean,
                "same_first_hit": f and f.agreement,
                "same_label": f and f.label_agreement,
                "recall_at_1": f and f.recall_at_1,
                "difference": f and f.difference,
                "difference_ci": f and list(f.difference_ci),
                "negative": f and f.negative,
                "positive": f and f.positive,
                "torch_recall_at_1": report.reference_recall_at_1,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--name", default="parity")
    asked = parser.parse_args()
    data = Dataset.open(asked.data)
    rows = []
    for text in asked.model:
        title, _, paths = text.partition("=")
        path, checkpoint = paths.split(",")
        bundle = Bundle.open(path)
        report = parity(
            bundle,
            asked.gallery,
            data,
            reference=reference(checkpoint, bundle),
            elsewhere=elsewhere(bundle, data),
        )
        rows += rows_of(title, report)
    notes = [f"{data.name}: {len(data.queries)} queries, {len(data.gallery)} gallery pictures"]
    write(asked.name, COLUMNS, rows, notes=notes)


if __name__ == "__main__":
    main()
