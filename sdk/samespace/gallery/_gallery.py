"""The gallery: item vectors that outlive models, and never meet what they cannot be compared to.

Here are the rules: whom a gallery admits, what it takes and what it answers. Where its items are
kept is `_embedded` (a folder) or `_milvus` (a server).
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace._certificate import Certificate
from samespace._files import is_text
from samespace.gallery._export import write_export
from samespace.gallery._filter import Where, compile_where
from samespace.gallery._hubs import Progress, silent
from samespace.gallery._index import DEFAULT_PROBES
from samespace.gallery._inputs import (
    checked_ids,
    identity_of,
    loads,
    payload_texts,
    some,
    unit_vectors,
)
from samespace.gallery._protocols import GalleryStore, UpgradeKeeper
from samespace.gallery._upgrade import Upgrade
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
    GalleryError,
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
_SERVER = "milvus:/"  # a path has lost the other slash


class Gallery(abc.ABC):
    """Item vectors of one embedding space, durable and searchable: in a folder, or in Milvus.

    >>> gallery = Gallery.create("shop", "cloud.bundle")              # doctest: +SKIP
    >>> gallery.add(["cup"], images=["cup.jpg"], model=cloud)         # doctest: +SKIP
    >>> gallery.search(images=["photo.jpg"], model=edge, k=3)[0][0].id  # doctest: +SKIP
    'cup'

    Use it as a context manager, or call `close`. Any number of threads may use one gallery at the
    same time. In a folder a lock lets one of them at the index and the database at a time;
    pictures are embedded before that, by all threads at once. Several processes may have the same
    gallery open. In a folder one of them writes at a time and the others wait; for Milvus see
    docs/milvus.md.
    """

    def __init__(
        self,
        store: GalleryStore,
        upgrades: UpgradeKeeper,
        *,
        name: str,
        dim: int,
        space: Fingerprint,
    ) -> None:
        self._store = store
        self._upgrades = upgrades
        self._lock = threading.RLock()
        self.name = name
        self.dim = dim
        self.space = space
        self._models: dict[tuple[str, str], tuple[int, ModelIdentity]] = {}
        self._load_models()

    @staticmethod
    def create(
        path: str | Path,
        anchor: Embedder | Bundle | str | Path,
        *,
        name: str | None = None,
        approximate_from: int = APPROXIMATE_FROM,
    ) -> Gallery:
        """Create an empty gallery in the space of a cloud model.

        Args:
            path: the folder to make; or `milvus://host:19530/NAME`.
            anchor: the cloud model's bundle. It defines the space, so it needs no certificate.
            name: a label; by default the folder's name.
            approximate_from: number of items from which on an approximate index is built; Milvus
                decides that for itself.

        Raises `NotCertifiedError` for a bundle that lives in another model's space,
        `GalleryError` where there is a gallery already, `GalleryStorageError`, `GalleryBusyError`
        where a server does not answer.
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
        if str(path).startswith(_SERVER):
            from samespace.gallery._milvus import MilvusGallery

            return MilvusGallery.made(str(path), identity, name)
        from samespace.gallery._embedded import EmbeddedGallery

        return EmbeddedGallery.made(Path(path), identity, name, approximate_from)

    @staticmethod
    def open(path: str | Path, *, read_only: bool = False, busy_timeout: float = 10.0) -> Gallery:
        """Open a gallery.

        Args:
            path: its folder, or `milvus://host:19530/NAME`.
            read_only: for folders that cannot be written; nobody may be writing meanwhile.
            busy_timeout: how long to wait for another writer, or for a server, in seconds.

        Raises `GalleryError` where there is none, `GalleryDamagedError` where the database does
        not hold what was written to it, `GalleryStorageError`, `GalleryBusyError` where a server
        does not answer.
        """
        if str(path).startswith(_SERVER):
            from samespace.gallery._milvus import MilvusGallery

            return MilvusGallery.opened(str(path), read_only, busy_timeout)
        from samespace.gallery._embedded import EmbeddedGallery

        return EmbeddedGallery.opened(Path(path), read_only, busy_timeout)

    @property
    @abc.abstractmethod
    def path(self) -> Path:
        """Its folder; raises `GalleryError` for a gallery in a server, which has none."""

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

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    def __contains__(self, id_: object) -> bool:
        if not isinstance(id_, str) or not is_text(id_):
            return False
        with self._lock:
            return bool(self._store.by_id([id_]))

    # who may add and search

    @property
    def admitted(self) -> tuple[ModelIdentity, ...]:
        """The models whose vectors and queries are accepted, the anchor first."""
        return tuple(identity for _, identity in self._models.values())

    def certificates(self) -> dict[ModelIdentity, Certificate | None]:
        """The accepted models, the anchor first, with their certificates; the anchor needs none.

        Read from the disk, so what other processes admitted meanwhile is there.
        """
        with self._lock:
            self._load_models()
            return {
                ModelIdentity.from_json(i): Certificate.from_json(c) if c else None
                for _, i, c in self._store.models()
            }

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
        with self._lock:  # or it would read what another thread has not committed yet
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
        raise self._only_in_a_folder("hub corrections")

    def uncorrect_hubs(self, model: Embedder | ModelIdentity) -> None:
        """Undo `correct_hubs`; nothing happens where there is no correction."""
        self._number_of(identity_of(model))

    def corrections(self) -> tuple[HubCorrection, ...]:
        """The query models whose searches are corrected for hubs."""
        return ()

    def _only_in_a_folder(self, what: str) -> GalleryError:
        return GalleryError(
            f"gallery {self.name!r} is in a server, where there are no {what}; they need a gallery "
            "in a folder (docs/milvus.md says what differs)"
        )

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
        raise self._only_in_a_folder("lifted copies")

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
        raise self._only_in_a_folder("side information")

    def side(self, ids: Sequence[str]) -> Vectors:
        """What `keep_side` kept of items (N, S); raises `UnknownIdError` for those without."""
        raise self._only_in_a_folder("side information")

    # writing

    def add(
        self,
        ids: Sequence[str],
        *,
        model: Embedder | ModelIdentity,
        vectors: Vectors | None = None,
        images: Sequence[ImageSource] | None = None,
        payloads: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Add items; when it returns they are on the disk. In a folder all of them
        or none are; in Milvus a call that failed may have stored a part: repeat it with `replace`.

        Args:
            ids: a new id for every item.
            model: who makes, or made, the vectors.
            vectors: (N, D); or
            images: the pictures, embedded here by `model`, which then has to be an `Embedder`.
            payloads: what JSON can hold, for every item.
            replace: whether items that are there already make room, vector, payload and all, so
                that the same call may be made twice.

        Raises `NotCertifiedError`, `DimensionError`, `InvalidVectorError`, `DuplicateIdError`,
        `GalleryBusyError`, `GalleryStorageError`, and the embedder's errors.
        """
        ids = checked_ids(ids)
        number = self._number_of(identity_of(model))
        made = self._vectors(model, vectors, images, ids)
        texts = payload_texts(payloads, len(ids))
        with self._lock:
            self._insert(ids, number, made, texts, replace)

    def _taken(self, ids: Sequence[str]) -> DuplicateIdError:
        return DuplicateIdError(
            f"gallery {self.name!r} already has {some(ids)}; nothing of this call was "
            "added. Use update for those, or replace=True."
        )

    @abc.abstractmethod
    def _insert(
        self,
        ids: Sequence[str],
        number: int,
        vectors: Vectors,
        texts: Sequence[str | None],
        replace: bool,
    ) -> None:
        """Store new items; raises `_taken` before anything is, unless they may be replaced."""

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
        checked_ids([id_])
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
        with self._lock:
            self._change(id_, number, raw, text, keep_payload=payload is _KEEP)

    @abc.abstractmethod
    def _change(
        self, id_: str, number: int | None, raw: bytes | None, text: str | None, keep_payload: bool
    ) -> None:
        """Give an item another vector, by model `number`, another payload, or both."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete items, all of them or none; raises `UnknownIdError` naming those not there."""
        with self._lock:
            self._remove(checked_ids(ids))

    @abc.abstractmethod
    def _remove(self, ids: Sequence[str]) -> None:
        """Delete items that have to be there."""

    def _existing(self, ids: Sequence[str]) -> list[Any]:
        found = self._store.by_id(ids)
        if missing := [i for i in ids if i not in found]:
            raise UnknownIdError(f"gallery {self.name!r} does not have {some(missing)}")
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
        if names is not None and images is not None and len(names) != len(images):
            raise ConfigError(f"{len(names)} ids for {len(images)} pictures; give an id for each")
        given = given_vectors(model, vectors, images)
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

    def sample(self, count: int) -> list[Record]:
        """Up to `count` different items, taken at random places of the gallery."""
        with self._lock:
            rows = self._store.sample(count)
            models = self._named()
        return [
            Record(id_, np.frombuffer(raw, np.float32), loads(text), models[number])
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
                without hub correction; `vectors` are then (N, width), or (N, D) and are cut. Other
                models than the anchor need a certificate that covers that width. The prefixes of
                all items are read at the first such search and held: width times 4 bytes, and 8,
                for every item.

        Raises `NotCertifiedError`, `DimensionError`, `InvalidVectorError`, `FilterError`,
        `ConfigError` where `corrected` is True and nothing is set up or a `width` is given, or
        where the width is not from 2 to below the full one, and the embedder's errors.
        """
        if k < 1:
            raise ConfigError(f"k has to be 1 or more, not {k}")
        if probes < 1:
            raise ConfigError(f"probes has to be 1 or more, not {probes}")
        number = self._number_of(identity_of(model))
        if width is not None:
            if corrected:
                raise ConfigError("hub corrections are of whole vectors; search by width without")
            self._require_width(identity_of(model), number, width)
            queries = self._vectors(model, vectors, images, width=width)
            return self._find_by_width(queries, k, where, payloads)
        queries = self._vectors(model, vectors, images)
        return self._find(
            queries,
            k,
            number,
            where=where,
            exact=exact,
            payloads=payloads,
            probes=probes,
            corrected=corrected,
        )

    @abc.abstractmethod
    def _find(
        self,
        queries: Vectors,
        k: int,
        number: int,
        *,
        where: Where | None,
        exact: bool,
        payloads: bool,
        probes: int,
        corrected: bool | None,
    ) -> SearchResult:
        """Search for unit vectors (N, D) by the model `number`."""

    def _require_width(self, model: ModelIdentity, number: int, width: int) -> None:
        """Raise where a model may not search by prefixes of this width."""
        raise self._only_in_a_folder("searches by width")

    def _find_by_width(
        self, queries: Vectors, k: int, where: Where | None, payloads: bool
    ) -> SearchResult:
        """Search for unit prefixes (N, width)."""
        raise self._only_in_a_folder("searches by width")

    def explain_filter(self, where: Where) -> str:
        """Say why no item can pass a filter: every one holds another kind of value than the filter
        compares with, a text where it asks for a number or the reverse.

        Returns one sentence; an empty text where that is not the reason, and in Milvus. Raises
        `FilterError`.
        """
        compile_where(where)
        return ""

    def stats(self) -> GalleryStats:
        """The gallery in figures."""
        with self._lock:
            items = len(self)
            self._load_models()
            counts = self._store.count_by_model()
            approximate, size = self._shape()
            return GalleryStats(
                name=self.name,
                space=self.space,
                dim=self.dim,
                items=items,
                by_model={i: counts.get(n, 0) for n, i in self._models.values()},
                admitted=self.admitted,
                approximate=approximate,
                bytes_on_disk=size,
                corrections=self.corrections(),
            )

    @abc.abstractmethod
    def _shape(self) -> tuple[bool, int]:
        """Whether searches go through an approximate index; bytes in the folder, if there is."""

    # what an upgrade needs

    @abc.abstractmethod
    def _changed(self) -> None:
        """Items were changed behind this gallery's back."""

    @abc.abstractmethod
    def _settle(self) -> None:
        """Many items were changed, and for now no more will be."""

    @abc.abstractmethod
    def _alone(self) -> AbstractContextManager[None]:
        """No other process runs an upgrade meanwhile; raises `GalleryBusyError` where one does."""

    def export(self, path: str | Path) -> int:
        """Write everything to a `.npz` that numpy reads without pickle; returns how many items.

        Its arrays: `vectors` float32 (N, D); `model` (N,), positions in `models`; `ids`,
        `payloads` and `models` as UTF-8 text in one piece, uint8, of which item i (a payload as
        JSON) ends at `ids_ends[i]`, `payloads_ends[i]`, `models_ends[i]`.
        """
        with self._lock, self._store.reading():
            models = self._named()
            rows = list(self._store.rows())
        write_export(Path(path), rows, models, self.dim)
        return len(rows)


def given_vectors(
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
