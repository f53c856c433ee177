"""Verification: the matrix, the criterion, flips, thresholds, cost; as report and certificate."""

from samespace._machine import machine
from samespace.verification._certificates import write_certificates
from samespace.verification._matrix import (
    Cell,
    Criterion,
    Estimate,
    Prefix,
    PrefixCriterion,
)
from samespace.verification._parity import parity, query_pixels
from samespace.verification._parity_render import parity_verdict, write_parity
from samespace.verification._parity_report import (
    FLOORS,
    LEGEND,
    Figures,
    Floor,
    ParityFlip,
    ParityReport,
    ParityRow,
)
from samespace.verification._render import to_html, to_markdown, verdict, write_report
from samespace.verification._report import (
    Bank,
    Example,
    FlipCount,
    ModelEntry,
    Report,
    Threshold,
)
from samespace.verification._upgrade import Acceptance, Change, Curve, UpgradeSection
from samespace.verification._verify import verify

__all__ = [
    "FLOORS",
    "LEGEND",
    "Acceptance",
    "Bank",
    "Cell",
    "Change",
    "Criterion",
    "Curve",
    "Estimate",
    "Example",
    "Figures",
    "FlipCount",
    "Floor",
    "ModelEntry",
    "ParityFlip",
    "ParityReport",
    "ParityRow",
    "Prefix",
    "PrefixCriterion",
    "Report",
    "Threshold",
    "UpgradeSection",
    "machine",
    "parity",
    "parity_verdict",
    "query_pixels",
    "to_html",
    "to_markdown",
    "verdict",
    "verify",
    "write_certificates",
    "write_parity",
    "write_report",
]
