"""The templates of reports, and how they print figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from samespace.verification._matrix import Estimate


def template(name: str, autoescape: bool) -> Any:
    """The template called `name`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samespace.verification", "templates"),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    filters: dict[str, Callable[..., str]] = {
        "share": lambda v: f"{v:.3f}",
        "signed": lambda v: f"{v:+.3f}",
        "percent": lambda v: f"{100 * v:.2f} %",
        "mmacs": lambda v: f"{v / 1e6:.1f}",
        "mib": lambda v: f"{v / 2**20:.2f}",
        "ms": lambda v: f"{v:.2f}",
        "relative": lambda v: "–" if v is None else f"{100 * v:.0f} %",
        "times": lambda v: f"{v:.1f}×",
        "interval": _interval,
        "cosine": lambda v: f"{v:.5f}",
        "points": lambda v: f"{100 * v:+.2f}",
        "points_ci": lambda ends: f"[{100 * ends[0]:+.2f}, {100 * ends[1]:+.2f}]",
        "cell": lambda text: str(text).replace("|", "\\|").replace("\n", " "),
    }
    environment.filters.update(filters)
    return environment.get_template(name)


def _interval(estimate: Estimate) -> str:
    return f"[{estimate.low:.3f}, {estimate.high:.3f}]"
