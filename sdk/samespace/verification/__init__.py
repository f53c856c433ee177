"""Verification: the matrix, the criterion, flips, thresholds, cost; as report and certificate."""

from samespace._machine import machine
from samespace.verification._render import to_html, to_markdown, verdict, write_report
from samespace.verification._report import (
    Cell,
    Criterion,
    Estimate,
    Example,
    FlipCount,
    ModelEntry,
    Report,
    Threshold,
)
from samespace.verification._verify import verify

__all__ = [
    "Cell",
    "Criterion",
    "Estimate",
    "Example",
    "FlipCount",
    "ModelEntry",
    "Report",
    "Threshold",
    "machine",
    "to_html",
    "to_markdown",
    "verdict",
    "verify",
    "write_report",
]
