"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_BOOTSTRAP = (
    " Intervals here are still percentiles of a bootstrap, which are too narrow with few labels "
    "(docs/benchmarks.md, *Intervals with few labels*)."
)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of these cells."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def where(result: Mapping[str, Any]) -> str:
    """Where a result comes from: command, date, machine."""
    machine = result["machine"]
    seeds = result["seeds"]
    count = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    # Results from before it was noted name the processor alone.
    known = f" ({machine['instructions']})" if "instructions" in machine else ""
    accelerator = f"one {machine['accelerator']}, " if "accelerator" in machine else ""
    ends = [text for name, text in result.get("columns", {}).items() if name.endswith("_ci")]
    before = any("bootstrap" in text for text in ends)
    return (
        f"\n\n`{result['command']}`, {result['date']}, {machine['processor']}{known}, "
        f"{machine['cores']} cores, {accelerator}{count}, {result['scale'].upper()} scale."
        + (_BOOTSTRAP if before else "")
    )
