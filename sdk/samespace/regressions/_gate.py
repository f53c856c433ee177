"""Whether a new classifier may go out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from samespace.regressions._report import RegressionReport
from samespace_edge import ConfigError


@dataclass(frozen=True)
class Gate:
    """What a report was held against, and what came of it.

    Attributes:
        max_negative_rate: the upper end of NFR's interval may not be above it.
        max_error_increase: nor the measured ER_new - ER_old above this.
        sentences: one for each of the two, with figures.
        passed: whether both hold.
    """

    max_negative_rate: float
    max_error_increase: float
    sentences: tuple[str, ...]
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """As a report's JSON holds it, under `gate`."""
        return asdict(self)


def gate(
    report: RegressionReport, max_negative_rate: float = 0.01, max_error_increase: float = 0.0
) -> Gate:
    """Hold a report against two limits, both shares of all pictures.

    Of NFR the upper end of the interval counts, so that few pictures do not let a model through:
    with no flip at all among 100 it is 3.6 %. Of the error the measured difference counts.

    Raises `ConfigError` for limits that are not from 0 to 1.
    """
    limits = {"max_negative_rate": max_negative_rate, "max_error_increase": max_error_increase}
    for name, limit in limits.items():
        if not 0 <= limit <= 1:
            raise ConfigError(f"{name} is a share from 0 to 1, such as 0.01; it is {limit:g}")
    rate, difference = report.negative_rate, report.error_difference.value
    few = rate.high <= max_negative_rate
    no_worse = difference <= max_error_increase
    digits = _digits(rate.high, max_negative_rate)
    measured = "" if few or rate.value > max_negative_rate else _more(report)
    sentences = (
        f"The upper end of NFR's interval, {_percent(rate.high, digits)} (measured: "
        f"{_percent(rate.value)}), {_is(few)} above {_percent(max_negative_rate, digits)}"
        f"{measured}.",
        f"The error changes by {100 * difference:+.2f} points, which {_is(no_worse)} above "
        f"{100 * max_error_increase:+.2f}.",
    )
    return Gate(max_negative_rate, max_error_increase, sentences, few and no_worse)


def _more(report: RegressionReport) -> str:
    return f": {report.pictures} pictures are too few to tell; more make the interval narrower"


def _is(fine: bool) -> str:
    return "is not" if fine else "IS"


def _digits(share: float, limit: float) -> int:
    """As many, from 2 up, as tell the two apart; 2 where they are the same."""
    return next((d for d in range(2, 9) if _percent(share, d) != _percent(limit, d)), 2)


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"
