"""What goes in and out as JSON. `samespace.Client` reads and writes the same."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_MOST = 100_000  # of anything, before the service's own limits are looked at


Id = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QueryVectors(_Strict):
    """Vectors to search with."""

    vectors: list[list[float]] = Field(min_length=1, max_length=_MOST)


class AddVectors(_Strict):
    """Items with the vectors that a model made of them."""

    ids: list[Id] = Field(min_length=1, max_length=_MOST)
    vectors: list[list[float]] = Field(min_length=1, max_length=_MOST)
    payloads: list[Any] | None = None


class Ids(_Strict):
    """Ids of items."""

    ids: list[Id] = Field(min_length=1, max_length=_MOST)


class Model(BaseModel):
    """Who makes vectors: which file of which model."""

    name: str
    fingerprint: str
    variant: str
    variant_sha256: str
    space: str
    dim: int


class Hit(BaseModel):
    """An item that was found; `score` is the cosine."""

    id: str
    score: float
    payload: Any = None
    corrected_score: float | None = None


class Found(BaseModel):
    """Hits for every query, best first, and who made the queries."""

    model: Model
    results: list[list[Hit]]


class Stored(BaseModel):
    """An item as it is stored; its vector only if it was asked for."""

    id: str
    payload: Any = None
    model: Model
    vector: list[float] | None = None


class StoredItems(BaseModel):
    """Items in the order of the ids."""

    items: list[Stored]


class Written(BaseModel):
    """How many items are on the disk, or gone, when this answer is sent."""

    items: int


class ModelCount(BaseModel):
    """How many items a model made."""

    model: Model
    items: int


class Correction(BaseModel):
    """A query model whose searches are corrected for hubs."""

    model: Model
    bank: int
    k: int
    weight: float


class Stats(BaseModel):
    """The gallery in figures."""

    name: str
    space: str
    dim: int
    items: int
    by_model: list[ModelCount]
    approximate: bool
    bytes_on_disk: int
    corrections: list[Correction]


class Admitted(BaseModel):
    """A model whose vectors and queries are accepted.

    `certificate` is None for the anchor, which needs none; `runs_here` says whether the service
    embeds pictures with it, `is_offered` whether its bundle may be downloaded.
    """

    model: Model
    certificate: dict[str, Any] | None
    runs_here: bool
    is_offered: bool


class Models(BaseModel):
    """All of them, the anchor first."""

    space: str
    models: list[Admitted]


class UpgradeState(BaseModel):
    """How far an upgrade is; of the items that cannot be embedded again, the first hundred."""

    target: Model
    state: str
    order: str
    started: str
    items: int
    done: int
    waiting: int
    share: float
    kept: int
    unreadable_count: int
    unreadable: dict[str, str]


class Upgrades(BaseModel):
    """The upgrade that is under way, or whose old vectors are kept; None without one."""

    upgrade: UpgradeState | None


class Problem(BaseModel):
    """Why a request was refused (RFC 9457); `reason` is one of a fixed list."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    request_id: str


class State(BaseModel):
    """`ok`."""

    status: str
