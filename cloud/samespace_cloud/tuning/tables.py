"""What is said of every picture, as a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from samespace_cloud.checkpoint import _replace_text
from samespace_edge import ConfigError


def write_table(file: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV in one step; raises `ConfigError` for another ending."""
    file = Path(file)
    need_ending(file, ".csv")
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace_text(file, text.getvalue())


def need_ending(file: str | Path, *endings: str) -> None:
    """Raises `ConfigError` unless the file has one of these endings."""
    if Path(file).suffix.lower() not in endings:
        raise ConfigError(f"{file} has to end in {' or '.join(endings)}")
