"""How much memory, disk and time a gallery of a given size takes, before there is one.

>>> plan = plan_capacity(items=1_000_000, dim=128)
>>> [f"{need.where}: {need.memory_gib:.1f} GiB" for need in plan.needs]
['embedded: 0.7 GiB', 'milvus: 1.5 GiB']
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samespace_edge import ConfigError

_GIB = 2**30
_FLOAT = 4

_ROW = 60
"""Bytes of an item's row and of its id's entry in SQLite, besides id, payload and vector. What does
not fit the rest of a page spills over, hence `_PAGES`."""
_PAGES = 1.12
_EMPTIED = 1.3
"""Pages that rows of the old model left are half empty when the new ones come."""
_KEPT = 110
"""Bytes of a Python string and its places in the index's tables, per item, in memory."""
_EDGES = 2 * 16 * 4
"""Bytes of an item's neighbours in an HNSW graph of M = 16 at its lowest layer."""
_HEADROOM = 2.0
"""Memory over the index's own that a server needs while it merges segments and loads them."""
_SAFE = 0.7
"""Share of a machine's memory that is planned with."""


@dataclass(frozen=True)
class Need:
    """What one kind of store takes.

    Attributes:
        where: `embedded` or `milvus`.
        memory_gib: of every process that searches, or of all query nodes together.
        disk_gib: of the vectors, their index and payloads.
        upgrade_disk_gib: the same while an upgrade keeps the old vectors.
        machines: how many hold it in memory, at `memory_per_machine` each.
    """

    where: str
    memory_gib: float
    disk_gib: float
    upgrade_disk_gib: float
    machines: int


@dataclass(frozen=True)
class CapacityPlan:
    """What a gallery takes.

    Attributes:
        items: how many.
        dim: width of the vectors.
        needs: by store.
        embedding_hours: to embed every picture once, or None where no rate was given.
        advice: a sentence.
    """

    items: int
    dim: int
    needs: tuple[Need, ...]
    embedding_hours: float | None
    advice: str


def plan_capacity(
    items: int,
    dim: int,
    *,
    payload_bytes: float = 100,
    id_bytes: float = 24,
    memory_per_machine_gib: float = 16,
    rate: float | None = None,
    workers: int = 1,
) -> CapacityPlan:
    """Work out what a gallery takes.

    Args:
        items: how many it will hold.
        dim: width of its vectors.
        payload_bytes: mean length of a payload as JSON.
        id_bytes: mean length of an id.
        memory_per_machine_gib: memory of a machine, of which 70 % is planned with.
        rate: pictures a second that one worker embeds, measured, e.g. by `samespace plan capacity
            --bundle`.
        workers: how many embed at once.

    Raises `ConfigError` for a number that cannot be.
    """
    numbers = {
        "items": items,
        "dim": dim,
        "memory_per_machine_gib": memory_per_machine_gib,
        "rate": 1 if rate is None else rate,
        "workers": workers,
    }
    if wrong := [f"{k} = {v}" for k, v in numbers.items() if not 0 < v < math.inf]:
        raise ConfigError(f"a capacity plan needs numbers above 0: {', '.join(wrong)}")
    if payload_bytes < 0 or id_bytes < 1:
        raise ConfigError("payload_bytes has to be at least 0, and id_bytes at least 1")
    vector = _FLOAT * dim
    room = _SAFE * memory_per_machine_gib
    record = _PAGES * (vector + payload_bytes + 2 * id_bytes + _ROW)
    code = dim / 4  # four bits for every two numbers
    index = vector + code + id_bytes + 16
    table = _need("embedded", items, vector + code + id_bytes + _KEPT, record + index, room)
    graph = vector + _EDGES
    stored = vector + payload_bytes + id_bytes
    server = _need("milvus", items, _HEADROOM * (graph + id_bytes), 2 * stored + graph, room)
    kept = items * _EMPTIED * (vector + _ROW) / _GIB
    needs = tuple(
        Need(n.where, n.memory_gib, n.disk_gib, n.disk_gib + kept, n.machines)
        for n in (table, server)
    )
    hours = None if rate is None else items / (rate * workers) / 3600
    return CapacityPlan(items, dim, needs, hours, _advice(table, server, room))


def _need(where: str, items: int, memory: float, disk: float, room: float) -> Need:
    held = items * memory / _GIB
    return Need(where, held, items * disk / _GIB, 0, max(1, math.ceil(held / room)))


def _advice(table: Need, server: Need, room: float) -> str:
    if table.memory_gib <= room / 2:
        return "The embedded gallery fits with room to spare; every worker process holds it once."
    if table.memory_gib <= room:
        return (
            "The embedded gallery fits one process on such a machine, but not two: "
            "for several workers take a larger machine, or Milvus."
        )
    return (
        f"The embedded gallery does not fit such a machine; Milvus holds it on "
        f"{server.machines} query node{'s' if server.machines > 1 else ''}."
    )
