"""Items of a gallery as Milvus holds them. What is read is checked against its checksum."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._milvus import _collections as collections
from samespace.gallery._milvus._items import Item, require_fits, stored, text_of
from samespace.gallery._milvus._server import AS_OLD, PAGE, Server, quoted
from samespace.gallery._protocols import StoredRow
from samespace_edge import (
    GalleryDamagedError,
    GalleryError,
    GalleryStorageError,
    ModelIdentity,
    SamespaceError,
)

Vectors = NDArray[np.float32]

FIELDS = ("id", "vector", "model", "fingerprint", "upgrade", "crc", "payload")
_SCHEMA = 1
_PART = 8 << 20  # bytes in one upsert
_CHECKED = 5000  # ids in one look whether they are there


class MilvusStore:
    """An open gallery in Milvus; see `samespace.gallery._protocols.GalleryStore`.

    Args:
        server: its address names the gallery.
        read_only: refuse to write.
    """

    def __init__(self, server: Server, read_only: bool) -> None:
        self.server = server
        self.name = server.address.name
        self.read_only = read_only
        base = collections.target_of(server, self.name)
        _require_ours(server, base)
        if base is None:
            raise GalleryError(
                f"there is no gallery at {server.address.url}. Create one with Gallery.create or "
                "'samespace gallery create'."
            )
        self.base = base
        collections.together(
            lambda: collections.load(server, base),
            lambda: collections.load(server, f"{base}_meta"),
        )
        self.settings = collections.Meta(server, f"{base}_meta")
        self.about = self.settings.get("gallery")
        if self.about is None:
            raise self.damaged("its settings are missing")
        if self.about["schema"] != _SCHEMA:
            raise GalleryError(
                f"gallery {server.address.url} has schema {self.about['schema']}; this version "
                f"reads {_SCHEMA}. Install a newer samespace."
            )
        self.dim: int = self.about["dim"]
        self._prints: dict[int, str] = {}
        self._added: dict[str, float] = {}
        self._batches: deque[tuple[float, Sequence[str]]] = deque()

    @staticmethod
    def create(server: Server, anchor: ModelIdentity, label: str) -> None:
        """Make an empty gallery. It is there when its alias is, which comes last."""
        name, base = server.address.name, collections.new_base(server.address.name)
        taken = GalleryError(f"there is already a gallery at {server.address.url}; open it")
        there = collections.target_of(server, name)
        _require_ours(server, there)
        if there is not None:
            raise taken
        try:
            collections.together(
                lambda: collections.create_items(server, base, anchor.dim),
                lambda: collections.create_meta(server, f"{base}_meta"),
            )
            meta = collections.Meta(server, f"{base}_meta")
            _put_model(meta, anchor.to_json(), None)
            about = {"schema": _SCHEMA, "name": label, "dim": anchor.dim, "space": anchor.space.hex}
            meta.set("gallery", {**about, "upgrades": 0})
            if not collections.claim(server, name, base):
                raise taken
        except SamespaceError:
            with contextlib.suppress(SamespaceError):
                for collection in (base, f"{base}_meta"):
                    collections.drop(server, collection)
            raise

    def close(self) -> None:
        """Let go of the connection."""
        self.server.close()

    def damaged(self, what: str) -> GalleryDamagedError:
        """The error that says so, to be raised."""
        return GalleryDamagedError(
            f"gallery {self.server.address.url} is damaged ({what}). Restore it from a backup of "
            "Milvus."
        )

    def require_writable(self) -> None:
        """Raise `GalleryStorageError` for a gallery that was opened to be read only."""
        if self.read_only:
            raise GalleryStorageError(
                f"gallery {self.server.address.url} was opened with read_only=True"
            )

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Milvus has no transactions: reads are each of their own moment."""
        return contextlib.nullcontext()

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Milvus has no transactions: writes are durable one by one, in their order."""
        self.require_writable()
        return contextlib.nullcontext()

    # models

    def models(self) -> list[tuple[int, dict[str, Any], dict[str, Any] | None]]:
        """Admitted models, the anchor first: number, identity, certificate (None: anchor)."""
        found = sorted(self.settings.starting("model:").values(), key=lambda m: str(m["admitted"]))
        found.sort(key=lambda m: m["certificate"] is not None)
        self._prints = {m["number"]: m["identity"]["fingerprint"] for m in found}
        return [(m["number"], m["identity"], m["certificate"]) for m in found]

    def put_model(self, identity: dict[str, Any], certificate: dict[str, Any] | None) -> int:
        """Admit a model, or renew its certificate; returns its number."""
        return _put_model(self.settings, identity, certificate)

    # reading

    def count_by_model(self) -> dict[int, int]:
        """Number of items of every model that has any."""
        counts = {
            number: self.server.count(self.base, f"model == {number}")
            for number, _, _ in self.models()
        }
        return {number: count for number, count in counts.items() if count}

    def rows(self) -> Iterator[StoredRow]:
        """Every item, in order of the ids."""
        return (item.row for page in self.items() for item in page)

    def items(self, where: str = "", after: str = "", size: int = PAGE) -> Iterator[list[Item]]:
        """Items that meet an expression, in order of the ids, in lists."""
        pages = self.server.pages(
            self.base, FIELDS, dim=self.dim, where=where, after=after, size=size
        )
        return ([self.checked(row) for row in page] for page in pages)

    def by_id(self, ids: Sequence[str], latest: bool = True) -> dict[str, StoredRow]:
        """Rows of the items with these ids; those that are not there are left out."""
        return {item.id: item.row for item in self.found(ids, latest)}

    def found(self, ids: Sequence[str], latest: bool = True) -> list[Item]:
        """The items with these ids; those that are not there are left out."""
        level = self.server.level(self.base, latest)
        return [self.checked(r) for r in self.server.by_id(self.base, ids, FIELDS, level=level)]

    def checked(self, row: dict[str, Any]) -> Item:
        """An item from a row of Milvus; raises `GalleryDamagedError`."""
        vector = np.asarray(row["vector"], "<f4").tobytes()
        item = Item(row["id"], row["model"], vector, text_of(row["payload"]), row["upgrade"])
        if item.crc != row["crc"]:
            raise self.damaged(f"item {item.id!r} does not hold what was written")
        return item

    def sample(self, count: int) -> list[StoredRow]:
        """Up to `count` different items, each the nearest in a random direction."""
        if count < 1:
            return []
        ways = np.random.default_rng().standard_normal((count, self.dim)).astype(np.float32)
        level = self.server.level(self.base, False)
        found = self.server.call(
            lambda timeout: self.server.client.search(
                self.base, data=list(ways), limit=1, timeout=timeout, consistency_level=level
            )
        )
        return list(self.by_id(list({hit["id"] for hits in found for hit in hits})).values())

    def taken(self, ids: Sequence[str]) -> list[str]:
        """Which of these ids are there."""
        self._forget_old()
        maybe = {i for i in ids if i in self._added}
        # What came from elsewhere less than five seconds ago may be missed: adding is an upsert,
        # so the later of the two stays, and there are never two.
        for start in range(0, len(ids), _CHECKED):
            part = f"id in {quoted(ids[start : start + _CHECKED])}"
            if self.server.count(self.base, part, level="Bounded"):
                maybe |= {
                    r["id"] for r in self.server.query(self.base, part, ["id"], level="Bounded")
                }
        # And what went meanwhile is not there.
        there = self.server.by_id(self.base, sorted(maybe), ["id"], level="Strong")
        gone_or_not = {row["id"] for row in there}
        return [i for i in ids if i in gone_or_not]

    # writing

    def add(
        self, ids: Sequence[str], number: int, vectors: Vectors, texts: Sequence[str | None]
    ) -> None:
        """Store new items, by model `number`, in place of those with their ids."""
        raw, size = vectors.tobytes(), 4 * self.dim
        self.put(
            (Item(id_, number, raw[i * size : (i + 1) * size], text))
            for i, (id_, text) in enumerate(zip(ids, texts, strict=True))
        )
        now = time.monotonic()
        self._added |= dict.fromkeys(ids, now)
        self._batches.append((now, ids))
        self._forget_old()

    def _forget_old(self) -> None:
        """Forget what was added here so long ago that Milvus tells of it by itself."""
        now = time.monotonic()
        while self._batches and now - self._batches[0][0] >= 2 * AS_OLD:
            at, ids = self._batches.popleft()
            for id_ in ids:
                if self._added.get(id_) == at:
                    del self._added[id_]

    def put(self, items: Iterable[Item]) -> None:
        """Store items in place of those with their ids."""
        self.require_writable()
        whole = list(items)
        for item in whole:
            require_fits(item)
        part: list[Item] = []
        size = 0
        for item in whole:
            part.append(item)
            size += len(item.vector) + len(item.text or "") + 256
            if size >= _PART:
                self._write(part)
                part, size = [], 0
        if part:
            self._write(part)

    def _write(self, items: Sequence[Item]) -> None:
        t = self.server.types
        numbers = [item.model for item in items]
        raw = b"".join(item.vector for item in items)
        vectors = np.frombuffer(raw, "<f4").reshape(len(items), self.dim)
        self.server.write(
            self.base,
            {
                "id": (t.VARCHAR, [item.id for item in items]),
                "vector": (t.FLOAT_VECTOR, vectors),
                "model": (t.INT64, numbers),
                "fingerprint": (t.VARCHAR, [self.print_of(n) for n in numbers]),
                "upgrade": (t.INT64, [item.upgrade for item in items]),
                "crc": (t.INT64, [item.crc for item in items]),
                "payload": (t.JSON, [stored(item.text) for item in items]),
            },
        )

    def print_of(self, number: int) -> str:
        """The fingerprint of an admitted model."""
        if number not in self._prints:
            self.models()
        return self._prints[number]

    def remove(self, ids: Sequence[str]) -> None:
        """Delete items."""
        self.require_writable()
        for start in range(0, len(ids), _CHECKED):
            self.server.delete(self.base, f"id in {quoted(ids[start : start + _CHECKED])}")
        for id_ in ids:
            self._added.pop(id_, None)


def remove(url: str, timeout: float = 10.0) -> None:
    """Remove a gallery from Milvus with all that is in it; nothing happens where there is none."""
    from samespace.gallery._milvus._address import Address

    server = Server(Address.parse(url, timeout))
    try:
        name = server.address.name
        base = collections.target_of(server, name)
        _require_ours(server, base)
        for alias in (name, f"{name}__before"):
            collections.unpoint(server, alias)
        for collection in server.call(lambda t: server.client.list_collections(timeout=t)):
            if base is not None and collection.startswith(base):
                collections.drop(server, collection)
    finally:
        server.close()


def _require_ours(server: Server, base: str | None) -> None:
    """Raise `GalleryError` where a gallery's name is that of something else.

    Args:
        base: what the name is an alias of.
    """
    name = server.address.name
    if base is None and collections.is_plain(server, name):
        raise _not_ours(server, f"the collection {name!r}")
    if base is not None and not collections.is_plain(server, f"{base}_meta"):
        raise _not_ours(server, f"the alias {name!r} of the collection {base!r}")


def _not_ours(server: Server, what: str) -> GalleryError:
    return GalleryError(
        f"{what} of the Milvus at {server.address.server} was not made by samespace; choose "
        f"another name than {server.address.url}"
    )


def _put_model(
    meta: collections.Meta, identity: dict[str, Any], certificate: dict[str, Any] | None
) -> int:
    # The number follows from what the model is: two who admit it at once agree about it.
    who = f"{identity['fingerprint']}:{identity['variant_sha256']}"
    number = int(hashlib.sha256(who.encode()).hexdigest()[:15], 16)
    key = f"model:{number}"
    known = meta.get(key)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    meta.set(
        key,
        {
            "number": number,
            "identity": identity,
            "certificate": certificate,
            "admitted": known["admitted"] if known else now,
        },
    )
    return number
