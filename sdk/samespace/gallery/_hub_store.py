"""Hub corrections as they are stored: two tables that a gallery gets with its first correction.

A bias is written in the transaction that writes its item, and goes with it: a trigger sees to
that, so no way of deleting an item can forget it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._schema import SCHEMA, UPGRADED
from samespace.gallery._store import Store
from samespace.metrics import hub_bias

Vectors = NDArray[np.float32]

ROWS_AT_ONCE = 8192
"""Items whose biases are computed together."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS corrections ("
    "id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL UNIQUE, k INTEGER NOT NULL, "
    "weight REAL NOT NULL, centre REAL NOT NULL, bank BLOB NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS biases ("
    "key INTEGER NOT NULL, correction INTEGER NOT NULL, bias REAL NOT NULL, crc INTEGER NOT NULL, "
    "PRIMARY KEY (key, correction)) WITHOUT ROWID",
    "CREATE TRIGGER IF NOT EXISTS biases_go_with_items AFTER DELETE ON items "
    "BEGIN DELETE FROM biases WHERE key = OLD.key; END",
)


@dataclass(frozen=True, eq=False)
class Correction:
    """A hub correction.

    Attributes:
        number: its own, never used again.
        model: number of the query model.
        k, weight: of `samespace.metrics.hub_bias`.
        centre: a typical bias; the index holds biases less this, see `_live`.
        bank: float32 (B, D), unit vectors made by the query model.
    """

    number: int
    model: int
    k: int
    weight: float
    centre: float
    bank: Vectors

    def bias(self, vectors: Vectors) -> Vectors:
        """Biases (M,) of item vectors (M, D)."""
        return hub_bias(vectors, self.bank, self.k, self.weight)


