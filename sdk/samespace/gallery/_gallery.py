"""The gallery: item vectors that outlive models, and never meet what they cannot be compared to."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace._certificate import Certificate
from samespace.gallery._export import write_export
from samespace.gallery._filter import Where
from samespace.gallery._hub_store import Correction, HubStore
from samespace.gallery._hubs import Progress, correct, is_vectors, silent
from samespace.gallery._index import DEFAULT_PROBES, DEFAULT_REFINE, Found
from samespace.gallery._inputs import (
    checked_ids,
    identity_of,
    loads,
    payload_texts,
    some,
    unit_vectors,
)
from samespace.gallery._lift import lift
from samespace.gallery._live import LiveIndex
from samespace.gallery._prefixes import PrefixSearch
from samespace.gallery._side import SideStore, side_vectors
from samespace.gallery._store import Row, Store
from samespace.gallery._upgrade import Upgrade
from samespace.gallery._upgrade_store import UpgradeStore
from samespace.gallery._values import GalleryStats, HubCorrection, Record, SearchResult
from samespace.metrics import HUB_NEIGHBOURS, HUB_WEIGHT
from samespace_edge import (
    Adapter,
    Bundle,
    ConfigError,
    DimensionError,
    DuplicateIdError,
    Embedder,
    Fingerprint,
    ImageSource,
    ModelIdentity,
    NotCertifiedError,
    UnknownIdError,
)

Vectors = NDArray[np.float32]

LEAST_APPROXIMATE = 1000
"""Fewer items than that are not enough to train an approximate index on."""

APPROXIMATE_FROM = 50_000
"""Items from which on a gallery builds an approximate index, unless told otherwise."""

_KEEP: Any = object()


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
        self._models: dict[tuple[str, str], tuple[int, ModelIdentity]] = {}
        self._hubs = HubStore(store)
        self._upgrades = UpgradeStore(store, self._hubs)
        self._side = SideStore(store, self._hubs)
        self._live = LiveIndex(store, self._hubs)
        self._prefixes = PrefixSearch(store)
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
        identity = identity_of(anchor)
        if not identity.is_anchor:
            raise NotCertifiedError(
                f"{identity} lives in the space {identity.space.short}… of another model; "
                "create the gallery with the bundle of that cloud model"
            )
        if approximate_from < LEAST_APPROXIMATE:
            raise ConfigError(
                f"approximate_from is {approximate_from}; an approximate index needs at least "
                f"{LEAST_APPROXIMATE} items to be built from"
            )
        folder = Path(path)
        meta = {
            "name": name or folder.name,
            "dim": identity.dim,
            "space": identity.space.hex,
            "approximate_from": approximate_from,
        }
        Store.create(folder, meta, identity.to_json())
        return cls.open(folder)

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
            if store.check():
                hubs = HubStore(store)
                hubs.check()
                UpgradeStore(store, hubs).check()
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
            self._live.refresh()
            return len(self._live.index)

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

        It has to say that the model retrieves in galleries of the anchor, or of the model that
        made every item here, as after an upgrade. Returns the admitted model. Raises
        `CertificateError` for one that was changed or did not pass, `NotCertifiedError` for one of
        another space or of another model's galleries.
        """
        if not isinstance(certificate, Certificate):
            certificate = Certificate.read(certificate)
        query, gallery = certificate.query, certificate.gallery
        with self._lock:
            if not self._speaks_of(gallery) or query.space != self.space:
                anchors = ", ".join(str(m) for m in self.admitted if m.is_anchor)
                raise NotCertifiedError(
                    f"the certificate says that {query}, of space {query.space.short}…, retrieves "
                    f"in galleries of {gallery}; gallery {self.name!r} is anchored by {anchors}. "
                    "Verify the bundle against that model, or against the one that made all of "
                    "its items."
                )
            if query.dim != self.dim:
                raise DimensionError(
                    f"{query} makes vectors of {query.dim}; gallery {self.name!r} holds {self.dim}"
                )
            with self._store.writing():
                self._store.put_model(query.to_json(), certificate.to_json())
            self._load_models()
        return query

    def _speaks_of(self, maker: ModelIdentity) -> bool:
        """Whether what retrieves in galleries of `maker` does so in this one."""
        key = (maker.fingerprint.hex, maker.variant_sha256)
        if key not in self._models:
            return False
        items = self._store.count_by_model()
        return maker.is_anchor or (bool(items) and set(items) == {self._models[key][0]})

    def _load_models(self) -> None:
        found = {}
        for number, value, certificate in self._store.models():
            identity = ModelIdentity.from_json(value)
            if certificate is not None:
                Certificate.from_json(certificate)
            found[identity.fingerprint.hex, identity.variant_sha256] = (number, identity)
        self._models = found

    def _named(self) -> dict[int, ModelIdentity]:
        """The admitted models by number, those that other processes admitted among them."""
        self._load_models()
        return dict(self._models.values())

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

    # hubs

    def correct_hubs(
        self,
        bank: Vectors | Sequence[ImageSource],
        *,
        model: Embedder | ModelIdentity,
        k: int = HUB_NEIGHBOURS,
        weight: float = HUB_WEIGHT,
        progress: Progress = silent,
    ) -> HubCorrection:
        """Correct the searches of a query model for hubs, from now on and for every process.

        Every item gets the bias of `samespace.metrics.hub_bias`, as do those added or updated
        later, when they are written. Vectors do not change. Setting it up again replaces it.

        Args:
            bank: pictures without labels, embedded here by `model`, which then has to be an
                `Embedder`; or vectors (B, D) that it made, as an array of floats. A few thousand
                that are like the queries to come; the work is items times B times D.
            model: the query model.
            k, weight: see `hub_bias`.
            progress: is told the stage and how many items of how many are done.

        Raises `NotCertifiedError`, `ConfigError`, `DimensionError`, `InvalidVectorError`,
        `GalleryBusyError`, `GalleryStorageError`, and the embedder's errors.
        """
        number = self._number_of(identity_of(model))
        given = (bank, None) if is_vectors(bank) else (None, bank)
        vectors = self._vectors(model, *given)
        made = Correction(0, number, k, weight, 0, vectors)
        correct(self._store, self._hubs, self._lock, made, progress)
        self._live.stale = True
        return HubCorrection(self._named()[number], len(vectors), k, weight)

    def uncorrect_hubs(self, model: Embedder | ModelIdentity) -> None:
        """Undo `correct_hubs`; nothing happens where there is no correction."""
        number = self._number_of(identity_of(model))
        with self._lock:
            with self._store.writing():
                self._hubs.take(number)
            self._live.stale = True

    def corrections(self) -> tuple[HubCorrection, ...]:
        """The query models whose searches are corrected for hubs."""
        with self._lock:
            models = self._named()
            return tuple(
                HubCorrection(models[c.model], len(c.bank), c.k, c.weight)
                for c in self._hubs.corrections()
            )

    def _correction(self, number: int, corrected: bool | None) -> Correction | None:
        """What a search by this model is corrected with; after `refresh`."""
        found = [c for c in self._live.corrections if c.model == number]
        if corrected and not found:
            raise ConfigError(
                f"searches by {self._named()[number]} are not corrected in gallery {self.name!r}; "
                "set it up with Gallery.correct_hubs or 'samespace gallery correct-hubs'"
            )
        return found[0] if found and corrected is not False else None

    # upgrades

    @property
    def upgrade(self) -> Upgrade:
        """The way to a newer model, for what is stored here; see `Upgrade`."""
        return Upgrade(self)

    def lift(
        self,
        path: str | Path,
        adapter: Adapter,
        *,
        anchor: Embedder | Bundle | str | Path,
        certificate: Certificate | str | Path,
        progress: Progress = silent,
    ) -> Gallery:
        """A gallery of the same items in a new model's space, without their pictures.

        For a new model that was not trained to be compatible: an adapter that was fitted on pairs
        of vectors lifts the old ones into its space. This gallery stays as it is. In the new one,
        `upgrade.run` embeds the items anew, whose pictures are still there.

        Args:
            path: the folder to make.
            adapter: from the model that made this gallery's vectors to the new one. One with side
                information takes what `keep_side` has kept.
            anchor: the new model's bundle.
            certificate: of the old model's bundle with this adapter ('samespace adapter bundle'),
                verified against the new model.
            progress: is told the stage and how many items of how many are done.

        Raises `ConfigError` where the adapter does not go from these vectors to that space,
        `NotCertifiedError`, `UnknownIdError` where side information is missing, `GalleryError`
        where there is something at `path`.
        """
        if not isinstance(certificate, Certificate):
            certificate = Certificate.read(certificate)
        lift(self, Path(path), adapter, anchor, certificate, progress)
        return Gallery.open(path)

    def keep_side(
        self,
        ids: Sequence[str],
        *,
        model: Embedder | ModelIdentity,
        vectors: Vectors | None = None,
        images: Sequence[ImageSource] | None = None,
    ) -> None:
        """Keep side information of items for adapters to come; it is never searched.

        Args:
            ids: of items that are there.
            model: who makes it: any model, of any space, but one for the whole gallery.
            vectors: (N, S); or
            images: the pictures, embedded here by `model`, which then has to be an `Embedder`.

        Raises `UnknownIdError`, `ConfigError`, `DimensionError`, and the embedder's errors.
        """
        ids = checked_ids(ids)
        identity = identity_of(model)
        table = side_vectors(_given(model, vectors, images), identity, len(ids))
        with self._lock, self._store.writing():
            self._existing(ids)
            self._side.put(identity, ids, table)

    def side(self, ids: Sequence[str]) -> Vectors:
        """What `keep_side` kept of items (N, S); raises `UnknownIdError` for those without."""
        with self._lock:
            return self._side.get(checked_ids(ids, unique=False))

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
        ids = checked_ids(ids)
        number = self._number_of(identity_of(model))
        raw = self._vectors(model, vectors, images, ids).tobytes()
        texts = payload_texts(payloads, len(ids))
        size = self.dim * 4
        rows = (
            (id_, number, raw[i * size : (i + 1) * size], text)
            for i, (id_, text) in enumerate(zip(ids, texts, strict=True))
        )
        with self._lock:
            try:
                with self._store.writing():
                    self._store.insert(rows)
                    self._hubs.cover()
            except UnicodeEncodeError as error:
                raise ConfigError(
                    f"{error.object!r} is no valid text, so it cannot be an id or a payload"
                ) from None
            except sqlite3.IntegrityError:
                there = list(self._store.by_id(ids))
                raise DuplicateIdError(
                    f"gallery {self.name!r} already has {some(there)}; nothing of this call was "
                    "added. Use update for those."
                ) from None
            self._live.stale = True

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
                number = self._number_of(identity_of(model))
                new = None if vector is None else np.asarray(vector)[None]
                images = None if image is None else [image]
                raw = self._vectors(model, new, images, [id_]).tobytes()
            text = None if payload is _KEEP else payload_texts([payload], 1)[0]
            with self._store.writing():
                key, _, old_number, old_raw, old_text = self._existing([id_])[0]
                kept = self._upgrades.kept_for(key) if raw is None else None
                if raw is not None:
                    self._side.drop([id_])  # of the picture that it no longer is
                self._store.remove([key])
                new_key = self._store.insert(
                    [
                        (
                            id_,
                            old_number if number is None else number,
                            old_raw if raw is None else raw,
                            old_text if payload is _KEEP else text,
                        )
                    ]
                )
                if kept is not None:
                    self._upgrades.keep([(new_key, *kept)])
                self._hubs.cover()
            self._live.stale = True

    def delete(self, ids: Sequence[str]) -> None:
        """Delete items, all of them or none; raises `UnknownIdError` naming those not there."""
        with self._lock:
            with self._store.writing():
                self._store.remove([row[0] for row in self._existing(checked_ids(ids))])
                self._side.drop(ids)
            self._live.stale = True

    def _existing(self, ids: Sequence[str]) -> list[Row]:
        found = self._store.by_id(ids)
        if missing := [i for i in ids if i not in found]:
            raise UnknownIdError(f"gallery {self.name!r} has no {some(missing)}")
        return [found[i] for i in ids]

    def _vectors(
        self,
        model: Embedder | ModelIdentity,
        vectors: Vectors | None,
        images: Sequence[ImageSource] | None,
        names: Sequence[str] | None = None,
        width: int | None = None,
    ) -> Vectors:
        """Unit vectors (N, D), or prefixes (N, width), from vectors or from images."""
        given = _given(model, vectors, images)
        if images is not None:
            given = given[:, :width]
        return unit_vectors(given, self.dim, self.name, names, width)

    # reading

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The items with these ids, in this order; raises `UnknownIdError`."""
        with self._lock:
            rows = self._existing(checked_ids(ids, unique=False))
            by_number = dict(self._models.values())
            if any(row[2] not in by_number for row in rows):
                by_number = self._named()
        return [
            Record(id_, np.frombuffer(raw, np.float32), loads(text), by_number[number])
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
        probes: int = DEFAULT_PROBES,
        corrected: bool | None = None,
        width: int | None = None,
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
            corrected: False to search without this model's hub correction; True to insist on it;
                by default as `correct_hubs` set it up.
            width: search by the cosine of the first `width` numbers of every vector, exactly and
                without hub correction; `vectors` are then (N, width). Other models than the anchor
                need a certificate that covers that width. The prefixes of all items are read at
                the first such search and held: width times 4 bytes, and 8, for every item.

        Raises `NotCertifiedError`, `DimensionError`, `InvalidVectorError`, `FilterError`,
        `ConfigError` where `corrected` is True and nothing is set up or a `width` is given, or
        where the width is not from 2 to below the full one, and the embedder's errors.
        """
        if k < 1:
            raise ConfigError(f"k has to be 1 or more, not {k}")
        number = self._number_of(identity_of(model))
        if width is not None:
            if corrected:
                raise ConfigError("hub corrections are of whole vectors; search by width without")
            with self._lock:
                self._prefixes.require(identity_of(model), number, width)
            queries = self._vectors(model, vectors, images, width=width)
            with self._lock:
                return self._prefixes.search(queries, k, where, payloads)
        queries = self._vectors(model, vectors, images)
        with self._lock:
            self._live.refresh()
            found, corrected_scores = self._live.search(
                queries,
                k,
                correction=self._correction(number, corrected),
                where=where,
                approximate=not exact,
                probes=probes,
                refine=DEFAULT_REFINE,
            )
            fetched = self._payloads(found) if payloads else None
        return SearchResult(found.ids.tolist(), found.scores, fetched, corrected_scores)

    def _payloads(self, found: Found) -> list[list[Any]]:
        keys = found.keys.tolist()
        rows = self._store.by_key(sorted({key for row in keys for key in row}))
        values = {key: loads(row[4]) for key, row in rows.items()}
        return [[values.get(key) for key in row] for row in keys]

    def stats(self) -> GalleryStats:
        """The gallery in figures."""
        with self._lock:
            self._live.refresh()
            self._load_models()
            counts = self._store.count_by_model()
            return GalleryStats(
                name=self.name,
                space=self.space,
                dim=self.dim,
                items=len(self._live.index),
                by_model={i: counts.get(n, 0) for n, i in self._models.values()},
                admitted=self.admitted,
                approximate=self._live.index.base is not None,
                bytes_on_disk=sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file()),
                corrections=self.corrections(),
            )

    def export(self, path: str | Path) -> int:
        """Write everything to a `.npz` that numpy reads without pickle; returns how many items.

        Its arrays: `vectors` float32 (N, D); `model` (N,), positions in `models`; `ids`,
        `payloads` and `models` as UTF-8 text in one piece, uint8, of which item i (a payload as
        JSON) ends at `ids_ends[i]`, `payloads_ends[i]`, `models_ends[i]`.
        """
        with self._lock:
            models = self._named()
            rows = list(self._store.rows())
        write_export(Path(path), rows, models, self.dim)
        return len(rows)


def _given(
    model: Embedder | ModelIdentity,
    vectors: Vectors | None,
    images: Sequence[ImageSource] | None,
) -> Vectors:
    """The vectors (N, D) that a caller gave, or those of the images that he gave instead."""
    if images is None and vectors is not None:
        return vectors
    if images is None or vectors is not None:
        raise ConfigError("give either vectors or images")
    if not isinstance(model, Embedder):
        raise ConfigError("images are embedded by an Embedder; model only names one")
    return model.embed(images)
