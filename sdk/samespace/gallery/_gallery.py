"""The gallery: item vectors that outlive models, and never meet what they cannot be compared to."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace._certificate import Certificate
from samespace.gallery._filter import Where, compile_where
from samespace.gallery._index import Base, Found, Index, snapshot_notes
from samespace.gallery._store import Row, Store
from samespace_edge import (
    Bundle,
    ConfigError,
    DimensionError,
    DuplicateIdError,
    Embedder,
    Fingerprint,
    GalleryError,
    ImageSource,
    InvalidVectorError,
    ModelIdentity,
    NotCertifiedError,
    UnknownIdError,
)

Vectors = NDArray[np.float32]

APPROXIMATE_FROM = 50_000
"""Items from which on a gallery builds an approximate index, unless told otherwise."""

_SHOWN = 5
_CACHED_FILTERS = 8
_KEEP: Any = object()


@dataclass(frozen=True)
class Hit:
    """An item that was found.

    Attributes:
        id: the item's.
        score: cosine with the query, -1 to 1.
        payload: what was stored with it; None if payloads were not asked for.
    """

    id: str
    score: float
    payload: Any = None


@dataclass(frozen=True)
class Record:
    """An item as it is stored.

    Attributes:
        vector: float32 (D,), a unit vector.
        model: who made it.
    """

    id: str
    vector: Vectors
    payload: Any
    model: ModelIdentity


@dataclass(frozen=True)
class SearchResult:
    """What a batch of queries found; iterate over it for lists of `Hit`.

    Attributes:
        ids: for every query the ids, best first.
        scores: float32 (N, K): cosines; K is the smaller of k and the items there are.
        payloads: for every query the payloads, or None if they were not asked for.
    """

    ids: list[list[str]]
    scores: Vectors
    payloads: list[list[Any]] | None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, query: int) -> list[Hit]:
        payloads = self.payloads[query] if self.payloads else [None] * len(self.ids[query])
        return [
            Hit(id_, float(score), payload)
            for id_, score, payload in zip(
                self.ids[query], self.scores[query], payloads, strict=True
            )
        ]

    def __iter__(self) -> Iterator[list[Hit]]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class GalleryStats:
    """A gallery in figures.

    Attributes:
        items: how many.
        by_model: items by the model that made them.
        admitted: every model whose vectors and queries are accepted.
        approximate: whether searches go through an approximate index.
        bytes_on_disk: size of the folder.
    """

    name: str
    space: Fingerprint
    dim: int
    items: int
    by_model: Mapping[ModelIdentity, int]
    admitted: tuple[ModelIdentity, ...]
    approximate: bool
    bytes_on_disk: int


class Gallery:
    """Item vectors of one embedding space, on disk, durable and searchable.

    >>> gallery = Gallery.create("shop", "cloud.bundle")              # doctest: +SKIP
    >>> gallery.add(["cup"], images=["cup.jpg"], model=cloud)         # doctest: +SKIP
    >>> gallery.search(images=["photo.jpg"], model=edge, k=3)[0][0].id  # doctest: +SKIP
    'cup'

    Use it as a context manager, or call `close`. Several processes may have the same gallery
    open; one of them writes at a time, the others wait.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self.path = store.folder
        self.name: str = store.meta("name")
        self.dim: int = store.meta("dim")
        self.space = Fingerprint(store.meta("space"))
        self._approximate_from: int = store.meta("approximate_from")
        self._uuid: str = store.meta("uuid")
        self._models: dict[tuple[str, str], tuple[int, ModelIdentity]] = {}
        self._index = Index(self.dim)
        self._seen_version: int | None = None
        self._seen_key = 0
        self._seen_tombstone = 0
        self._stale = True
        self._filters: dict[str, NDArray[np.int64]] = {}
        self._load_models()

    @classmethod
    def create(
        cls,
        path: str | Path,
        anchor: Embedder | Bundle | str | Path,
        *,
        name: str | None = None,
        approximate_from: int = APPROXIMATE_FROM,
    ) -> Gallery:
        """Create an empty gallery in the space of a cloud model.

        Args:
            path: the folder to make.
            anchor: the cloud model's bundle. It defines the space, so it needs no certificate.
            name: a label; by default the folder's name.
            approximate_from: number of items from which on an approximate index is built.

        Raises `NotCertifiedError` for a bundle that lives in another model's space,
        `GalleryError` where there is a gallery already, `GalleryStorageError`.
        """
        identity = _identity(anchor)
        if not identity.is_anchor:
            raise NotCertifiedError(
                f"{identity} lives in the space {identity.space.short}… of another model; "
                "create the gallery with the bundle of that cloud model"
            )
        folder = Path(path)
        meta = {
            "name": name or folder.name,
            "dim": identity.dim,
            "space": identity.space.hex,
            "approximate_from": approximate_from,
        }
        Store.create(folder, meta)
        gallery = cls.open(folder)
        with gallery._store.writing():
            gallery._store.put_model(identity.to_json(), None)
        gallery._load_models()
        return gallery

    @classmethod
    def open(
        cls, path: str | Path, *, read_only: bool = False, busy_timeout: float = 10.0
    ) -> Gallery:
        """Open a gallery.

        Args:
            path: its folder.
            read_only: for folders that cannot be written; nobody may be writing meanwhile.
            busy_timeout: how long to wait for another writer, in seconds.

        Raises `GalleryError` where there is none, `GalleryDamagedError` where the database does
        not hold what was written to it, `GalleryStorageError`.
        """
        store = Store(Path(path), read_only=read_only, busy_timeout=busy_timeout)
        try:
            store.check()
            return cls(store)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Close; the gallery cannot be used afterwards."""
        with self._lock:
            self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gallery({self.name!r}, {len(self)} items, space {self.space.short}…)"

    def __len__(self) -> int:
        with self._lock:
            self._refresh()
            return len(self._index)

    def __contains__(self, id_: str) -> bool:
        with self._lock:
            return bool(self._store.by_id([id_]))

    # who may add and search

    @property
    def admitted(self) -> tuple[ModelIdentity, ...]:
        """The models whose vectors and queries are accepted, the anchor first."""
        return tuple(identity for _, identity in self._models.values())

    def admit(self, certificate: Certificate | str | Path) -> ModelIdentity:
        """Accept a model's vectors and queries from now on.

        Args:
            certificate: what a passing `verify` issued, or its file.

        Returns the admitted model. Raises `CertificateError` for one that was changed or did not
        pass, `NotCertifiedError` for one of another space.
        """
        if not isinstance(certificate, Certificate):
            certificate = Certificate.read(certificate)
        query, gallery = certificate.query, certificate.gallery
        with self._lock:
            if gallery.space != self.space or not self._admitted(gallery):
                raise NotCertifiedError(
                    f"the certificate says that {query} retrieves in galleries of {gallery}; "
                    f"gallery {self.name!r} holds vectors of {', '.join(map(str, self.admitted))}. "
                    "Verify the bundle against one of these."
                )
            if query.dim != self.dim:
                raise DimensionError(
                    f"{query} makes vectors of {query.dim}; gallery {self.name!r} holds {self.dim}"
                )
            with self._store.writing():
                self._store.put_model(query.to_json(), certificate.to_json())
            self._load_models()
        return query

    def _admitted(self, identity: ModelIdentity) -> bool:
        return (identity.fingerprint.hex, identity.variant_sha256) in self._models

    def _load_models(self) -> None:
        found = {}
        for number, value, certificate in self._store.models():
            identity = ModelIdentity.from_json(value)
            if certificate is not None:
                Certificate.from_json(certificate)
            found[identity.fingerprint.hex, identity.variant_sha256] = (number, identity)
        self._models = found

    def _number_of(self, identity: ModelIdentity) -> int:
        key = (identity.fingerprint.hex, identity.variant_sha256)
        if key not in self._models:
            with self._lock:
                self._load_models()  # another process may have admitted it
        if key in self._models:
            return self._models[key][0]
        if identity.space != self.space:
            raise NotCertifiedError(
                f"gallery {self.name!r} holds vectors of space {self.space.short}…; the bundle "
                f"{identity} belongs to space {identity.space.short}…. Verify it against a bundle "
                "of that space, or create a new gallery."
            )
        raise NotCertifiedError(
            f"the bundle {identity} says that it belongs to the space {self.space.short}… of "
            f"gallery {self.name!r}, but no certificate proves it. Run 'samespace verify' with it "
            "and a bundle of the gallery, then Gallery.admit the certificate."
        )

    # writing

    def add(
        self,
        ids: Sequence[str],
        *,
        model: Embedder | ModelIdentity,
        vectors: Vectors | None = None,
        images: Sequence[ImageSource] | None = None,
        payloads: Sequence[Any] | None = None,
    ) -> None:
        """Add items; when it returns they are on the disk, and all of them or none are.

        Args:
            ids: a new id for every item.
            model: who makes, or made, the vectors.
            vectors: (N, D); or
            images: the pictures, embedded here by `model`, which then has to be an `Embedder`.
            payloads: what JSON can hold, for every item.

        Raises `NotCertifiedError`, `DimensionError`, `InvalidVectorError`, `DuplicateIdError`,
        `GalleryBusyError`, `GalleryStorageError`, and the embedder's errors.
        """
        ids = _checked_ids(ids)
        number = self._number_of(_identity(model))
        raw = self._vectors(model, vectors, images, ids).tobytes()
        texts = _payload_texts(payloads, len(ids))
        size = self.dim * 4
        rows = (
            (id_, number, raw[i * size : (i + 1) * size], text)
            for i, (id_, text) in enumerate(zip(ids, texts, strict=True))
        )
        with self._lock:
            try:
                with self._store.writing():
                    self._store.insert(rows)
            except sqlite3.IntegrityError:
                there = list(self._store.by_id(ids))
                raise DuplicateIdError(
                    f"gallery {self.name!r} already has {_some(there)}; nothing of this call was "
                    "added. Use update for those."
                ) from None
            self._stale = True

    def update(
        self,
        id_: str,
        *,
        payload: Any = _KEEP,
        model: Embedder | ModelIdentity | None = None,
        vector: Vectors | None = None,
        image: ImageSource | None = None,
    ) -> None:
        """Replace an item's payload, its vector (D,) with the `model` that made it, or both.

        Raises `UnknownIdError` and the errors of `add`.
        """
        with self._lock:
            raw = None
            number = None
            if vector is not None or image is not None:
                if model is None:
                    raise ConfigError("a new vector needs the model that made it")
                number = self._number_of(_identity(model))
                new = None if vector is None else np.asarray(vector)[None]
                images = None if image is None else [image]
                raw = self._vectors(model, new, images, [id_]).tobytes()
            text = None if payload is _KEEP else _payload_texts([payload], 1)[0]
            with self._store.writing():
                key, _, old_number, old_raw, old_text = self._existing([id_])[0]
                self._store.remove([key])
                self._store.insert(
                    [
                        (
                            id_,
                            old_number if number is None else number,
                            old_raw if raw is None else raw,
                            old_text if payload is _KEEP else text,
                        )
                    ]
                )
            self._stale = True

    def delete(self, ids: Sequence[str]) -> None:
        """Delete items, all of them or none; raises `UnknownIdError` naming those not there."""
        with self._lock:
            with self._store.writing():
                self._store.remove([row[0] for row in self._existing(_checked_ids(ids))])
            self._stale = True

    def _existing(self, ids: Sequence[str]) -> list[Row]:
        found = self._store.by_id(ids)
        if missing := [i for i in ids if i not in found]:
            raise UnknownIdError(f"gallery {self.name!r} has no {_some(missing)}")
        return [found[i] for i in ids]

    def _vectors(
        self,
        model: Embedder | ModelIdentity,
        vectors: Vectors | None,
        images: Sequence[ImageSource] | None,
        names: Sequence[str] | None = None,
    ) -> Vectors:
        """Unit vectors, contiguous float32 (N, D), checked."""
        if (vectors is None) == (images is None):
            raise ConfigError("give either vectors or images")
        if images is not None:
            if not isinstance(model, Embedder):
                raise ConfigError("images are embedded by an Embedder; model only names one")
            vectors = model.embed(images)
        array = np.asarray(vectors)
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise DimensionError(
                f"gallery {self.name!r} holds vectors of width {self.dim}, so it takes (N, "
                f"{self.dim}), not {array.shape}"
            )
        if array.dtype.kind != "f":
            raise InvalidVectorError(f"vectors have to be floats, not {array.dtype}")
        if names is not None and len(names) != len(array):
            raise ConfigError(f"{len(names)} ids for {len(array)} vectors")
        array = np.ascontiguousarray(array, np.float32)
        norms = np.sqrt(np.einsum("nd,nd->n", array, array))
        # A NaN or an infinity anywhere makes the norm one too.
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 1e-6)))
        if len(bad):
            which = _some([names[int(i)] for i in bad]) if names else f"query {bad[0]}"
            raise InvalidVectorError(
                f"{which}: a vector holds NaN or infinity, or is zero and so has no direction"
            )
        if np.abs(norms - 1).max(initial=0) > 1e-5:
            array = array / norms[:, None]
        return array

    # reading

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The items with these ids, in this order; raises `UnknownIdError`."""
        with self._lock:
            rows = self._existing(_checked_ids(ids, unique=False))
            by_number = dict(self._models.values())
            if any(row[2] not in by_number for row in rows):
                self._load_models()
                by_number = dict(self._models.values())
        return [
            Record(id_, np.frombuffer(raw, np.float32), _loads(text), by_number[number])
            for _, id_, number, raw, text in rows
        ]

    def search(
        self,
        *,
        model: Embedder | ModelIdentity,
        vectors: Vectors | None = None,
        images: Sequence[ImageSource] | None = None,
        k: int = 10,
        where: Where | None = None,
        exact: bool = False,
        payloads: bool = True,
        probes: int = 16,
    ) -> SearchResult:
        """Find the k nearest items of every query.

        Args:
            model: who makes, or made, the query vectors.
            vectors: (N, D); or
            images: pictures, embedded here by `model`.
            k: how many; all of them where the gallery has fewer.
            where: a filter on payloads, see `sdk/README.md`.
            exact: scan everything, whatever the size.
            payloads: whether to fetch the payloads of what is found.
            probes: how many lists of an approximate index to look into; more finds more.

        Raises `NotCertifiedError`, `DimensionError`, `InvalidVectorError`, `FilterError`, and the
        embedder's errors.
        """
        if k < 1:
            raise ConfigError(f"k has to be 1 or more, not {k}")
        self._number_of(_identity(model))
        queries = self._vectors(model, vectors, images)
        with self._lock:
            self._refresh()
            found = self._index.search(
                queries,
                k,
                keys=None if where is None else self._passing(where),
                approximate=not exact,
                probes=probes,
            )
            fetched = self._payloads(found) if payloads else None
        return SearchResult(found.ids.tolist(), found.scores, fetched)

    def _payloads(self, found: Found) -> list[list[Any]]:
        keys = found.keys.tolist()
        rows = self._store.by_key(sorted({key for row in keys for key in row}))
        values = {key: _loads(row[4]) for key, row in rows.items()}
        return [[values.get(key) for key in row] for row in keys]

    def _passing(self, where: Where) -> NDArray[np.int64]:
        condition, parameters = compile_where(where)
        cached = json.dumps([condition, parameters])
        if cached not in self._filters:
            if len(self._filters) >= _CACHED_FILTERS:
                self._filters.pop(next(iter(self._filters)))
            keys = self._store.keys_where(condition, parameters)
            self._filters[cached] = np.array(keys, np.int64)
        return self._filters[cached]

    def stats(self) -> GalleryStats:
        """The gallery in figures."""
        with self._lock:
            self._refresh()
            self._load_models()
            counts = self._store.count_by_model()
            return GalleryStats(
                name=self.name,
                space=self.space,
                dim=self.dim,
                items=len(self._index),
                by_model={i: counts.get(n, 0) for n, i in self._models.values()},
                admitted=self.admitted,
                approximate=self._index.base is not None,
                bytes_on_disk=sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file()),
            )

    def export(self, path: str | Path) -> int:
        """Write everything to a `.npz` that numpy reads without pickle; returns how many items.

        Its arrays: `ids`, `vectors` float32 (N, D), `payloads` (JSON text), `model` (position
        in `models`), `models` (JSON text).
        """
        with self._lock:
            self._load_models()
            numbers = {number: i for i, (number, _) in enumerate(self._models.values())}
            rows = list(self._store.rows())
            models = [json.dumps(identity.to_json()) for _, identity in self._models.values()]
        raw = b"".join(row[3] for row in rows)
        with Path(path).open("wb") as file:
            np.savez_compressed(
                file,
                ids=np.array([row[1] for row in rows], np.str_),
                vectors=np.frombuffer(raw, np.float32).reshape(len(rows), self.dim),
                payloads=np.array([row[4] or "null" for row in rows], np.str_),
                model=np.array([numbers[row[2]] for row in rows], np.int64),
                models=np.array(models, np.str_),
            )
        return len(rows)

    # the index in memory

    def _refresh(self) -> None:
        """Bring the index up to what is committed, by us or by others."""
        version = self._store.data_version()
        if not self._stale and version == self._seen_version:
            return
        with self._store.reading():
            if self._seen_version is None:
                self._load_snapshot()
            for seq, key in self._store.tombstones(self._seen_tombstone):
                self._index.remove(key)
                self._seen_tombstone = seq
            self._read_new_rows()
        # The version from before the reading: a commit in between is read again, never missed.
        self._seen_version = version
        self._stale = False
        self._filters.clear()
        delta, base = self._index.delta, self._index.base
        behind = len(delta) + (base.removed if base else 0)
        if len(delta) and behind >= max(self._approximate_from, len(self._index) // 4):
            self._rebuild()

    def _read_new_rows(self) -> None:
        keys: list[int] = []
        ids: list[str] = []
        raw: list[bytes] = []
        for key, id_, _, vector, _ in self._store.rows(self._seen_key):
            keys.append(key)
            ids.append(id_)
            raw.append(vector)
        if keys:
            vectors = np.frombuffer(b"".join(raw), np.float32).reshape(len(keys), self.dim)
            self._index.delta.add(keys, ids, vectors)
            self._seen_key = keys[-1]

    def _load_snapshot(self) -> None:
        noted = self._store.meta("snapshot")
        if noted is None:
            return
        state = (noted["last_key"], noted["last_tombstone"])
        base = Base.load(self.path / "index", snapshot_notes(self._uuid, *state, noted["token"]))
        if base is not None:
            self._index = Index(self.dim, base)
            self._seen_key, self._seen_tombstone = state

    def _rebuild(self) -> None:
        base, delta = self._index.base, self._index.delta
        keys, ids, vectors = delta.keys, delta.ids, delta.vectors
        if base:
            alive = base.alive
            keys = np.concatenate([base.keys[alive], keys])
            ids = np.concatenate([base.ids[alive], ids])
            vectors = np.concatenate([base.vectors[alive], vectors])
        order = np.argsort(keys, kind="stable")
        rebuilt = Base.build(keys[order], ids[order], np.ascontiguousarray(vectors[order]))
        self._index = Index(self.dim, rebuilt)
        if self._store.read_only:
            return
        token = secrets.token_hex(8)
        state = (self._seen_key, self._seen_tombstone)
        try:
            rebuilt.save(self.path / "index", snapshot_notes(self._uuid, *state, token))
            with self._store.writing():
                value = {"last_key": state[0], "last_tombstone": state[1], "token": token}
                self._store.set_meta("snapshot", value)
        except (OSError, RuntimeError, GalleryError):
            # The snapshot only saves time at the next opening; the search goes on without it.
            return


def _identity(model: Embedder | Bundle | ModelIdentity | str | Path) -> ModelIdentity:
    if isinstance(model, ModelIdentity):
        return model
    if isinstance(model, Embedder):
        return model.identity
    bundle = model if isinstance(model, Bundle) else Bundle.open(model)
    return bundle.identity(bundle.variant())


def _checked_ids(ids: Sequence[str], unique: bool = True) -> Sequence[str]:
    if isinstance(ids, str):
        raise ConfigError("ids is a list of strings, not one string")
    if not all(isinstance(i, str) and i for i in ids):
        wrong = next(i for i in ids if not (isinstance(i, str) and i))
        raise ConfigError(f"ids are non-empty strings, not {wrong!r}")
    if unique and len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = [i for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
        raise DuplicateIdError(f"{_some(twice)} more than once in one call")
    return ids


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(i) for i in ids[:_SHOWN])
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"the id{'s' if len(ids) > 1 else ''} {shown}{more}"


def _payload_texts(payloads: Sequence[Any] | None, count: int) -> list[str | None]:
    if payloads is None:
        return [None] * count
    if len(payloads) != count:
        raise ConfigError(f"{len(payloads)} payloads for {count} items")
    try:
        return [
            None if p is None else json.dumps(p, ensure_ascii=False, allow_nan=False)
            for p in payloads
        ]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a payload has to be what JSON can hold: {error}") from None


def _loads(text: str | None) -> Any:
    return None if text is None else json.loads(text)
