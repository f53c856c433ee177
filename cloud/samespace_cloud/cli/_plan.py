"""Progress of a job of many steps: which one is running, and how long all of it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from samespace.cli._output import ProgressCallback, console

_UNPLANNED = 2.0


class _Estimate:
    """Seconds left: what the plan says of steps to come, corrected by how fast this machine is."""

    def __init__(self, plan: Mapping[str, float]) -> None:
        self._plan = dict(plan)
        self._shares: dict[str, float] = {}
        self._started = time.monotonic()
        self._credit = 0.0

    def update(self, stage: str, done: int, total: int) -> None:
        share = done / total if total else 1.0
        if stage not in self._shares and share >= 1.0:
            # Found done from an earlier run: it says nothing of this machine's speed.
            self._credit += self._plan.get(stage, _UNPLANNED)
        for earlier in self._shares:
            self._shares[earlier] = 1.0 if earlier != stage else self._shares[earlier]
        self._shares[stage] = max(share, self._shares.get(stage, 0.0))

    @property
    def planned(self) -> float:
        return sum(self._plan.values())

    @property
    def done(self) -> float:
        return sum(self._plan.get(s, _UNPLANNED) * share for s, share in self._shares.items())

    @property
    def left(self) -> float:
        elapsed = time.monotonic() - self._started
        worked = self.done - self._credit
        # The plan alone at first; what this machine really takes, the more of it is known.
        pace = (elapsed + 20.0) / (worked + 20.0)
        return max(0.0, self.planned - self.done) * pace


@contextmanager
def planned_progress(plan: Mapping[str, float]) -> Iterator[ProgressCallback]:
    """A bar for the step that runs and one for everything, with an estimate; lines when piped.

    Args:
        plan: steps in order and the seconds that each takes on the machine it was planned on.
    """
    estimate = _Estimate(plan)
    bars = Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=36),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    whole = bars.add_task("everything", total=estimate.planned, left=_left(estimate.planned))
    current: dict[str, object] = {}

    def callback(stage: str, done: int, total: int) -> None:
        estimate.update(stage, done, total)
        if current.get("stage") != stage:
            if "task" in current:
                bars.remove_task(current["task"])  # type: ignore[arg-type]
            current.update(stage=stage, task=bars.add_task(stage, total=total, left=""))
            if bars.disable:
                print(f"{stage} … {_left(estimate.left)}", file=sys.stderr, flush=True)
        bars.update(current["task"], completed=done, total=total)  # type: ignore[arg-type]
        bars.update(whole, completed=estimate.done, left=_left(estimate.left))

    with bars:
        yield callback


def _left(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute left"
    return f"about {round(seconds / 60)} min left"
