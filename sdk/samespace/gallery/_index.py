"""Nearest neighbours in memory: an approximate base, and an exact delta of what came since.

The base is an IVF index with 4-bit product codes and exact re-ranking (faiss
`IVF*,PQ*x4fsr,RFlat`), built once and never changed; the delta is a plain matrix. An item is in
exactly one of them, and is found by its key. Small galleries have no base at all.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from samespace.gallery._checksum import file_crc

Vectors = NDArray[np.float32]

faiss: Any = _faiss  # its Python layer changes signatures at run time, so types would mislead

DEFAULT_PROBES = 32
"""Lists of the approximate index that a query looks into."""

DEFAULT_REFINE = 10
"""How many times k candidates are ranked again exactly."""

_TRAINING_VECTORS = 100_000
_SCAN_SHARE = 0.2  # below this share of passing items a filtered search scans them all


@dataclass(frozen=True)
class Found:
    """Neighbours of a batch of queries.

    Attributes:
        ids: object (N, K).
        keys: int64 (N, K).
        scores: float32 (N, K): inner products, best first.
    """

    ids: NDArray[np.object_]
    keys: NDArray[np.int64]
    scores: Vectors


def _no_ids() -> NDArray[np.object_]:
    return np.empty(0, object)


class Delta:
    """Items held in a growing matrix; removal moves the last one into the gap."""

    def __init__(self, dim: int) -> None:
        self._vectors = np.empty((1024, dim), np.float32)
        self._keys = np.empty(1024, np.int64)
        self._ids = np.empty(1024, object)
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._place)

    @property
    def vectors(self) -> Vectors:
        """(n, D)."""
        return self._vectors[: len(self)]

    @property
    def keys(self) -> NDArray[np.int64]:
        """(n,)."""
        return self._keys[: len(self)]

    @property
    def ids(self) -> NDArray[np.object_]:
        """(n,)."""
        return self._ids[: len(self)]

    def add(self, keys: Sequence[int], ids: Sequence[str], vectors: Vectors) -> None:
        """Append items."""
        start, stop = len(self), len(self) + len(keys)
        if stop > len(self._keys):
            size = max(stop, 2 * len(self._keys))
            for name in ("_vectors", "_keys", "_ids"):
                old = getattr(self, name)
                grown = np.empty((size, *old.shape[1:]), old.dtype)
                grown[:start] = old[:start]
                setattr(self, name, grown)
        self._vectors[start:stop] = vectors
        self._keys[start:stop] = keys
        self._ids[start:stop] = ids
        self._place.update(zip(keys, range(start, stop), strict=True))

    def place(self, key: int) -> int:
        """Position of the item with this key, which has to be there."""
        return self._place[key]

    def remove(self, key: int) -> bool:
        """Remove an item; whether it was there."""
        place = self._place.pop(key, None)
        if place is None:
            return False
        last = len(self._place)
        if place != last:
            for array in (self._vectors, self._keys, self._ids):
                array[place] = array[last]
            self._place[int(self._keys[place])] = place
        self._ids[last] = None
        return True


class Base:
    """An immutable approximate index over many items; removed ones are masked out."""

    def __init__(self, index: Any, keys: NDArray[np.int64], ids: NDArray[np.object_]) -> None:
        self._index = index
        self.keys = keys
        self.ids = ids
        self._alive = np.ones(len(keys), bool)
        self.removed = 0
        flat = faiss.downcast_index(index.refine_index)
        # The exact vectors that faiss re-ranks with; the index owns the memory.
        self.vectors: Vectors = faiss.rev_swig_ptr(flat.get_xb(), len(keys) * flat.d).reshape(
            len(keys), flat.d
        )
        ivf = faiss.extract_index_ivf(faiss.downcast_index(index.base_index))
        self._nlist = int(ivf.nlist)

    def __len__(self) -> int:
        return len(self.keys) - self.removed

    @classmethod
    def build(cls, keys: NDArray[np.int64], ids: NDArray[np.object_], vectors: Vectors) -> Base:
        """Train and fill an index; `keys` in ascending order."""
        n, dim = vectors.shape
        lists = max(16, int(2 ** np.round(np.log2(4 * np.sqrt(n) / 2.5))))
        codes = dim // 2 if dim % 2 == 0 else dim
        coarse = "_HNSW32" if lists >= 2048 else ""
        index = faiss.index_factory(
            dim, f"IVF{lists}{coarse},PQ{codes}x4fsr,RFlat", faiss.METRIC_INNER_PRODUCT
        )
        rng = np.random.default_rng(0)
        size = min(n, max(_TRAINING_VECTORS, 40 * lists))
        sample = vectors if size == n else vectors[np.sort(rng.choice(n, size, replace=False))]
        index.train(sample)
        index.add(vectors)
        return cls(index, keys, ids)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """(n,): which items are still there."""
        return self._alive

    def remove(self, key: int) -> bool:
        """Mask an item out; whether it was there."""
        place = int(np.searchsorted(self.keys, key))
        if place >= len(self.keys) or self.keys[place] != key or not self._alive[place]:
            return False
        self._alive[place] = False
        self.removed += 1
        return True

    def search(
        self, queries: Vectors, k: int, mask: NDArray[np.bool_] | None, probes: int, refine: int
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and positions (N, k) among the items of `mask`; -1 where too few were met."""
        probe: dict[str, Any] = {"nprobe": min(probes, self._nlist)}
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            probe["sel"] = faiss.IDSelectorBitmap(bits)
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=refine, base_index_params=faiss.SearchParametersIVF(**probe)
        )
        scores, places = self._index.search(queries, k, params=parameters)
        return scores, places

    # The file: faiss's own format, and beside it keys and ids; a JSON names both and their sums.

    def save(self, folder: Path, notes: dict[str, Any]) -> None:
        """Write a snapshot that replaces the one in `folder`."""
        folder.mkdir(exist_ok=True)
        token = secrets.token_hex(8)
        graph, table = folder / f"{token}.faiss", folder / f"{token}.npz"
        faiss.write_index(self._index, str(graph))
        encoded = [i.encode() for i in self.ids]
        with table.open("wb") as file:
            np.savez(
                file,
                keys=self.keys,
                alive=self._alive,
                lengths=np.array([len(i) for i in encoded], np.int64),
                ids=np.frombuffer(b"".join(encoded), np.uint8),
            )
        files = {p.name: _sum(p) for p in (graph, table)}
        temporary = folder / f".index.{token}.json"
        temporary.write_text(json.dumps({**notes, "files": files}))
        temporary.replace(folder / "index.json")
        for old in folder.iterdir():
            if old.name not in (*files, "index.json"):
                old.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path, expected: dict[str, Any]) -> Base | None:
        """The snapshot in `folder`, if it is intact and its notes are `expected`."""
        try:
            notes = json.loads((folder / "index.json").read_text())
            files = notes.pop("files")
            if notes != expected or any(_sum(folder / n) != s for n, s in files.items()):
                return None
            graph, table = sorted(files)
            with np.load(folder / table, allow_pickle=False) as arrays:
                stops = np.cumsum(arrays["lengths"])
                blob = arrays["ids"].tobytes()
                keys, alive = arrays["keys"], arrays["alive"]
            starts = np.concatenate([[0], stops[:-1]])
            ids = np.empty(len(keys), object)
            ids[:] = [blob[a:b].decode() for a, b in zip(starts, stops, strict=True)]
            base = cls(faiss.read_index(str(folder / graph)), keys, ids)
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError):
            return None
        base._alive = alive
        base.removed = int((~alive).sum())
        return base


