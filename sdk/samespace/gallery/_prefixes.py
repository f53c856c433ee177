"""Exact search by the first numbers of every vector, for queries that hold no more of them.

A model trained for it puts what matters most first, so that the leading part of its vectors can be
searched by alone (Matryoshka representation learning, Kusupati et al. 2022). What is held here
follows the record of truth by itself: a gallery that is only searched by prefixes never loads the
index of whole vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._filter import Where
from samespace.gallery._index import exact
from samespace.gallery._inputs import loads
from samespace.gallery._passing import Passing
from samespace.gallery._store import Store
from samespace.gallery._values import SearchResult
from samespace.metrics import shorten
from samespace_edge import ConfigError, ModelIdentity, NotCertifiedError

Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]

BLOCK = 65_536
"""Items in one block: what a removal moves, and what a search looks through at once."""

_READ_AT_ONCE = 8_192


class PrefixSearch:
    """Searches a store by prefixes; the gallery holds a lock around it.

    The prefixes of a width are read at its first search, all of them once, and are held until the
    gallery is closed: `width` times 4 bytes and a key of 8 for every item.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dim: int = store.meta("dim")
        self._widths: dict[int, _Prefixes] = {}

    def require(self, identity: ModelIdentity, number: int, width: int) -> None:
        """Raise unless this admitted model's queries may be searched for by their prefix.

        `ConfigError` for a width that is none, `NotCertifiedError` where nobody measured that
        prefixes of that width retrieve, or where they were measured not to.
        """
        if not 2 <= width < self._dim:
            raise ConfigError(
                f"width is {width}; vectors of {self._dim} numbers are searched by their first 2 "
                f"to {self._dim - 1}, or without width by all"
            )
        # Read every time: another process may have renewed the certificate since.
        certificate = next(c for n, _, c in self._store.models() if n == number)
        if certificate is None:  # the anchor is what others are measured against
            return
        covered = certificate.get("prefixes", [])
        if width not in covered:
            only = ", ".join(map(str, covered)) or "only the full width"
            raise NotCertifiedError(
                f"the certificate of {identity} does not cover the first {width} of {self._dim} "
                f"numbers (it covers: {only}). Run 'samespace verify --prefix {width}' with it and "
                "a bundle of the gallery, then Gallery.admit the certificate if it lists that width"
            )

    def search(self, queries: Vectors, k: int, where: Where | None, payloads: bool) -> SearchResult:
        """The k best items by cosine of the first numbers, for unit prefixes (N, width)."""
        width = queries.shape[1]
        if width not in self._widths:
            self._widths[width] = _Prefixes(self._store, width)
        held = self._widths[width]
        # One state for all of it: what is found is still there when its id is looked up.
        with self._store.reading():
            held.refresh()
            passing = None if where is None else held.passing.keys(where)
            scores, keys = held.nearest(queries, k, passing)
            found = self._store.by_key(np.unique(keys).tolist())
        return SearchResult(
            [[found[key][1] for key in row] for row in keys.tolist()],
            scores,
            [[loads(found[key][4]) for key in row] for row in keys.tolist()] if payloads else None,
        )


class _Block:
    """Up to `BLOCK` items by ascending key, and at least one once it is in use.

    The system gives out memory as it is written to, so that a block with few items is small.
    """

    def __init__(self, width: int) -> None:
        self._keys = np.empty(BLOCK, np.int64)
        self._vectors = np.empty((BLOCK, width), np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def keys(self) -> Keys:
        """(n,)."""
        return self._keys[: self._count]

    @property
    def vectors(self) -> Vectors:
        """(n, width)."""
        return self._vectors[: self._count]

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Add items, for which there has to be room."""
        rows = slice(self._count, self._count + len(keys))
        self._keys[rows] = keys
        self._vectors[rows] = vectors
        self._count += len(keys)

    def remove(self, keys: Keys) -> None:
        """Close the gaps that these keys leave, where they are here at all."""
        places = np.searchsorted(self.keys, keys).clip(max=self._count - 1)
        places = places[self.keys[places] == keys]
        if len(places):
            kept = np.delete(np.arange(self._count), places)
            self._keys[: len(kept)] = self._keys[kept]
            self._vectors[: len(kept)] = self._vectors[kept]
            self._count = len(kept)

    def rows(self, passing: Keys) -> NDArray[np.int64]:
        """Positions of the items with one of these keys, which ascend."""
        low, high = np.searchsorted(passing, [self._keys[0], self._keys[self._count - 1] + 1])
        return np.flatnonzero(np.isin(self.keys, passing[low:high], assume_unique=True))


class _Prefixes:
    """The prefixes of every item, of one width, as of the last `refresh`."""

    def __init__(self, store: Store, width: int) -> None:
        self.width = width
        self.passing = Passing(store)
        self._store = store
        self._blocks: list[_Block] = []
        self._seen_key = 0
        self._seen_tombstone = 0

    def refresh(self) -> None:
        """Bring it up to what is committed, by whomever; inside `Store.reading`."""
        gone = self._store.tombstones(self._seen_tombstone)
        if gone:
            keys = np.array([key for _, key in gone], np.int64)
            for block in self._blocks:
                block.remove(keys)
            self._merge()
            self._seen_tombstone = gone[-1][0]
        before = self._seen_key
        rows = self._store.rows(before)
        while part := list(itertools.islice(rows, _READ_AT_ONCE)):
            whole = np.frombuffer(b"".join(row[3] for row in part), np.float32)
            vectors = shorten(whole.reshape(len(part), -1), self.width)
            self._append(np.array([row[0] for row in part], np.int64), vectors)
        if gone or self._seen_key != before:
            self.passing.forget()

    def nearest(self, queries: Vectors, k: int, passing: Keys | None) -> tuple[Vectors, Keys]:
        """Scores and keys (N, K) of the k best items, among those of `passing` if given."""
        best = (np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        for block in self._blocks:
            keys, vectors = block.keys, block.vectors
            if passing is not None:
                rows = block.rows(passing)
                keys, vectors = keys[rows], vectors[rows]
            if len(keys):
                scores, places = exact(queries, vectors, min(k, len(keys)))
                best = _best([best, (scores, keys[places])], k)
        return best

    def _append(self, keys: Keys, vectors: Vectors) -> None:
        start = 0
        while start < len(keys):
            if not self._blocks or len(self._blocks[-1]) == BLOCK:
                self._blocks.append(_Block(self.width))
            part = slice(start, start + BLOCK - len(self._blocks[-1]))
            self._blocks[-1].append(keys[part], vectors[part])
            start = part.stop
        self._seen_key = int(keys[-1])

    def _merge(self) -> None:
        """Join neighbours that fit into one block, so that all are half full on average."""
        kept: list[_Block] = []
        for block in self._blocks:
            if kept and len(kept[-1]) + len(block) <= BLOCK:
                kept[-1].append(block.keys, block.vectors)
            elif len(block):
                kept.append(block)
        self._blocks = kept


def _best(parts: Sequence[tuple[Vectors, Keys]], k: int) -> tuple[Vectors, Keys]:
    scores = np.concatenate([s for s, _ in parts], 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    keys = np.concatenate([keys for _, keys in parts], 1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)
