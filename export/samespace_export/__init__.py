"""Turns a torch module into a bundle that runs, and retrieves, the same everywhere.

>>> from samespace_export import ExportSpec, export_bundle
>>> export_bundle(module, ExportSpec(...), "edge.bundle")  # doctest: +SKIP
"""

from samespace_export._adapted import Adapted, adapt_bundle
from samespace_export._calibration import Calibration
from samespace_export._cost import Cost, count_cost
from samespace_export._export import (
    Exported,
    ExportParity,
    ExportSpec,
    export_bundle,
    model_fingerprint,
    torch_embedder,
)
from samespace_export._sensitivity import LayerError, Quantization
from samespace_export._targets import TARGETS, Target, select_targets

__all__ = [
    "TARGETS",
    "Adapted",
    "Calibration",
    "Cost",
    "ExportParity",
    "ExportSpec",
    "Exported",
    "LayerError",
    "Quantization",
    "Target",
    "adapt_bundle",
    "count_cost",
    "export_bundle",
    "model_fingerprint",
    "select_targets",
    "torch_embedder",
]
