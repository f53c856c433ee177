"""Pictures that were set aside, in a CSV that the next run reads, and ids that were seen.

Both may be many: they are kept in a temporary database on the disk.
"""

from __future__ import annotations

import csv
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from samespace_edge import ConfigError, DataError
from samespace_edge._temporary import temporary_for

_CHUNK = 500  # parameters in one IN (...)


@dataclass(frozen=True)
class Failure:
    """What was set aside.

    Attributes:
        kind: `picture`, or `row` of the manifest that cannot be used.
        id: the item's.
        row: of the manifest; see `samespace.indexing.Manifest`.
        path: where the picture is.
        stamp: the source's, by which it is noticed that it changed; empty without one.
        reason: why.
    """

    kind: str
    id: str
    row: int
    path: str
    stamp: str
    reason: str


_FIELDS = [f.name for f in fields(Failure)]


def read_failures(path: str | Path) -> Iterator[Failure]:
    """What a run has set aside, from its report; raises `DataError`."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if list(reader.fieldnames or []) != _FIELDS:
                raise DataError(f"{path} is no report of 'samespace index': name another file")
            for row in reader:
                number = int(row.pop("row"))
                yield Failure(row=number, **row)
    except (csv.Error, TypeError, ValueError) as error:
        raise DataError(f"{path} is a damaged report of 'samespace index': {error}") from None


class Ledger:
    """What a run has seen and set aside.

    Args:
        report: the CSV to go on from, and to write.
        retry: forget the pictures in it, so that they are tried again.

    Raises `ConfigError` where the report cannot be written, `DataError`.
    """

    def __init__(self, report: Path, retry: bool) -> None:
        self.report = report
        self._lock = threading.Lock()
        # Without a name it is a file of its own that SQLite removes.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, row INT) WITHOUT ROWID")
        self._db.execute("CREATE TABLE pictures (id TEXT PRIMARY KEY, row, path, stamp, reason)")
        self._db.execute("CREATE TABLE rows (id, row INTEGER PRIMARY KEY, path, reason)")
        if report.exists() and not retry:
            self.set_aside(f for f in read_failures(report) if f.kind == "picture")
        self.write()

    def close(self) -> None:
        """Forget everything but the report."""
        self._db.close()

    def first_seen(self, ids: Sequence[tuple[str, int]]) -> list[int]:
        """The row where each id (with its row) was first seen, in this run."""
        with self._lock:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", ids)
            self._db.execute("COMMIT")
            found = [
                self._db.execute("SELECT row FROM seen WHERE id = ?", (id_,)).fetchone()
                for id_, _ in ids
            ]
        return [row for (row,) in found]

    def known(self, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Stamp and reason of those of the ids whose pictures were set aside."""
        found: dict[str, tuple[str, str]] = {}
        with self._lock:
            for start in range(0, len(ids), _CHUNK):
                part = ids[start : start + _CHUNK]
                marks = ",".join("?" * len(part))
                rows = self._db.execute(
                    f"SELECT id, stamp, reason FROM pictures WHERE id IN ({marks})", part
                )
                found |= {id_: (stamp, reason) for id_, stamp, reason in rows}
        return found

    def set_aside(self, failures: Iterable[Failure]) -> None:
        """Note these."""
        with self._lock:
            for f in failures:
                if f.kind == "row":
                    values: tuple[object, ...] = (f.id, f.row, f.path, f.reason)
                    self._db.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", values)
                else:
                    values = (f.id, f.row, f.path, f.stamp, f.reason)
                    self._db.execute(
                        "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", values
                    )

    def settle(self, ids: Sequence[str]) -> None:
        """These are in the gallery now."""
        with self._lock:
            self._db.executemany("DELETE FROM pictures WHERE id = ?", [(i,) for i in ids])

    def forget_unseen(self) -> None:
        """Pictures that the manifest no longer has need not be told of."""
        with self._lock:
            self._db.execute("DELETE FROM pictures WHERE id NOT IN (SELECT id FROM seen)")

    def write(self) -> None:
        """Write the report in one step; without anything to tell there is none."""
        temporary = temporary_for(self.report)
        try:
            with self._lock, temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(_FIELDS)
                count = 0
                for failure in self._all():
                    writer.writerow(astuple(failure))
                    count += 1
            if count:
                temporary.replace(self.report)
            else:
                self.report.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the report {self.report} of pictures set aside cannot be written: {error}. Name "
                "another file"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _all(self) -> Iterator[Failure]:
        for id_, row, path, reason in self._db.execute("SELECT * FROM rows ORDER BY row"):
            yield Failure("row", id_, row, path, "", reason)
        for id_, row, path, stamp, reason in self._db.execute(
            "SELECT * FROM pictures ORDER BY row"
        ):
            yield Failure("picture", id_, row, path, stamp, reason)
