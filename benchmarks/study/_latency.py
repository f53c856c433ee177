"""How long a query takes on the networks of the study, exported, taking turns."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import seconds_side_by_side
from benchmarks.study._runs import macs_of
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_edge import Embedder
from samespace_export import export_bundle

LATENCY_COLUMNS = {
    "name": "of the network",
    "input_size": "side of the input, in pixels",
    "mmacs": "millions of multiply-accumulates",
    "ms": "median of one picture through onnx-fp32, preprocessed, one thread, ms",
    "cheaper": "the cloud model's multiply-accumulates over these",
    "faster": "the cloud model's time over this",
}


def latency_rows(models: Mapping[str, ModelConfig]) -> list[dict[str, Any]]:
    """A row for each network; the first is what the others are compared with.

    Weights are random: time does not depend on them.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs, costs = {}, {}
        for number, (name, config) in enumerate(models.items()):
            model = EmbeddingModel(config).eval()
            spec = Checkpoint(model, "cloud").export_spec(name)
            path = Path(folder) / f"{number}.bundle"
            export_bundle(model, spec, path)
            embedder = Embedder(path, threads=1)
            pixels = np.random.default_rng(0).integers(
                0, 256, (1, config.input_size, config.input_size, 3), dtype=np.uint8
            )
            runs[name] = partial(embedder.embed_pixels, pixels)
            costs[name] = macs_of(model)
        times = seconds_side_by_side(runs, rounds=200, warm=20)
    first = next(iter(models))
    return [
        {
            "name": name,
            "input_size": models[name].input_size,
            "mmacs": costs[name] / 1e6,
            "ms": times[name] * 1e3,
            "cheaper": costs[first] / costs[name],
            "faster": times[first] / times[name],
        }
        for name in models
    ]
