"""Manifests of pictures to index, read row by row: CSV or Parquet, here or at a URL."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import PurePath
from typing import IO, Any

from samespace._csv import HEAD, Form, find_form, read_rows, to_number
from samespace.pool import located, opened
from samespace_edge import ConfigError, DataError

SOURCE = "_source"
"""The payload's key that says where an item's picture lay, and its stamp."""

_DATASET = ("path", "label", "split", "role")
_ROWS = 1024
_BLOCK = 2**20


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: in the file, from 1; of a CSV the line where it ends, the header being the first.
        columns: what it holds; without what is empty in a Parquet.
        problem: why it cannot be used, or None.
    """

    number: int
    columns: Mapping[str, Any]
    problem: str | None = None

    @property
    def path(self) -> str:
        """Where the picture is, as it is written there."""
        return str(self.columns.get("path", ""))

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.columns.get("id", self.path))


class Manifest:
    """A list of pictures in a file that may be larger than the memory.

    Args:
        where: a `.csv` or a `.parquet` (extra: `index`), as a path or a URL. Its column `path`
            says where a picture is: a path from the manifest's folder, an absolute one, or a URL.
            A column `id` has the items' ids; without it, ids are the paths as they are written.
            The other columns become the payload; of a dataset's manifest, all but `split` and
            `role`.
        numbers: columns of a CSV that hold numbers, so that payloads can be compared by them.

    Raises `DataError` for a file that cannot be read, `ConfigError` for columns that cannot be
    used.
    """

    _form: Form  # of a CSV

    def __init__(self, where: str | PurePath, *, numbers: Sequence[str] = ()) -> None:
        self.where = str(where)
        self._numbers = tuple(numbers)
        self._parquet = self.where.lower().endswith((".parquet", ".pq"))
        if not self._parquet and not self.where.lower().endswith(".csv"):
            raise DataError(f"{self.where} is neither a .csv nor a .parquet")
        self.columns = self._header()
        if "path" not in self.columns:
            raise DataError(
                f"{self.where} has no column 'path'; its columns: {', '.join(self.columns)}"
            )
        if len(set(self.columns)) != len(self.columns):
            raise DataError(f"{self.where} has a column twice: {', '.join(self.columns)}")
        if SOURCE in self.columns:
            raise DataError(f"{self.where} has a column {SOURCE!r}, which is kept for the source")
        if unknown := sorted(set(numbers) - set(self.columns)):
            raise ConfigError(f"{self.where} has no column {', '.join(unknown)} to hold numbers")
        dataset = tuple(self.columns[:4]) == _DATASET
        self._dropped = {"path", "id", *(_DATASET[2:] if dataset else ())}

    def __repr__(self) -> str:
        return f"Manifest({self.where!r}, columns {', '.join(self.columns)})"

    def count(self) -> int:
        """How many rows there are; of a CSV its lines, which is no less."""
        with self._file() as file:
            if self._parquet:
                return int(_parquet(file, self.where).metadata.num_rows)
            lines, last = 0, b"\n"
            while block := file.read(_BLOCK):
                lines, last = lines + block.count(b"\n"), block[-1:]
            return max(0, lines + (last != b"\n") - 1)

    def rows(self) -> Iterator[Row]:
        """Every row, in order. Held are some 1,000 of them, of Parquet one row group's pages.

        Raises `DataError` where the file turns out to be damaged.
        """
        if self._parquet:
            with self._file() as file:
                yield from self._from_parquet(file)
        else:
            with self._file() as file:
                yield from self._from_csv(file)

    def located(self, row: Row) -> str:
        """Where a row's picture is: a path or a URL."""
        return located(row.path, self._folder)

    def payload(self, row: Row) -> dict[str, Any]:
        """What is kept with a row's item."""
        return {k: v for k, v in row.columns.items() if k not in self._dropped}

    @property
    def _folder(self) -> str:
        if "://" in self.where:
            return self.where.rpartition("/")[0]
        return str(PurePath(self.where).parent)

    def _file(self) -> IO[bytes]:
        try:
            return opened(self.where)
        except OSError as error:
            raise DataError(f"the manifest {self.where} cannot be read: {error}") from None

    def _header(self) -> list[str]:
        if self._parquet:
            with self._file() as file:
                return list(_parquet(file, self.where).schema_arrow.names)
        with self._file() as file:
            self._form = find_form(file.read(HEAD), self.where, ["path"], known=("id", *_DATASET))
        return list(self._form.columns)

    def _from_csv(self, file: IO[bytes]) -> Iterator[Row]:
        columns = self._form.columns
        for line, fields in read_rows(file, self._form, self.where):
            row = dict(zip(columns, fields, strict=False))
            if len(fields) != len(columns):
                yield Row(line, row, "has another number of fields than the header")
            else:
                yield self._checked_csv(line, row)

    def _checked_csv(self, line: int, found: dict[str, Any]) -> Row:
        for name in self._numbers:
            try:
                number = to_number(found.pop(name))
            except ValueError as error:
                return Row(line, found, f"its column {name!r} holds no number: {error}")
            if number is not None:
                found[name] = number
        return _checked(Row(line, found))

    def _from_parquet(self, file: IO[bytes]) -> Iterator[Row]:
        number = 0
        source = _parquet(file, self.where)
        try:
            for batch in source.iter_batches(batch_size=_ROWS):
                for found in batch.to_pylist():
                    number += 1
                    yield _checked(Row(number, {k: _plain(v) for k, v in found.items()}))
        except OSError as error:  # pyarrow's errors are that, or ValueErrors
            raise DataError(f"{self.where} cannot be read on after row {number}: {error}") from None


def _checked(row: Row) -> Row:
    columns = {k: v for k, v in row.columns.items() if v is not None}
    problem = None
    if not columns.get("path"):
        problem = "has no path"
    elif "\0" in str(columns["path"]):
        problem = "its path holds a NUL character"
    elif "id" in row.columns and not str(columns.get("id", "")):
        problem = "has no id"
    else:
        try:
            json.dumps(columns, allow_nan=False)
        except (TypeError, ValueError) as error:
            problem = f"holds what a payload cannot: {error}"
    return Row(row.number, columns, problem)


def _plain(value: Any) -> Any:
    """A value of a Parquet as JSON has it; None for what is not there."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value


def _parquet(file: IO[bytes], where: str) -> Any:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(
            f"{where} is read through pyarrow, which is not installed: "
            'pip install "samespace[index]"'
        ) from None
    try:
        return parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where} is not a readable Parquet file: {error}") from None
