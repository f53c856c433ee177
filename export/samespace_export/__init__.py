"""Turns a torch module into a bundle that runs, and retrieves, the same everywhere.

>>> from samespace_export import ExportSpec, export
>>> export(module, ExportSpec(...), "edge.bundle")  # doctest: +SKIP
"""

from samespace_export._cost import Cost, count_cost
from samespace_export._export import (
    Exported,
    ExportSpec,
    ParityReport,
    export,
    model_fingerprint,
)

__all__ = [
    "Cost",
    "ExportSpec",
    "Exported",
    "ParityReport",
    "count_cost",
    "export",
    "model_fingerprint",
]
