"""An upgrade as it is stored: which one it is, what comes next, and every vector it replaced.

An item that is backfilled gets its new vector, and its old one is put aside, in one transaction.
What was put aside belongs to the live row that replaced it and goes with that row: a trigger sees
to it, so an item that its owner deletes, or gives a vector of his own, is never turned back.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._hub_store import HubStore
from samespace.gallery._schema import UPGRADE
from samespace.gallery._store import Store

RUNNING, COMMITTED, ROLLING = "running", "committed", "rolling back"

_CHUNK = 4096  # rows in memory at once, when old vectors are put back
_TABLES = (
    "CREATE TABLE IF NOT EXISTS previous ("
    "key INTEGER PRIMARY KEY, model INTEGER NOT NULL, vector BLOB NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS queue (place INTEGER PRIMARY KEY, key INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS unreadable ("
    "id TEXT PRIMARY KEY, key INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TRIGGER IF NOT EXISTS previous_goes_with_items AFTER DELETE ON items "
    "BEGIN DELETE FROM previous WHERE key = OLD.key; END",
)
_NAMES = ("previous", "queue", "unreadable")

Waiting = tuple[int, str, str | None, bytes]
"""key, id, payload and vector of an item that is to be embedded again."""


@dataclass(frozen=True)
class Stored:
    """An upgrade.

    Attributes:
        target: number of the model that items are embedded with again.
        state: `running`, `committed`, or `rolling back` where that is not one transaction.
        order: name of the order in which items are.
        started: date and time, ISO 8601, UTC.
    """

    target: int
    state: str
    order: str
    started: str


@dataclass(frozen=True)
class Counts:
    """How far an upgrade is.

    Attributes:
        items: in the gallery.
        done: of them, made by the target.
        kept: old vectors that could be put back.
        unreadable: items that could not be embedded again, and why.
    """

    items: int
    done: int
    kept: int
    unreadable: dict[str, str]

    @property
    def waiting(self) -> int:
        """Items that are still to be embedded again."""
        return self.items - self.done - len(self.unreadable)


class UpgradeStore:
    """The upgrade of an open database; the lock around the store holds for this too."""

    def __init__(self, store: Store, hubs: HubStore) -> None:
        self._store = store
        self._hubs = hubs

    # reading

    def current(self) -> Stored | None:
        """The upgrade that is under way or committed, if there is one."""
        value = self._store.meta(UPGRADE)
        return None if value is None else Stored(**value)

    def counts(self, target: int) -> Counts:
        """How far it is; items that came since are counted as they are."""
        made = self._store.count_by_model()
        kept, unreadable = 0, {}
        if self.current() is not None:
            with self._store.errors():
                kept = self._store.db.execute("SELECT count(*) FROM previous").fetchone()[0]
                # An item that was changed or went since is not what could not be read.
                unreadable = dict(
                    self._store.db.execute(
                        "SELECT u.id, u.reason FROM unreadable u JOIN items i ON i.key = u.key "
                        "WHERE i.model != ? ORDER BY u.id",
                        (target,),
                    )
                )
        return Counts(sum(made.values()), made.get(target, 0), int(kept), unreadable)

    def some_waiting(self, target: int, sample: int, total: int) -> list[Waiting]:
        """Up to `sample` of the `total` items that `target` did not make, from all over."""
        step = max(1, total // max(1, sample))
        rows = (
            (key, id_, text, vector)
            for key, id_, model, vector, text in self._store.rows()
            if model != target
        )
        return list(itertools.islice(rows, 0, step * sample, step))

    def waiting(self, target: int, after: int | None, count: int) -> tuple[int, list[Waiting]]:
        """Up to `count` items that the queue has next, and the place where it goes on."""
        with self._store.errors():
            rows = self._store.db.execute(
                "SELECT q.place, i.key, i.id, i.payload, i.vector FROM queue q "
                "JOIN items i ON i.key = q.key WHERE q.place > ? AND i.model != ? "
                "AND NOT EXISTS (SELECT 1 FROM unreadable u WHERE u.key = i.key) "
                "ORDER BY q.place LIMIT ?",
                (after or 0, target, count),
            ).fetchall()
        return (rows[-1][0] if rows else after or 0), [row[1:] for row in rows]

    def unqueued(self, target: int, after: int | None, count: int) -> tuple[int, list[Waiting]]:
        """The same of items that are in no queue: they came, or were changed, since it began."""
        with self._store.errors():
            rows = self._store.db.execute(
                "SELECT key, id, payload, vector FROM items WHERE key > ? AND model != ? "
                "AND NOT EXISTS (SELECT 1 FROM unreadable u WHERE u.key = items.key) "
                "ORDER BY key LIMIT ?",
                (after or 0, target, count),
            ).fetchall()
        return (rows[-1][0] if rows else after or 0), rows

    def check(self) -> None:
        """Read everything that is kept; raises `GalleryDamagedError`."""
        if self.current() is None:
            return
        self._need_tables()
        for _ in self._kept(0, None):
            pass

    def _need_tables(self) -> None:
        with self._store.errors():
            found = self._store.db.execute(
                "SELECT count(*) FROM sqlite_master WHERE name IN "
                "('previous', 'queue', 'unreadable', 'previous_goes_with_items')"
            ).fetchone()[0]
        if found != len(_TABLES):
            raise self._store.damaged("tables of its upgrade are missing")

    def _kept(self, after: int, count: int | None) -> Iterator[tuple[int, int, bytes]]:
        """key, model and vector of what was put aside, in order of the keys."""
        with self._store.errors():
            rows = self._store.db.execute(
                "SELECT key, model, vector, crc FROM previous WHERE key > ? ORDER BY key LIMIT ?",
                (after, -1 if count is None else count),
            )
            for key, model, vector, crc in rows:
                try:
                    intact = _crc(key, model, vector) == crc
                except (TypeError, struct.error):  # a value of another type than was written
                    intact = False
                if not intact:
                    raise self._store.damaged(f"the old vector of item key {key} was changed")
                yield key, model, vector

    # writing, inside `Store.writing`

    def begin(self, upgrade: Stored, keys: NDArray[np.int64]) -> Stored:
        """Note an upgrade, and the order of what it will replace; returns it as it is noted."""
        for statement in _TABLES:
            self._store.db.execute(statement)
        for name in _NAMES:
            self._store.db.execute(f"DELETE FROM {name}")
        self._note(upgrade)
        self._store.db.executemany(
            "INSERT INTO queue VALUES (?, ?)", enumerate(keys.tolist(), start=1)
        )
        return upgrade

    def replace(self, upgrade: Stored, made: Sequence[tuple[int, bytes]]) -> int:
        """Give items (key, vector by the target) their new vectors and keep the old ones.

        Items that went, or were changed, since are left alone; returns how many were replaced.
        """
        found = self._store.by_key([key for key, _ in made])
        rows = [(found[k], new) for k, new in made if k in found and found[k][2] != upgrade.target]
        if not rows:
            return 0
        self._store.remove([old[0] for old, _ in rows])
        first = self._store.insert((o[1], upgrade.target, new, o[4]) for o, new in rows)
        self.keep((key, old[2], old[3]) for key, (old, _) in enumerate(rows, start=first))
        self._hubs.cover()
        return len(rows)

    def set_aside(self, failed: Sequence[tuple[int, str, str]]) -> None:
        """Note items (key, id, reason) that could not be embedded again."""
        self._store.db.executemany(
            "INSERT OR REPLACE INTO unreadable VALUES (?, ?, ?)",
            [(id_, key, reason) for key, id_, reason in failed],
        )

    def try_again(self) -> None:
        """Forget which items could not be read."""
        self._store.db.execute("DELETE FROM unreadable")

    def commit(self, upgrade: Stored) -> None:
        """Say that it is done; the old vectors stay."""
        self._note(Stored(**{**asdict(upgrade), "state": COMMITTED}))
        self._store.db.execute("DELETE FROM queue")

    def rollback(self) -> int:
        """Put every old vector back; returns how many."""
        count, last = 0, 0
        while part := list(self._kept(last, _CHUNK)):
            last = part[-1][0]
            rows = self._store.by_key([key for key, _, _ in part])
            self._store.remove([key for key, _, _ in part])  # the trigger takes what was kept
            self._store.insert((rows[k][1], model, vector, rows[k][4]) for k, model, vector in part)
            count += len(part)
        self._hubs.cover()
        self.forget()
        return count

    def forget(self) -> None:
        """Drop the old vectors and the upgrade itself."""
        for name in _NAMES:
            self._store.db.execute(f"DELETE FROM {name}")
        self._store.unset_meta(UPGRADE)
        self._store.settle_schema(bool(self._hubs.corrections()))

    def kept_for(self, key: int) -> tuple[int, bytes] | None:
        """Model and vector that were put aside for a live row, if any were."""
        if self.current() is None:
            return None
        return next(((m, v) for k, m, v in self._kept(key - 1, 1) if k == key), None)

    def keep(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        """Put vectors aside: (key of the live row, model, vector)."""
        self._store.db.executemany(
            "INSERT INTO previous VALUES (?, ?, ?, ?)",
            ((k, m, v, _crc(k, m, v)) for k, m, v in rows),
        )

    def _note(self, upgrade: Stored) -> None:
        self._store.set_meta(UPGRADE, asdict(upgrade))
        self._store.settle_schema(bool(self._hubs.corrections()))


def _crc(key: int, model: int, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(struct.pack("<qq", key, model)))
