"""The index of an open gallery, kept up with what is committed, by us or by others.

A hub correction is a dimension more: items are [vector, bias 1, bias 2, ...] and a query is
[vector, 0, 1, ...] with a 1 at its model's place, so that cosine + bias is one inner product,
which the approximate index prunes by as well. Biases are held less their centre: a constant does
not change an order, but as a direction that all items share it would spoil the index's lists.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._filter import Where
from samespace.gallery._hub_store import Correction, HubStore
from samespace.gallery._index import Base, Found, Index, snapshot_notes
from samespace.gallery._passing import Passing
from samespace.gallery._store import Store
from samespace_edge import GalleryError

Vectors = NDArray[np.float32]


class LiveIndex:
    """Follows a store.

    Attributes:
        index: as of the last `refresh`.
        corrections: the hub corrections folded into it.
        passing: which items the last few filters let through.
        stale: set after a write of our own, which `PRAGMA data_version` does not tell.
    """

    def __init__(self, store: Store, hubs: HubStore) -> None:
        self._store = store
        self._hubs = hubs
        self._folder = store.folder
        self._dim: int = store.meta("dim")
        self._gallery: str = store.meta("uuid")
        self._approximate_from: int = store.meta("approximate_from")
        self.index = Index(self._dim)
        self.corrections: tuple[Correction, ...] = ()
        self.stale = True
        self._seen_version: int | None = None
        self._seen_key = 0
        self._seen_tombstone = 0
        self.passing = Passing(store)

    def refresh(self) -> None:
        """Bring the index up to what is committed, by us or by others."""
        version = self._store.data_version()
        if not self.stale and version == self._seen_version:
            return
        with self._store.reading():
            corrections = self._hubs.corrections()
            if self._seen_version is None or _numbers(corrections) != _numbers(self.corrections):
                self._start_over(corrections)
                self._load_snapshot()
            for seq, key in self._store.tombstones(self._seen_tombstone):
                self.index.remove(key)
                self._seen_tombstone = seq
            self._read_new_rows()
        # The version from before the reading: a commit in between is read again, never missed.
        self._seen_version = version
        self.stale = False
        self.passing.forget()
        delta, base = self.index.delta, self.index.base
        behind = len(delta) + (base.removed if base else 0)
        if len(delta) and behind >= max(self._approximate_from, len(self.index) // 4):
            self._rebuild()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Hold one committed state: of the index, and of what is read from the store meanwhile.

        Otherwise an item that another process updates after `refresh` would be found under the
        key of its old row, without a payload, or not pass a filter under either key.
        """
        while True:
            self.refresh()
            with self._store.reading():
                if self._store.data_version() == self._seen_version:
                    yield
                    return

    def compact(self) -> None:
        """Fold what changed into the approximate index, where there is one, after `refresh`."""
        base = self.index.base
        if base and (len(self.index.delta) or base.removed):
            self._rebuild()

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        correction: Correction | None,
        where: Where | None,
        approximate: bool,
        probes: int,
        refine: int,
    ) -> tuple[Found, Vectors | None]:
        """What `Index.search` finds, with cosines as scores, and, with one of `corrections`, the
        cosines plus biases (N, K) that the order is by."""
        folded = queries
        if self.corrections:
            folded = np.zeros((len(queries), self.index.dim), np.float32)
            folded[:, : self._dim] = queries
        if correction is not None:
            column = self._dim + self.corrections.index(correction)
            folded[:, column] = 1
        found = self.index.search(
            folded,
            k,
            keys=None if where is None else self.passing.keys(where),
            approximate=approximate,
            probes=probes,
            refine=refine,
        )
        if correction is None:
            return found, None
        cosines = found.scores - self.index.entries(found.keys, column)
        return replace(found, scores=cosines), found.scores + np.float32(correction.centre)

    def _start_over(self, corrections: tuple[Correction, ...]) -> None:
        self.corrections = corrections
        self.index = Index(self._width)
        self._seen_key = self._seen_tombstone = 0

    @property
    def _width(self) -> int:
        # The product codes take dimensions in pairs where the vectors' width is even; it stays so.
        return self._dim + len(self.corrections) + len(self.corrections) % 2

    def _read_new_rows(self) -> None:
        keys: list[int] = []
        ids: list[str] = []
        raw: list[bytes] = []
        for key, id_, _, vector, _ in self._store.rows(self._seen_key):
            keys.append(key)
            ids.append(id_)
            raw.append(vector)
        if keys:
            vectors = np.frombuffer(b"".join(raw), np.float32).reshape(len(keys), self._dim)
            self.index.delta.add(keys, ids, self._folded(np.array(keys, np.int64), vectors))
            self._seen_key = keys[-1]

    def _folded(self, keys: NDArray[np.int64], vectors: Vectors) -> Vectors:
        if not self.corrections:
            return vectors
        folded = np.zeros((len(keys), self._width), np.float32)
        folded[:, : self._dim] = vectors
        centres = np.array([c.centre for c in self.corrections], np.float32)
        biases = self._hubs.biases(_numbers(self.corrections), keys)
        folded[:, self._dim : self._dim + len(centres)] = biases - centres
        return folded

    def _load_snapshot(self) -> None:
        noted = self._store.meta("snapshot")
        if noted is None:
            return
        numbers = _numbers(self.corrections)
        if noted.get("corrections", []) != numbers:
            return
        state = (noted["last_key"], noted["last_tombstone"])
        base = Base.load(
            self._folder / "index",
            snapshot_notes(self._gallery, *state, noted["token"], numbers),
        )
        if base is not None:
            self.index = Index(self._width, base)
            self._seen_key, self._seen_tombstone = state

    def _rebuild(self) -> None:
        base, delta = self.index.base, self.index.delta
        keys, ids, vectors = delta.keys, delta.ids, delta.vectors
        if base:
            alive = base.alive
            keys = np.concatenate([base.keys[alive], keys])
            ids = np.concatenate([base.ids[alive], ids])
            vectors = np.concatenate([base.vectors[alive], vectors])
        order = np.argsort(keys, kind="stable")
        rebuilt = Base.build(keys[order], ids[order], np.ascontiguousarray(vectors[order]))
        self.index = Index(self._width, rebuilt)
        if self._store.read_only:
            return
        token = secrets.token_hex(8)
        state = (self._seen_key, self._seen_tombstone)
        numbers = _numbers(self.corrections)
        notes = snapshot_notes(self._gallery, *state, token, numbers)
        try:
            rebuilt.save(self._folder / "index", notes)
            value = {"last_key": state[0], "last_tombstone": state[1], "token": token}
            with self._store.writing():
                self._store.set_meta(
                    "snapshot", {**value, "corrections": numbers} if numbers else value
                )
        except (OSError, RuntimeError, GalleryError):
            # The snapshot only saves time at the next opening; the search goes on without it.
            return


def _numbers(corrections: tuple[Correction, ...]) -> list[int]:
    return [c.number for c in corrections]
