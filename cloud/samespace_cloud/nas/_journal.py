"""What was found out of genotypes, a line each, in a file that survives a stop at any moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from samespace_edge import ConfigError

T = TypeVar("T")


class Journal(Generic[T]):
    """A value for each genotype, kept in a JSONL file whose first line says what decides over them.

    Args:
        path: the file; None keeps everything in memory alone.
        key: the name of the value in a line.
        settings: what decides over the values; raises `ConfigError` where the file has others.
    """

    def __init__(self, path: Path | None, key: str, settings: Mapping[str, Any]) -> None:
        self._path, self._key = path, key
        self._values: dict[tuple[int, ...], T] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        # A stop in mid-write leaves half a line, which is as good as none.
        whole = text[: text.rfind("\n") + 1]
        if not whole:
            whole = json.dumps({"settings": settings}) + "\n"
        if whole != text:
            path.write_text(whole)
        first, *rows = [json.loads(line) for line in whole.splitlines()]
        if first != json.loads(json.dumps({"settings": settings})):
            raise ConfigError(
                f"{path} is of a search with other settings; repeat those, or remove it to start "
                "over"
            )
        self._values = {tuple(row["genotype"]): row[key] for row in rows}

    def get(self, genotype: tuple[int, ...]) -> T | None:
        """What is known of a genotype."""
        return self._values.get(genotype)

    def add(self, genotype: tuple[int, ...], value: T, **more: Any) -> None:
        """Keep a value; `more` is written beside it, for people."""
        self._values[genotype] = value
        if self._path is not None:
            row = {"genotype": genotype, self._key: value, **more}
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
