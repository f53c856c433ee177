"""The collections of a gallery, and the small one that its settings are in.

| name | holds |
| --- | --- |
| `NAME` | an alias: the items. That it is there is what makes a gallery exist |
| `NAME__UUID` | items: id, vector, model, fingerprint, upgrade, crc, payload |
| `NAME__UUID_meta` | settings, admitted models with their certificates, the upgrade, its lease |
| `NAME__UUID_old_N` | vectors that upgrade N replaced, by id |
| `NAME__UUID_queue_N` | what it does next, and what it could not read |
| `NAME__before` | an alias: the old vectors of the upgrade that is committed |
"""

from __future__ import annotations

import json
import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from samespace.gallery._milvus._server import Server, quoted
from samespace_edge import GalleryBusyError, GalleryDamagedError, GalleryError, canonical_json

MOST_ID = 512  # bytes
MOST_PAYLOAD = 65_000  # bytes
MOST_REASON = 2000  # characters
_MOST_VALUE = 65_000

HNSW = {"M": 16, "efConstruction": 200}


def new_base(name: str) -> str:
    """The name of a gallery's collections."""
    return f"{name}__{uuid.uuid4().hex[:12]}"


def create_items(server: Server, name: str, dim: int) -> None:
    """Make the collection of a gallery's items."""
    t = server.types
    _create(
        server,
        name,
        {
            "vector": (t.FLOAT_VECTOR, {"dim": dim}),
            "model": (t.INT64, {}),
            "fingerprint": (t.VARCHAR, {"max_length": 64}),
            "upgrade": (t.INT64, {}),
            "crc": (t.INT64, {}),
            "payload": (t.JSON, {}),
        },
        index={"index_type": "HNSW", "metric_type": "IP", "params": HNSW},
    )


def create_old(server: Server, name: str, dim: int) -> None:
    """Make the collection of vectors that an upgrade replaced."""
    t = server.types
    _create(
        server,
        name,
        {
            "vector": (t.FLOAT_VECTOR, {"dim": dim}),
            "model": (t.INT64, {}),
            "fingerprint": (t.VARCHAR, {"max_length": 64}),
            "crc": (t.INT64, {}),
        },
        # Nobody searches it; were it indexed, that would cost as much as the items do.
        index={"index_type": "FLAT", "metric_type": "IP", "params": {}},
    )


def create_queue(server: Server, name: str) -> None:
    """Make the collection of what an upgrade does next."""
    t = server.types
    _create(
        server,
        name,
        {
            "vector": (t.FLOAT_VECTOR, {"dim": 2}),
            "place": (t.INT64, {}),
            "item": (t.VARCHAR, {"max_length": MOST_ID}),
            "state": (t.INT64, {}),
            "reason": (t.VARCHAR, {"max_length": 4 * MOST_REASON}),
        },
    )


def create_meta(server: Server, name: str) -> None:
    """Make the collection of a gallery's settings."""
    t = server.types
    _create(
        server,
        name,
        {
            "vector": (t.FLOAT_VECTOR, {"dim": 2}),
            "value": (t.VARCHAR, {"max_length": 65_535}),
            "crc": (t.INT64, {}),
        },
    )


def no_vectors(server: Server, count: int) -> tuple[Any, Any]:
    """A column for collections that have no vectors: Milvus wants one."""
    return server.types.FLOAT_VECTOR, np.zeros((count, 2), np.float32)


def _create(
    server: Server,
    name: str,
    fields: Mapping[str, tuple[Any, Mapping[str, Any]]],
    index: Mapping[str, Any] | None = None,
) -> None:
    client = server.client
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", server.types.VARCHAR, is_primary=True, max_length=MOST_ID)
    for field, (kind, options) in fields.items():
        schema.add_field(field, kind, **options)
    parameters = client.prepare_index_params()
    flat = {"index_type": "FLAT", "metric_type": "IP", "params": {}}
    parameters.add_index("vector", **(index or flat))

    def make(timeout: float) -> None:
        if not client.has_collection(name, timeout=timeout):
            client.create_collection(
                name,
                schema=schema,
                num_shards=server.address.shards if index else 1,
                consistency_level="Bounded",
                timeout=timeout,
            )
        client.create_index(name, parameters, timeout=timeout)

    server.call(make, patience=6)
    load(server, name)


def load(server: Server, name: str) -> None:
    """Have Milvus hold a collection in memory; returns when it can be searched."""
    server.call(
        lambda timeout: server.client.load_collection(
            name, timeout=timeout, replica_number=server.address.replicas
        ),
        patience=6,
    )


