"""What commands print: tables and bars for people, plain lines when piped, JSON for machines."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


class ProgressCallback(Protocol):
    """Told what is being done, and how much of how much is done."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def console(stderr: bool = False) -> Console:
    """Where people look; no colours and no wrapping when piped."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 200
    return Console(file=stream, highlight=False, soft_wrap=not stream.isatty(), width=width)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """A table on a terminal; tab-separated lines, header first, when piped."""
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(str(v) for v in row))
        return
    table = Table(title=Text(title) if title else None, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(Text(str(v)) for v in row))  # ids are text, not markup
    console().print(table)


def is_helper() -> bool:
    """Whether `torchrun` started this as one of several processes, of which the first one tells."""
    return "MASTER_ADDR" in os.environ and os.environ.get("RANK", "0") != "0"


class _RateColumn(ProgressColumn):
    """How many are done in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


@contextmanager
def progress_bar(rate: bool = False) -> Iterator[ProgressCallback]:
    """A bar on stderr for every stage, on a terminal; nothing when piped.

    Ctrl-C raises `KeyboardInterrupt` at the next step at the latest.

    Args:
        rate: also say how many are done in a second.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *([_RateColumn()] if rate else []),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        disable=is_helper() or not sys.stderr.isatty(),
    )
    tasks: dict[str, Any] = {}

    def callback(stage: str, done: int, total: int) -> None:
        raise_if_asked()
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    with _interrupts() as raise_if_asked, bar:
        yield callback


@contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """What raises `KeyboardInterrupt` once there was a Ctrl-C.

    Python raises it wherever it happens to be. In a destructor, or the callback of a weak reference
    such as imports have, it is printed and then ignored, and the command would go on.
    """
    asked = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.default_int_handler(number, frame)

    def raise_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield raise_if_asked
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield raise_if_asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
