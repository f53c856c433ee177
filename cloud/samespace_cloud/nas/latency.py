"""How long an architecture really takes on this machine."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.nas.space import Architecture
from samespace_edge import measure
from samespace_export import export_bundle


def measured_latency(architecture: Architecture) -> float:
    """Median time of one picture in milliseconds: ONNX in fp32, one thread.

    What the weights are does not matter, so random ones are exported. Each architecture is
    measured once per process.
    """
    return _measured(architecture.backbone, architecture.input_size, architecture.dim)


@cache
def _measured(backbone: str, input_size: int, dim: int) -> float:
    checkpoint = Checkpoint(EmbeddingModel(ModelConfig(backbone, input_size, dim)).eval(), "edge")
    with tempfile.TemporaryDirectory() as folder:
        spec = checkpoint.export_spec("latency")
        bundle = export_bundle(checkpoint.model, spec, Path(folder) / "latency.bundle").bundle
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (8, input_size, input_size, 3), np.uint8)
        found = measure(bundle, bundle.manifest.variants[0].name, "onnxruntime", pixels)
    return float(np.median(found.times_ms))
