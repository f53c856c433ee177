"""Regressions: what an old classifier has right and a new one does not.

>>> from samespace.regressions import compare, read_predictions
>>> report = compare(read_predictions("old.csv"), read_predictions("new.csv"))  # doctest: +SKIP
>>> report.negative_rate.high  # doctest: +SKIP
0.021
"""

from samespace.regressions._calibration import expected_calibration_error
from samespace.regressions._compare import compare
from samespace.regressions._exact import exact_interval, mcnemar
from samespace.regressions._gate import Gate, gate
from samespace.regressions._groups import with_columns
from samespace.regressions._pictures import Pictures
from samespace.regressions._predictions import Predictions
from samespace.regressions._read import read_predictions
from samespace.regressions._render import to_html, to_markdown, verdict, write_report
from samespace.regressions._report import (
    Calibration,
    Flip,
    Group,
    NewClasses,
    RegressionReport,
)
from samespace.regressions._update import STRATEGIES, Update, choose
from samespace.regressions._write import write_predictions

__all__ = [
    "STRATEGIES",
    "Calibration",
    "Flip",
    "Gate",
    "Group",
    "NewClasses",
    "Pictures",
    "Predictions",
    "RegressionReport",
    "Update",
    "choose",
    "compare",
    "exact_interval",
    "expected_calibration_error",
    "gate",
    "mcnemar",
    "read_predictions",
    "to_html",
    "to_markdown",
    "verdict",
    "with_columns",
    "write_predictions",
    "write_report",
]
