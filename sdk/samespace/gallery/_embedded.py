"""A gallery in a folder: SQLite is the record of truth, faiss the index."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace._certificate import Certificate
from samespace.gallery._filter import Where, compile_where
from samespace.gallery._gallery import Gallery, given_vectors
from samespace.gallery._hub_store import Correction, HubStore
from samespace.gallery._hubs import Progress, correct, is_vectors, silent
from samespace.gallery._index import DEFAULT_REFINE, Found
from samespace.gallery._inputs import checked_ids, identity_of, loads
from samespace.gallery._lift import lift
from samespace.gallery._live import LiveIndex
from samespace.gallery._prefixes import PrefixSearch
from samespace.gallery._side import SideStore, side_vectors
from samespace.gallery._store import Store
from samespace.gallery._upgrade_store import UpgradeStore
from samespace.gallery._values import HubCorrection, SearchResult
from samespace.metrics import HUB_NEIGHBOURS, HUB_WEIGHT
from samespace_edge import (
    Adapter,
    Bundle,
    ConfigError,
    Embedder,
    Fingerprint,
    GalleryBusyError,
    ImageSource,
    ModelIdentity,
)

Vectors = NDArray[np.float32]

_LOCK = "upgrade.lock"


class EmbeddedGallery(Gallery):
    """Items in one SQLite database, and the index beside it."""

    _store: Store
    _upgrades: UpgradeStore

    def __init__(self, store: Store) -> None:
        self._hubs = HubStore(store)
        self._side = SideStore(store, self._hubs)
        self._live = LiveIndex(store, self._hubs)
        self._prefixes = PrefixSearch(store)
        super().__init__(
            store,
            UpgradeStore(store, self._hubs),
            name=store.meta("name"),
            dim=store.meta("dim"),
            space=Fingerprint(store.meta("space")),
        )

    @classmethod
    def made(
        cls, folder: Path, anchor: ModelIdentity, name: str | None, approximate_from: int
    ) -> EmbeddedGallery:
        """Create a gallery in a folder; see `Gallery.create`."""
        meta = {
            "name": name or folder.name,
            "dim": anchor.dim,
            "space": anchor.space.hex,
            "approximate_from": approximate_from,
        }
        Store.create(folder, meta, anchor.to_json())
        return cls.opened(folder, False, 10.0)

    @classmethod
    def opened(cls, folder: Path, read_only: bool, busy_timeout: float) -> EmbeddedGallery:
        """Open the gallery in a folder; see `Gallery.open`."""
        store = Store(folder, read_only=read_only, busy_timeout=busy_timeout)
        try:
            if store.check():
                hubs = HubStore(store)
                hubs.check()
                UpgradeStore(store, hubs).check()
            return cls(store)
        except BaseException:
            store.close()
            raise

    @property
    def path(self) -> Path:
        """See `Gallery.path`."""
        return self._store.folder

    def __len__(self) -> int:
        with self._lock:
            self._live.refresh()
            return len(self._live.index)

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
        """See `Gallery.correct_hubs`."""
        number = self._number_of(identity_of(model))
        given = (bank, None) if is_vectors(bank) else (None, bank)
        vectors = self._vectors(model, *given)
        made = Correction(0, number, k, weight, 0, vectors)
        correct(self._store, self._hubs, self._lock, made, progress)
        with self._lock:
            self._live.stale = True
            return HubCorrection(self._named()[number], len(vectors), k, weight)

    def uncorrect_hubs(self, model: Embedder | ModelIdentity) -> None:
        """See `Gallery.uncorrect_hubs`."""
        number = self._number_of(identity_of(model))
        with self._lock:
            with self._store.writing():
                self._hubs.take(number)
            self._live.stale = True

    def corrections(self) -> tuple[HubCorrection, ...]:
        """See `Gallery.corrections`."""
        with self._lock:
            found = self._hubs.corrections()
            models = self._named()
            return tuple(HubCorrection(models[c.model], len(c.bank), c.k, c.weight) for c in found)

    def _correction(self, number: int, corrected: bool | None) -> Correction | None:
        """What a search by this model is corrected with; after `refresh`."""
        found = [c for c in self._live.corrections if c.model == number]
        if corrected and not found:
            raise ConfigError(
                f"searches by {self._named()[number]} are not corrected in gallery {self.name!r}; "
                "set it up with Gallery.correct_hubs or 'samespace gallery correct-hubs'"
            )
        return found[0] if found and corrected is not False else None

    # what adapters need

    def lift(
        self,
        path: str | Path,
        adapter: Adapter,
        *,
        anchor: Embedder | Bundle | str | Path,
        certificate: Certificate | str | Path,
        progress: Progress = silent,
    ) -> Gallery:
        """See `Gallery.lift`."""
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
        """See `Gallery.keep_side`."""
        ids = checked_ids(ids)
        identity = identity_of(model)
        table = side_vectors(given_vectors(model, vectors, images), identity, len(ids))
        with self._lock, self._store.writing():
            self._existing(ids)
            self._side.put(identity, ids, table)

    def side(self, ids: Sequence[str]) -> Vectors:
        """See `Gallery.side`."""
        with self._lock:
            return self._side.get(checked_ids(ids, unique=False))

    # writing

    def _insert(
        self,
        ids: Sequence[str],
        number: int,
        vectors: Vectors,
        texts: Sequence[str | None],
        replace: bool,
    ) -> None:
        raw = vectors.tobytes()
        size = self.dim * 4
        rows = (
            (id_, number, raw[i * size : (i + 1) * size], text)
            for i, (id_, text) in enumerate(zip(ids, texts, strict=True))
        )
        try:
            with self._store.writing():
                if replace and (there := self._store.by_id(ids)):
                    self._side.drop(list(there))
                    self._store.remove([row[0] for row in there.values()])
                self._store.insert(rows)
                self._hubs.cover()
        except sqlite3.IntegrityError:
            raise self._taken(list(self._store.by_id(ids))) from None
        self._live.stale = True

    def _change(
        self, id_: str, number: int | None, raw: bytes | None, text: str | None, keep_payload: bool
    ) -> None:
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
                        old_text if keep_payload else text,
                    )
                ]
            )
            if kept is not None:
                self._upgrades.keep([(new_key, *kept)])
            self._hubs.cover()
        self._live.stale = True

    def _remove(self, ids: Sequence[str]) -> None:
        with self._store.writing():
            self._store.remove([row[0] for row in self._existing(ids)])
            self._side.drop(ids)
        self._live.stale = True

    # reading

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
        with self._lock, self._live.current():
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

    def explain_filter(self, where: Where) -> str:
        """See `Gallery.explain_filter`."""
        compile_where(where)
        with self._lock, self._live.current():
            return self._live.passing.explain(where)

    def _require_width(self, model: ModelIdentity, number: int, width: int) -> None:
        with self._lock:
            self._prefixes.require(model, number, width)

    def _find_by_width(
        self, queries: Vectors, k: int, where: Where | None, payloads: bool
    ) -> SearchResult:
        with self._lock:
            return self._prefixes.search(queries, k, where, payloads)

    def _payloads(self, found: Found) -> list[list[Any]]:
        keys = found.keys.tolist()
        rows = self._store.by_key(sorted({key for row in keys for key in row}))
        values = {key: loads(row[4]) for key, row in rows.items()}
        return [[values.get(key) for key in row] for row in keys]

    def _shape(self) -> tuple[bool, int]:
        return self._live.index.base is not None, sum(map(_size, self.path.rglob("*")))

    # what an upgrade needs

    def _changed(self) -> None:
        self._live.stale = True

    def _settle(self) -> None:
        self._live.refresh()
        self._live.compact()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """See `Gallery._alone`; the lock dies with our process."""
        try:
            import fcntl
        except ImportError:  # no such locks on Windows: two runs only do the work twice
            yield
            return
        with Path(self.path / _LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise GalleryBusyError(
                    f"another process is upgrading gallery {self.name!r}"
                ) from None
            yield


def _size(path: Path) -> int:
    """Bytes of a file; 0 for a folder, and for what another process has just removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
