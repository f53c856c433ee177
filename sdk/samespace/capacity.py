"""How much memory, disk and time a gallery of a given size takes, before there is one.

>>> plan = plan_capacity(items=1_000_000, dim=128)
>>> [f"{need.where}: {need.memory_gib:.1f} GiB" for need in plan.needs]
['embedded: 0.6 GiB', 'milvus: 2.2 GiB']

Bytes follow from how items are stored; docs/operations.md has what was planned beside what was then
measured. Rates were measured, on the machine that `measured_rates` names.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.resources import files

from samespace_edge import ConfigError

_GIB = 2**30
_FLOAT = 4

_ROW = 60
"""Bytes of an item's row and of its id's entry in SQLite, besides id, payload and vector. What does
not fit the rest of a page spills over, hence `_PAGES`."""
_PAGES = 1.12
_EMPTIED = 1.3
"""Pages that rows of the old model left are half empty when the new ones come."""
_KEPT = 120
"""Bytes of a Python string and its places in the index's tables, per item, in memory."""
_EDGES = 2 * 16 * 4
"""Bytes of an item's neighbours in an HNSW graph of M = 16 at its lowest layer."""
_HEADROOM = 2.0
"""Memory over the index's own that a server needs while it merges segments and loads them."""
_SERVER = 2**30
"""Bytes of memory that a Milvus takes whatever it holds: its parts, and items not indexed yet."""
_COPIES = 2.8
"""Copies of an item on a Milvus's disk: in its log, its segments, and for a while merged."""
_LEFT = 5.7
"""Copies of an item, old vector and new, that an upgrade leaves there until they are removed."""
_SAFE = 0.7
"""Share of a machine's memory that is planned with."""

_RATES = "measured_rates.json"


@dataclass(frozen=True)
class MeasuredRate:
    """A rate that this version was measured at.

    Attributes:
        value: things a second.
        what: what was measured, and on what.
        source: file of the result, in the repository.
    """

    value: float
    what: str
    source: str


def measured_rates() -> dict[str, MeasuredRate]:
    """The rates that plans are made with: `embedding`, of pictures by one process, and
    `backfill embedded` and `backfill milvus`, of items that a store gives another vector."""
    text = (files("samespace") / _RATES).read_text(encoding="utf-8")
    return {name: MeasuredRate(**value) for name, value in json.loads(text).items()}


@dataclass(frozen=True)
class Need:
    """What one kind of store takes.

    Attributes:
        where: `embedded` or `milvus`.
        memory_gib: of every process that searches, or of all query nodes together.
        disk_gib: of the vectors, their index and payloads.
        upgrade_disk_gib: the same while an upgrade keeps the old vectors.
        shards: parts that memory wants it in, one a machine of `memory_per_machine_gib`. An
            embedded gallery has one part: where this says more, it does not fit.
        backfill_hours: until an upgrade has embedded and stored every item again: whichever of the
            two takes longer, as they go on side by side. None where the store's rate was not
            measured.
    """

    where: str
    memory_gib: float
    disk_gib: float
    upgrade_disk_gib: float
    shards: int
    backfill_hours: float | None

    @property
    def fits(self) -> bool:
        """Whether such machines hold it: a folder cannot be spread over several."""
        return self.where != "embedded" or self.shards == 1


@dataclass(frozen=True)
class CapacityPlan:
    """What a gallery takes.

    Attributes:
        items: how many.
        dim: width of the vectors.
        needs: by store.
        rate: pictures a second that one worker embeds.
        rate_of: where that rate comes from.
        workers: how many embed.
        embedding_hours: to embed every picture once.
        advice: a sentence.
    """

    items: int
    dim: int
    needs: tuple[Need, ...]
    rate: float
    rate_of: str
    workers: int
    embedding_hours: float
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
        rate: pictures a second that one worker embeds, measured with your model, pictures and
            machine, e.g. by `samespace plan capacity --bundle`; by default that of
            `measured_rates`.
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
    room = _SAFE * memory_per_machine_gib
    measured = measured_rates()
    pace = measured["embedding"].value if rate is None else rate
    hours = items / (pace * workers) / 3600
    needs = []
    for where, bytes_of in (("embedded", _embedded), ("milvus", _milvus)):
        memory, disk, more = (items * b / _GIB for b in bytes_of(dim, payload_bytes, id_bytes))
        memory += _SERVER / _GIB if where == "milvus" else 0
        shards = max(1, math.ceil(memory / room))
        backfill = _longer(hours, items, measured.get(f"backfill {where}"))
        needs.append(Need(where, memory, disk, disk + more, shards, backfill))
    return CapacityPlan(
        items=items,
        dim=dim,
        needs=tuple(needs),
        rate=pace,
        rate_of="given" if rate is not None else f"measured: {measured['embedding'].what}",
        workers=workers,
        embedding_hours=hours,
        advice=_advice(needs[0], needs[1], room),
    )


def _embedded(dim: int, payload_bytes: float, id_bytes: float) -> tuple[float, float, float]:
    """Bytes of an item in a folder: in memory, on the disk, and there during an upgrade besides."""
    vector = _FLOAT * dim
    code = dim / 4  # four bits for every two numbers
    record = _PAGES * (vector + payload_bytes + 2 * id_bytes + _ROW)
    index = vector + code + id_bytes + 16
    # While an index is written anew, the one that it replaces is still there.
    more = _EMPTIED * (vector + _ROW) + index
    return vector + code + id_bytes + _KEPT, record + index, more


def _milvus(dim: int, payload_bytes: float, id_bytes: float) -> tuple[float, float, float]:
    """The same of an item in Milvus."""
    vector = _FLOAT * dim
    graph = vector + _EDGES
    stored = vector + payload_bytes + id_bytes
    return _HEADROOM * (graph + id_bytes), _COPIES * stored + graph, _LEFT * (vector + stored)


def _longer(embedding: float, items: int, writing: MeasuredRate | None) -> float | None:
    return None if writing is None else max(embedding, items / writing.value / 3600)


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
        f"{server.shards} query node{'s' if server.shards > 1 else ''}."
    )
