"""Side information: a second vector of every picture, kept for the model that is yet to come.

What an old embedding has forgotten of a picture no adapter can bring back. A vector of another
kind, say of a self-supervised network, stored when the picture is indexed, lets a later adapter
lift the old vector much nearer to the new one (FCT, Ramanujan et al. 2022). It is never searched.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._hub_store import HubStore
from samespace.gallery._inputs import some
from samespace.gallery._schema import SIDE
from samespace.gallery._store import Store
from samespace_edge import ConfigError, DimensionError, ModelIdentity, UnknownIdError

Vectors = NDArray[np.float32]

_TABLE = (
    "CREATE TABLE IF NOT EXISTS side "
    "(id TEXT PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID"
)


class SideStore:
    """The side information of an open database; the lock around the store holds for this too."""

    def __init__(self, store: Store, hubs: HubStore) -> None:
        self._store = store
        self._hubs = hubs

    def model(self) -> ModelIdentity | None:
        """Who makes it; None where there is none."""
        value = self._store.meta(SIDE)
        return None if value is None else ModelIdentity.from_json(value)

    def put(self, model: ModelIdentity, ids: Sequence[str], vectors: Vectors) -> None:
        """Keep vectors (N, S) of items that are there, inside `Store.writing`.

        Raises `ConfigError` where another model made what is there already.
        """
        known = self.model()
        if known is not None and (known.fingerprint, known.dim) != (model.fingerprint, model.dim):
            raise ConfigError(
                f"the gallery's side information is made by {known}, not by {model}; an adapter "
                "needs it of one model"
            )
        self._store.db.execute(_TABLE)
        self._store.set_meta(SIDE, model.to_json())
        self._store.settle_schema(bool(self._hubs.corrections()))
        self._store.db.executemany(
            "INSERT OR REPLACE INTO side VALUES (?, ?, ?)",
            ((i, v.tobytes(), _crc(i, v.tobytes())) for i, v in zip(ids, vectors, strict=True)),
        )

    def get(self, ids: Sequence[str]) -> Vectors:
        """Side information (N, S) of items; raises `UnknownIdError` for those without."""
        model = self.model()
        table = np.empty((len(ids), 0 if model is None else model.dim), np.float32)
        missing = []
        with self._store.errors():
            for place, id_ in enumerate(ids):
                row = (
                    model
                    and self._store.db.execute(
                        "SELECT vector, crc FROM side WHERE id = ?", (id_,)
                    ).fetchone()
                )
                if not row:
                    missing.append(id_)
                elif not isinstance(row[0], bytes) or _crc(id_, row[0]) != row[1]:
                    raise self._store.damaged(f"the side information of {id_!r} was changed")
                else:
                    table[place] = np.frombuffer(row[0], np.float32)
        if missing:
            raise UnknownIdError(f"there is no side information of {some(missing)}")
        return table

    def drop(self, ids: Sequence[str]) -> None:
        """Forget that of items that go, or that become another picture, inside `Store.writing`."""
        if self.model() is not None:
            self._store.db.executemany("DELETE FROM side WHERE id = ?", ((i,) for i in ids))


def side_vectors(vectors: object, model: ModelIdentity, count: int) -> Vectors:
    """Side information as it is kept, float32 (N, S); it need not be of unit length.

    Raises `DimensionError` for another shape, `ConfigError` for NaN or infinity.
    """
    table = np.ascontiguousarray(vectors, np.float32)
    if table.shape != (count, model.dim):
        raise DimensionError(
            f"side information of {count} items by {model} is ({count}, {model.dim}), not "
            f"{table.shape}"
        )
    if not np.isfinite(table).all():
        raise ConfigError("side information holds NaN or infinity")
    return table


def _crc(id_: str, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(id_.encode()))