def _sum(path: Path) -> str:
    """Checksum of a file: its size and CRC, or what tells that it is not there."""
    return f"{path.stat().st_size}:{file_crc(path):08x}"


def exact(queries: Vectors, vectors: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """The k best of `vectors` by inner product: scores and positions (N, k)."""
    scores, places = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, places


def merge(parts: Sequence[Found], k: int) -> Found:
    """The k best over several searches of the same queries."""
    if len(parts) == 1:
        return parts[0]
    scores = np.concatenate([p.scores for p in parts], 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Found(
        ids=np.take_along_axis(np.concatenate([p.ids for p in parts], 1), order, 1),
        keys=np.take_along_axis(np.concatenate([p.keys for p in parts], 1), order, 1),
        scores=np.take_along_axis(scores, order, 1),
    )


class Index:
    """Base and delta together."""

    def __init__(self, dim: int, base: Base | None = None) -> None:
        self.dim = dim
        self.base = base
        self.delta = Delta(dim)

    def __len__(self) -> int:
        return len(self.delta) + (len(self.base) if self.base else 0)

    def remove(self, key: int) -> None:
        """Forget an item."""
        if not self.delta.remove(key) and self.base:
            self.base.remove(key)

    def entries(self, keys: NDArray[np.int64], column: int) -> Vectors:
        """One column of the vectors of the items that these keys (any shape) belong to."""
        found = np.zeros(keys.shape, np.float32)
        if self.base:
            places = np.searchsorted(self.base.keys, keys).clip(max=len(self.base.keys) - 1)
            there = (self.base.keys[places] == keys) & self.base.alive[places]
            found[there] = self.base.vectors[places[there], column]
        else:
            there = np.zeros(keys.shape, bool)
        waiting = [self.delta.place(int(key)) for key in keys[~there]]
        found[~there] = self.delta.vectors[waiting, column] if waiting else 0
        return found

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        keys: NDArray[np.int64] | None = None,
        approximate: bool = True,
        probes: int,
        refine: int,
    ) -> Found:
        """The k best items for every query (N, D), among those of `keys` if given.

        Returns min(k, number of items that pass) neighbours of every query. `keys` ascending.
        """
        parts = []
        if self.base and len(self.base):
            parts.append(
                self._search_base(self.base, queries, k, keys, approximate, probes, refine)
            )
        delta = self.delta
        if len(delta):
            if keys is None:
                scores, places = exact(queries, delta.vectors, min(k, len(delta)))
                parts.append(Found(delta.ids[places], delta.keys[places], scores))
            else:
                parts.append(self._scan(queries, k, delta, np.isin(delta.keys, keys)))
        if not parts:
            empty = (len(queries), 0)
            return Found(
                np.empty(empty, object), np.empty(empty, np.int64), np.empty(empty, np.float32)
            )
        return merge(parts, k)

    def _search_base(
        self,
        base: Base,
        queries: Vectors,
        k: int,
        keys: NDArray[np.int64] | None,
        approximate: bool,
        probes: int,
        refine: int,
    ) -> Found:
        mask = base.alive
        if keys is not None:
            mask = mask & np.isin(base.keys, keys, assume_unique=True)
        passing = len(base) if keys is None else int(mask.sum())
        wanted = min(k, passing)
        # An approximate index loses recall when few items pass; those few are quickly scanned.
        if not approximate or wanted == 0 or passing < _SCAN_SHARE * len(base.keys):
            return self._scan(queries, k, base, mask)
        selected = None if passing == len(base.keys) else mask
        scores, places = base.search(queries, wanted, selected, probes, refine)
        found = Found(base.ids[places], base.keys[places], scores)
        short = np.flatnonzero(places[:, -1] < 0)
        if len(short):  # the probed lists held fewer than k
            full = self._scan(queries[short], k, base, mask)
            for name in ("ids", "keys", "scores"):
                getattr(found, name)[short] = getattr(full, name)
        return found

    @staticmethod
    def _scan(queries: Vectors, k: int, items: Base | Delta, mask: NDArray[np.bool_]) -> Found:
        everything = bool(mask.all())
        rows = np.arange(len(mask)) if everything else np.flatnonzero(mask)
        if not len(rows):
            empty = (len(queries), 0)
            return Found(
                np.empty(empty, object), np.empty(empty, np.int64), np.empty(empty, np.float32)
            )
        vectors = items.vectors if everything else items.vectors[rows]
        scores, places = exact(queries, vectors, min(k, len(rows)))
        places = rows[places]
        return Found(items.ids[places], items.keys[places], scores)


def snapshot_notes(
    gallery: str, last_key: int, last_tombstone: int, token: str, corrections: Sequence[int] = ()
) -> dict[str, Any]:
    """What has to agree between a snapshot and its database.

    `corrections` are the numbers of the hub corrections folded into the vectors. Without any, the
    notes are those of galleries that never had one.
    """
    state = f"{gallery} {last_key} {last_tombstone} {token}"
    if corrections:
        state += f" {list(corrections)}"
    digest = hashlib.sha256(state.encode()).hexdigest()
    return {"schema": 1, "state": digest, "last_key": last_key, "last_tombstone": last_tombstone}
