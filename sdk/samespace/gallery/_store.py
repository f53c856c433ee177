"""The gallery's record of truth: one SQLite database in write-ahead mode.

Invariants (see sdk/README.md):
- a row is written once and never changed: an update inserts a new row under a new key and leaves
  a tombstone for the old one, so "everything since key k" is all another process has to read;
- every row carries a CRC of its content, and after a clean close the whole file has one too;
- a commit is on the disk (synchronous=FULL) before it is acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from samespace.gallery._checksum import HANDLES, FileSum
from samespace.gallery._closed import closed
from samespace.gallery._schema import CORRECTED, SCHEMA, SIDE, TABLES, UPGRADE, UPGRADED
from samespace_edge import (
    GalleryBusyError,
    GalleryDamagedError,
    GalleryError,
    GalleryStorageError,
    canonical_json,
)
from samespace_edge._temporary import name_once, temporary_for

DATABASE = "gallery.db"
_CHUNK = 500  # parameters in one IN (...)

Row = tuple[int, str, int, bytes, str | None]
"""key, id, model, vector, payload: an item as it is stored, its CRC already checked."""


def _crc(id_: str, model: int, vector: bytes, payload: str | None) -> int:
    return zlib.crc32(vector, zlib.crc32(f"{model}\0{id_}\0{payload}".encode()))


class Store:
    """An open database. Not thread-safe: the gallery holds a lock around it."""

    def __init__(self, folder: Path, *, read_only: bool, busy_timeout: float) -> None:
        self.folder = folder
        self.path = folder / DATABASE
        self.read_only = read_only
        if not self.path.exists():
            raise GalleryError(
                f"there is no gallery at {folder}: it has no {DATABASE}. Create one with "
                "Gallery.create or 'samespace gallery create'."
            )
        self._sum = FileSum(self.path)
        self._changed = False
        self._closed = False
        with self.errors():
            # A gallery on read-only media has no log to share, so SQLite need not look for one;
            # where a log was left behind, it holds acknowledged items and has to be read.
            left = self._sum.log_left()
            mode = ("mode=ro" if left else "mode=ro&immutable=1") if read_only else "mode=rw"
            self._db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?{mode}",
                uri=True,
                timeout=busy_timeout,
                isolation_level=None,
                check_same_thread=False,
            )
        self._file = HANDLES.opened(self.path)
        try:
            with self.errors():
                if not read_only:
                    self._db.execute("PRAGMA journal_mode = WAL")
                    self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA cache_size = -16384")
            self._check_version()
        except BaseException:
            self._db.close()
            HANDLES.closed(self._file)
            raise

    @staticmethod
    def create(folder: Path, meta: dict[str, Any], anchor: dict[str, Any]) -> None:
        """Write an empty gallery, with its anchor's identity, into `folder` in one step."""
        path = folder / DATABASE
        taken = GalleryError(f"there is already a gallery at {folder}; open it instead")
        try:
            if path.exists():
                raise taken
            folder.mkdir(parents=True, exist_ok=True)
            temporary = temporary_for(path)
            temporary.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(temporary)) as db:
                db.executescript(TABLES)
                for key, value in {"schema": SCHEMA, "uuid": uuid.uuid4().hex, **meta}.items():
                    text = canonical_json(value)
                    db.execute(
                        "INSERT INTO meta VALUES (?, ?, ?)", (key, text, zlib.crc32(text.encode()))
                    )
                _put_model(db, anchor, None)
                db.commit()
            if not name_once(temporary, path):
                raise taken
        except (OSError, sqlite3.OperationalError) as error:
            raise GalleryStorageError(f"cannot create a gallery in {folder}: {error}") from None

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors into the gallery's."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            where = f"gallery {self.folder}"
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise GalleryBusyError(
                    f"{where}: another process is writing; try again, or open the gallery "
                    "with a longer busy_timeout"
                ) from None
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise self.damaged(str(error)) from None
            if code in (
                sqlite3.SQLITE_FULL,
                sqlite3.SQLITE_IOERR,
                sqlite3.SQLITE_READONLY,
                sqlite3.SQLITE_CANTOPEN,
            ):
                raise GalleryStorageError(
                    f"{where}: {error}. Nothing of this call was stored; what was stored before is "
                    "untouched. Free space, make the folder writable, or open it read_only=True."
                ) from None
            raise

    def damaged(self, what: str) -> GalleryDamagedError:
        """The error that says so, to be raised."""
        return GalleryDamagedError(
            f"gallery {self.folder}: {DATABASE} is damaged ({what}), so it is not searched. "
            "Restore the folder from a backup."
        )

    def _check_version(self) -> None:
        with self.errors():
            row = self._db.execute(
                "SELECT count(*) FROM sqlite_master WHERE name IN "
                "('meta', 'models', 'items', 'tombstones')"
            ).fetchone()
        if row[0] != 4:
            raise self.damaged("tables are missing")
        if (schema := self.meta("schema")) not in (SCHEMA, CORRECTED, UPGRADED):
            raise GalleryError(
                f"gallery {self.folder} has schema {schema}; this version reads up to "
                f"{UPGRADED}. Install a newer samespace."
            )

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, for tables that other modules keep in the same database."""
        return self._db

    def close(self) -> None:
        """Close; after a change, fold the log into the file and note the file's checksum."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._changed and not self.read_only:
                with contextlib.suppress(sqlite3.OperationalError):
                    self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._db.close()
            self._db = closed(f"gallery {self.folder}")
            HANDLES.closed(self._file)
        if not self.read_only:
            # Only a database that nobody else has open is left without a log.
            with contextlib.suppress(OSError):
                self._sum.write()

    def check(self) -> bool:
        """Raise `GalleryDamagedError` unless the database holds what was written to it.

        After a clean close the file's own checksum tells in one pass; otherwise, or after the
        file was copied, SQLite's structure and every row are checked; returns whether they were.
        """
        if (intact := self._sum.agrees()) is not None:
            if not intact:
                raise self.damaged("its content is not what was written")
            return False
        with self.errors():
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise self.damaged(problem)
            models = {key for key, *_ in self.models()}
            for row in self.rows():
                if row[2] not in models:
                    raise self.damaged(f"item {row[1]!r} names a model that is not there")
            for (key,) in self._db.execute("SELECT key FROM meta").fetchall():
                self.meta(key)
        return True

    # reading

    def meta(self, key: str, default: Any = None) -> Any:
        """A setting of the gallery."""
        with self.errors():
            row = self._db.execute("SELECT value, crc FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            return default
        if zlib.crc32(row[0].encode()) != row[1]:
            raise self.damaged(f"setting {key!r} was changed")
        return json.loads(row[0])

    def models(self) -> list[tuple[int, dict[str, Any], dict[str, Any] | None]]:
        """Admitted models: number, identity, certificate (None for the anchor)."""
        with self.errors():
            rows = self._db.execute("SELECT id, identity, certificate, crc FROM models").fetchall()
        for _, identity, certificate, crc in rows:
            if zlib.crc32(f"{identity}\0{certificate}".encode()) != crc:
                raise self.damaged("an admitted model was changed")
        return [(n, json.loads(i), json.loads(c) if c else None) for n, i, c, _ in rows]

    def data_version(self) -> int:
        """Changes whenever another connection commits."""
        with self.errors():
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def count_by_model(self) -> dict[int, int]:
        """Number of items of every model."""
        with self.errors():
            return dict(self._db.execute("SELECT model, count(*) FROM items GROUP BY model"))

    def rows(self, after: int = 0) -> Iterator[Row]:
        """Every item with a key above `after`, in order, its CRC checked."""
        return self._checked(
            self._db.execute(
                "SELECT key, id, model, vector, payload, crc FROM items WHERE key > ? ORDER BY key",
                (after,),
            )
        )

    def _checked(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
        with self.errors():
            for key, id_, model, vector, payload, crc in rows:
                try:
                    intact = _crc(id_, model, vector, payload) == crc
                except TypeError:  # a value of another type than was written
                    intact = False
                if not intact:
                    raise self.damaged(f"item {id_!r} does not hold what was written")
                yield key, id_, model, vector, payload

    def by_id(self, ids: Sequence[str]) -> dict[str, Row]:
        """The items with these ids; those that are not there are left out."""
        return {row[1]: row for row in self._lookup("id", ids)}

    def by_key(self, keys: Sequence[int]) -> dict[int, Row]:
        """The items with these keys; those that are not there are left out."""
        return {row[0]: row for row in self._lookup("key", keys)}

    def _lookup(self, column: str, values: Sequence[Any]) -> Iterator[Row]:
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            with self.errors():
                found = self._db.execute(
                    "SELECT key, id, model, vector, payload, crc FROM items "
                    f"WHERE {column} IN ({marks})",
                    part,
                ).fetchall()
            yield from self._checked(found)

    def keys_where(self, condition: str, parameters: Sequence[Any]) -> list[int]:
        """Keys of the items whose payload meets a compiled condition, in order."""
        statement = f"SELECT key FROM items WHERE {condition} ORDER BY key"
        with self.errors():
            return [key for (key,) in self._db.execute(statement, parameters)]

    def sample(self, count: int) -> list[Row]:
        """Up to `count` different items, each the next one after a random key."""
        with self.errors():
            last = self._db.execute("SELECT max(key) FROM items").fetchone()[0] or 0
            found = [
                row
                for _ in range(count)
                for row in self._db.execute(
                    "SELECT key, id, model, vector, payload, crc FROM items "
                    "WHERE key >= ? ORDER BY key LIMIT 1",
                    (random.randint(1, max(last, 1)),),
                )
            ]
        return list(self._checked({row[0]: row for row in found}.values()))

    def tombstones(self, after: int) -> list[tuple[int, int]]:
        """(sequence number, key) of every item that went since `after`."""
        with self.errors():
            return self._db.execute(
                "SELECT seq, key FROM tombstones WHERE seq > ? ORDER BY seq", (after,)
            ).fetchall()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Several reads that see the same state, whatever others write meanwhile."""
        with self.errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    # writing

    def require_writable(self) -> None:
        """Raise `GalleryStorageError` for a gallery that was opened to be read only."""
        if self.read_only:
            raise GalleryStorageError(f"gallery {self.folder} was opened with read_only=True")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all of it is stored, durably, or nothing."""
        self.require_writable()
        with self.errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._changed = True

    def set_meta(self, key: str, value: Any) -> None:
        """Change a setting, inside `writing`."""
        text = canonical_json(value)
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
            "SET value = excluded.value, crc = excluded.crc",
            (key, text, zlib.crc32(text.encode())),
        )

    def unset_meta(self, key: str) -> None:
        """Remove a setting, inside `writing`."""
        self._db.execute("DELETE FROM meta WHERE key = ?", (key,))

    def settle_schema(self, corrected: bool) -> None:
        """Set the schema to what the gallery now holds, inside `writing`.

        Args:
            corrected: whether there are hub corrections.
        """
        plain = CORRECTED if corrected else SCHEMA
        more = self.meta(UPGRADE) is not None or self.meta(SIDE) is not None
        self.set_meta("schema", UPGRADED if more else plain)

    def put_model(self, identity: dict[str, Any], certificate: dict[str, Any] | None) -> int:
        """Admit a model, or renew its certificate, inside `writing`; returns its number."""
        return _put_model(self._db, identity, certificate)

    def insert(self, rows: Iterable[tuple[str, int, bytes, str | None]]) -> int:
        """Insert (id, model, vector, payload), inside `writing`; returns the first one's key.

        The keys of the others follow it without gaps. Raises `sqlite3.IntegrityError` where an id
        is already there.
        """
        last = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
        first = (last[0] if last else 0) + 1
        self._db.executemany(
            "INSERT INTO items (key, id, model, vector, payload, crc) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (key, i, m, v, p, _crc(i, m, v, p))
                for key, (i, m, v, p) in enumerate(rows, start=first)
            ),
        )
        return int(first)

    def remove(self, keys: Sequence[int]) -> None:
        """Delete items by key, inside `writing`."""
        parameters = [(key,) for key in keys]
        self._db.executemany("DELETE FROM items WHERE key = ?", parameters)
        self._db.executemany("INSERT INTO tombstones (key) VALUES (?)", parameters)


def _put_model(
    db: sqlite3.Connection, identity: dict[str, Any], certificate: dict[str, Any] | None
) -> int:
    # A model is known by its fingerprint and file; renamed, it keeps its number and its items.
    text = canonical_json(identity)
    proof = canonical_json(certificate) if certificate else None
    crc = zlib.crc32(f"{text}\0{proof}".encode())
    (number,) = db.execute(
        "INSERT INTO models (fingerprint, variant_sha256, identity, certificate, crc) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT (fingerprint, variant_sha256) DO UPDATE SET "
        "identity = excluded.identity, certificate = excluded.certificate, crc = excluded.crc "
        "RETURNING id",
        (identity["fingerprint"], identity["variant_sha256"], text, proof, crc),
    ).fetchone()
    return int(number)