def together(*acts: Callable[[], None]) -> None:
    """Do them at once: Milvus takes seconds to load a collection, and no longer for two.

    Raises what the first of them raises, when all have ended.
    """
    with ThreadPoolExecutor(len(acts)) as threads:
        for done in [threads.submit(act) for act in acts]:
            done.result()


def drop(server: Server, name: str) -> None:
    """Remove a collection, if it is there."""
    server.call(lambda timeout: server.client.drop_collection(name, timeout=timeout), patience=6)


def target_of(server: Server, alias: str) -> str | None:
    """The collection that an alias stands for; None where there is no such alias."""

    def look(timeout: float) -> str | None:
        if not server.client.has_collection(alias, timeout=timeout):
            return None
        found = server.client.describe_collection(alias, timeout=timeout)
        return str(found["collection_name"]) if alias in found["aliases"] else None

    return server.call(look)


def is_plain(server: Server, name: str) -> bool:
    """Whether there is a collection, and no alias, of this name."""
    there = server.call(lambda timeout: server.client.has_collection(name, timeout=timeout))
    return bool(there) and target_of(server, name) is None


def claim(server: Server, alias: str, name: str) -> bool:
    """Make a new alias stand for a collection; False where somebody else was quicker."""
    try:
        server.call(
            lambda timeout: server.client.create_alias(
                collection_name=name, alias=alias, timeout=timeout
            )
        )
    except GalleryError:
        # Done, or lost, by an earlier try whose answer did not come.
        if (there := target_of(server, alias)) is None:
            raise
        return there == name
    return True


def point(server: Server, alias: str, name: str) -> None:
    """Make an alias stand for a collection, in one step."""
    there = target_of(server, alias)
    client = server.client
    act = client.create_alias if there is None else client.alter_alias
    if there != name:
        server.call(lambda timeout: act(collection_name=name, alias=alias, timeout=timeout))


def unpoint(server: Server, alias: str) -> None:
    """Remove an alias, if it is there; the collection stays."""
    if target_of(server, alias) is not None:
        server.call(lambda timeout: server.client.drop_alias(alias, timeout=timeout))


class Meta:
    """Settings by key, each a JSON value with a checksum. Reads see the last acknowledged write.

    Args:
        name: of the collection.
    """

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name

    def get(self, key: str) -> Any:
        """A setting; None where there is none."""
        return self._read(f"id == {quoted(key)}").get(key)

    def starting(self, prefix: str) -> dict[str, Any]:
        """The settings whose keys start with `prefix`."""
        return self._read(f'id like "{prefix}%"')

    def set(self, key: str, value: Any) -> None:
        """Change a setting."""
        text = canonical_json(value)
        if len(text.encode()) > _MOST_VALUE:
            raise GalleryError(
                f"{key!r} takes {len(text.encode()):,} bytes; Milvus holds {_MOST_VALUE:,} in one"
            )
        t = self._server.types
        self._server.write(
            self._name,
            {
                "id": (t.VARCHAR, [key]),
                "vector": no_vectors(self._server, 1),
                "value": (t.VARCHAR, [text]),
                "crc": (t.INT64, [zlib.crc32(text.encode())]),
            },
        )

    def unset(self, keys: Sequence[str]) -> None:
        """Remove settings."""
        self._server.delete(self._name, f"id in {quoted(keys)}")

    def _read(self, condition: str) -> dict[str, Any]:
        rows = self._server.query(self._name, condition, ["value", "crc"], level="Strong")
        for row in rows:
            if zlib.crc32(row["value"].encode()) != row["crc"]:
                raise GalleryDamagedError(
                    f"gallery {self._server.address.url}: setting {row['id']!r} was changed by "
                    "something else than samespace. Restore it from a backup of Milvus."
                )
        return {row["id"]: json.loads(row["value"]) for row in rows}


LEASE = "lease"
LEASE_SECONDS = 40.0


def take_lease(meta: Meta, gallery: str, owner: str, gone: bool) -> None:
    """Note who runs an upgrade; raises `GalleryBusyError` where somebody else does.

    Args:
        owner: who asks.
        gone: whether the one who has it is known to have ended.
    """
    held = meta.get(LEASE)
    now = time.time()
    if held and held["owner"] != owner and held["until"] > now and not gone:
        raise GalleryBusyError(
            f"another process ({held['owner']}) is upgrading gallery {gallery!r}; if it has died, "
            f"its place is free in {held['until'] - now:.0f} s"
        )
    meta.set(LEASE, {"owner": owner, "until": now + LEASE_SECONDS})
    if meta.get(LEASE)["owner"] != owner:
        raise GalleryBusyError(f"another process began to upgrade gallery {gallery!r}")
