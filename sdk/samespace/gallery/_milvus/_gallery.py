"""The gallery's rules over a Milvus."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._filter import Where
from samespace.gallery._gallery import Gallery
from samespace.gallery._milvus._address import Address
from samespace.gallery._milvus._collections import LEASE, LEASE_SECONDS, take_lease
from samespace.gallery._milvus._exact import nearest
from samespace.gallery._milvus._filter import expression
from samespace.gallery._milvus._items import Item, plain_payload
from samespace.gallery._milvus._server import Server
from samespace.gallery._milvus._store import MilvusStore
from samespace.gallery._milvus._upgrades import MilvusUpgrades
from samespace.gallery._values import SearchResult
from samespace_edge import Fingerprint, GalleryError, ModelIdentity, SamespaceError

Vectors = NDArray[np.float32]

MOST_HITS = 16_384  # Milvus's own limit, of hits and of queries in one call
_QUERIES = 500  # in one call
_EF = 4  # candidates per probe, so that the default looks at 128
_FEW = 1000  # items that pass a filter, up to which each is looked at
_COUNTED = 60.0  # seconds for which a count of what passes a filter is good enough
_MOST_COUNTED = 1000


class MilvusGallery(Gallery):
    """Items in a Milvus, which several machines may share."""

    _store: MilvusStore

    def __init__(self, store: MilvusStore) -> None:
        self.url = store.server.address.url
        self._passing: dict[str, tuple[int, float]] = {}
        super().__init__(
            store,
            MilvusUpgrades(store),
            name=store.about["name"],
            dim=store.dim,
            space=Fingerprint(store.about["space"]),
        )

    @classmethod
    def made(cls, url: str, anchor: ModelIdentity, name: str | None) -> MilvusGallery:
        """Create a gallery; see `Gallery.create`."""
        server = Server(Address.parse(url, 10.0))
        try:
            MilvusStore.create(server, anchor, name or server.address.name)
        finally:
            server.close()
        return cls.opened(url, False, 10.0)

    @classmethod
    def opened(cls, url: str, read_only: bool, busy_timeout: float) -> MilvusGallery:
        """Open a gallery; see `Gallery.open`."""
        server = Server(Address.parse(url, busy_timeout))
        try:
            return cls(MilvusStore(server, read_only))
        except BaseException:
            server.close()
            raise

    @property
    def path(self) -> Path:
        """See `Gallery.path`."""
        raise GalleryError(f"gallery {self.url} is in a server and has no folder")

    def __len__(self) -> int:
        return self._store.server.count(self._store.base)

    # writing

    def _insert(
        self,
        ids: Sequence[str],
        number: int,
        vectors: Vectors,
        texts: Sequence[str | None],
        replace: bool,
    ) -> None:
        if not replace and (taken := self._store.taken(ids)):
            raise self._taken(taken)
        self._store.add(ids, number, vectors, texts)

    def _change(
        self, id_: str, number: int | None, raw: bytes | None, text: str | None, keep_payload: bool
    ) -> None:
        self._existing([id_])
        old = self._store.found([id_])[0]
        self._store.put(
            [
                Item(
                    id_,
                    old.model if number is None else number,
                    old.vector if raw is None else raw,
                    old.text if keep_payload else text,
                    # With its vector unchanged it is still what an upgrade made of it.
                    old.upgrade if raw is None else 0,
                )
            ]
        )

    def _remove(self, ids: Sequence[str]) -> None:
        self._existing(ids)
        self._store.remove(ids)

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
        if corrected:
            raise self._only_in_a_folder("hub corrections")
        condition = "" if where is None else expression(where)
        few = bool(condition) and self._few(condition)
        if exact or few or k > MOST_HITS:
            return nearest(self._store, queries, k, condition, payloads, few)
        parts = [
            self._search(queries[i : i + _QUERIES], k, condition, payloads, _EF * probes)
            for i in range(0, len(queries), _QUERIES)
        ]
        hits = [row for part in parts for row in part]
        width = max((len(row) for row in hits), default=0)
        if any(len(row) != width for row in hits):
            # The graph ran out of ways for some of them; looking at everything does not.
            return nearest(self._store, queries, k, condition, payloads, False)
        return SearchResult(
            [[hit["id"] for hit in row] for row in hits],
            np.array([[hit["distance"] for hit in row] for row in hits], np.float32).reshape(
                len(hits), width
            ),
            [[plain_payload(hit["entity"]["payload"]) for hit in row] for row in hits]
            if payloads
            else None,
        )

    def _few(self, condition: str) -> bool:
        """Whether so few items meet an expression that the graph would miss some of them."""
        now = time.monotonic()
        count, at = self._passing.get(condition, (0, -_COUNTED))
        if now - at >= _COUNTED:
            server, base = self._store.server, self._store.base
            count = server.count(base, condition, level=server.level(base, False))
            if len(self._passing) >= _MOST_COUNTED:
                self._passing.clear()
            self._passing[condition] = (count, now)
        return count <= _FEW

    def _search(
        self, queries: Vectors, k: int, condition: str, payloads: bool, effort: int
    ) -> list[Any]:
        server, base = self._store.server, self._store.base
        level = server.level(base, False)
        return server.call(
            lambda timeout: list(
                server.client.search(
                    base,
                    data=list(queries),
                    filter=condition,
                    limit=k,
                    output_fields=["payload"] if payloads else [],
                    search_params={"params": {"ef": min(max(k, effort), 32_768)}},
                    consistency_level=level,
                    timeout=timeout,
                )
            )
        )

    def _shape(self) -> tuple[bool, int]:
        return True, 0

    # what an upgrade needs

    def _changed(self) -> None:
        """Nothing is held here that could be out of date."""

    def _settle(self) -> None:
        """Milvus compacts by itself."""

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """See `Gallery._alone`: a lease in Milvus, renewed until we are done."""
        host = socket.gethostname()
        owner = f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        meta = self._store.settings
        take_lease(meta, self.name, owner, gone=_ended(meta.get(LEASE), host))
        done = threading.Event()

        def renew() -> None:
            while not done.wait(LEASE_SECONDS / 4):
                # Without an answer, the upgrade itself will say so.
                with contextlib.suppress(SamespaceError):
                    take_lease(meta, self.name, owner, gone=False)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            with contextlib.suppress(SamespaceError):
                meta.unset([LEASE])


def _ended(held: Any, host: str) -> bool:
    """Whether who has the lease was a process of this machine that is no more."""
    if not held or not held["owner"].startswith(f"{host}:"):
        return False
    try:
        os.kill(int(held["owner"].split(":")[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