class HubStore:
    """The corrections of an open database; the lock around the store holds for this too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dim: int = store.meta("dim")
        self._known: dict[int, Correction] = {}

    # reading

    def corrections(self) -> tuple[Correction, ...]:
        """Every correction, by number; raises `GalleryDamagedError`."""
        schema = self._store.meta("schema")
        if schema == SCHEMA:
            return ()
        with self._store.errors():
            tables = self._store.db.execute(
                "SELECT count(*) FROM sqlite_master "
                "WHERE name IN ('corrections', 'biases', 'biases_go_with_items')"
            ).fetchone()
            if tables[0] == 0 and schema == UPGRADED:  # never had one
                return ()
            if tables[0] != 3:
                raise self._store.damaged("tables of its hub corrections are missing")
            found = self._store.db.execute("SELECT id FROM corrections ORDER BY id").fetchall()
        # A correction is never changed, so its bank is read once.
        self._known = {n: self._known[n] if n in self._known else self._read(n) for (n,) in found}
        return tuple(self._known.values())

    def _read(self, number: int) -> Correction:
        model, k, weight, centre, bank, crc = self._store.db.execute(
            "SELECT model, k, weight, centre, bank, crc FROM corrections WHERE id = ?", (number,)
        ).fetchone()
        try:
            intact = _correction_crc(model, k, weight, centre, bank) == crc
        except (TypeError, struct.error):  # a value of another type than was written
            intact = False
        if not intact:
            raise self._store.damaged("a hub correction was changed")
        vectors = np.frombuffer(bank, np.float32).reshape(-1, self._dim)
        return Correction(number, model, k, weight, centre, vectors)

    def biases(self, numbers: Sequence[int], keys: NDArray[np.int64]) -> Vectors:
        """Biases (n, corrections) of the live items with these `keys`, ascending, the last of
        which is the gallery's last.

        Raises `GalleryDamagedError` where one is not there or is not what was written.
        """
        table = np.full((len(keys), len(numbers)), np.nan, np.float32)
        if not len(keys):
            return table
        column = {number: i for i, number in enumerate(numbers)}
        with self._store.errors():
            rows = self._store.db.execute(
                "SELECT key, correction, bias, crc FROM biases WHERE key >= ? ORDER BY key",
                (int(keys[0]),),
            )
            place = 0
            for key, number, bias, crc in rows:
                while place < len(keys) and keys[place] < key:
                    place += 1
                if place == len(keys) or keys[place] != key or number not in column:
                    raise self._store.damaged(f"a bias of item key {key} belongs to nothing")
                try:
                    intact = _bias_crc(key, number, bias) == crc
                except struct.error:
                    intact = False
                if not intact:
                    raise self._store.damaged(f"the bias of item key {key} was changed")
                table[place, column[number]] = bias
        if np.isnan(table).any():
            raise self._store.damaged("items lack the bias of a hub correction")
        return table

    def check(self) -> None:
        """Read everything; raises `GalleryDamagedError`."""
        numbers = [c.number for c in self.corrections()]
        if numbers:
            with self._store.errors():
                keys = self._store.db.execute("SELECT key FROM items ORDER BY key").fetchall()
            self.biases(numbers, np.array(keys, np.int64).reshape(-1))

    # writing, inside `Store.writing`

    def put(
        self,
        made: Correction,
        keys: NDArray[np.int64],
        biases: Vectors,
    ) -> None:
        """Store a correction (`number` is given here) instead of the model's former one.

        `keys` are the items whose biases (n,) are known, of which some may be gone meanwhile;
        items with a greater key get theirs here.
        """
        for statement in _TABLES:
            self._store.db.execute(statement)
        self._store.settle_schema(corrected=True)
        self._remove(made.model)
        raw = made.bank.tobytes()
        values = (made.model, made.k, made.weight, made.centre, raw)
        number = self._store.db.execute(
            "INSERT INTO corrections (model, k, weight, centre, bank, crc) "
            "VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
            (*values, _correction_crc(*values)),
        ).fetchone()[0]
        alive = {key for (key,) in self._store.db.execute("SELECT key FROM items")}
        pairs = zip(keys.tolist(), biases.tolist(), strict=True)
        self._insert(int(number), ((key, bias) for key, bias in pairs if key in alive))
        self._cover(self._read(int(number)), int(keys[-1]) if len(keys) else 0)

    def take(self, model: int) -> None:
        """Remove the correction of a model and its biases, if it has one."""
        if not self.corrections():
            return
        self._remove(model)
        if not self._store.db.execute("SELECT 1 FROM corrections").fetchone():
            self._store.settle_schema(corrected=False)

    def cover(self) -> None:
        """Store the biases of items inserted in this transaction."""
        for correction in self.corrections():
            row = self._store.db.execute(
                "SELECT key FROM biases WHERE correction = ? ORDER BY key DESC LIMIT 1",
                (correction.number,),
            ).fetchone()
            # Every item but the new ones has its bias, and new keys are greater than all others.
            self._cover(correction, row[0] if row else 0)

    def _cover(self, correction: Correction, after: int) -> None:
        rows = self._store.db.execute(
            "SELECT key, vector FROM items WHERE key > ? ORDER BY key", (after,)
        )
        while part := rows.fetchmany(ROWS_AT_ONCE):
            raw = b"".join(vector for _, vector in part)
            biases = correction.bias(np.frombuffer(raw, np.float32).reshape(len(part), self._dim))
            keys = (key for key, _ in part)
            self._insert(correction.number, zip(keys, biases.tolist(), strict=True))

    def _insert(self, number: int, biases: Iterable[tuple[int, float]]) -> None:
        self._store.db.executemany(
            "INSERT INTO biases VALUES (?, ?, ?, ?)",
            ((key, number, bias, _bias_crc(key, number, bias)) for key, bias in biases),
        )

    def _remove(self, model: int) -> None:
        for statement in (
            "DELETE FROM biases WHERE correction IN (SELECT id FROM corrections WHERE model = ?)",
            "DELETE FROM corrections WHERE model = ?",
        ):
            self._store.db.execute(statement, (model,))


def _correction_crc(model: int, k: int, weight: float, centre: float, bank: bytes) -> int:
    return zlib.crc32(bank, zlib.crc32(struct.pack("<qqdd", model, k, weight, centre)))


def _bias_crc(key: int, number: int, bias: float) -> int:
    return zlib.crc32(struct.pack("<qqd", key, number, bias))
