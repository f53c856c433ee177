"""What a gallery answers with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge import Fingerprint, ModelIdentity

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Hit:
    """An item that was found.

    Attributes:
        id: the item's.
        score: cosine with the query, -1 to 1: what thresholds are compared with.
        payload: what was stored with it; None if payloads were not asked for.
        corrected_score: score plus the item's hub bias, which the order is by; None where the
            search was not corrected.
    """

    id: str
    score: float
    payload: Any = None
    corrected_score: float | None = None


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
        scores: float32 (N, K): cosines; K is the smaller of k and the items there are. They mean
            the same whether or not the search was corrected, so the thresholds of a report go
            with them; in a corrected search they need not fall from hit to hit.
        payloads: for every query the payloads, or None if they were not asked for.
        corrected_scores: float32 (N, K): cosines plus hub biases, which the order is by, or None
            where the search was not corrected. Only compare them within one query.
    """

    ids: list[list[str]]
    scores: Vectors
    payloads: list[list[Any]] | None
    corrected_scores: Vectors | None = None

    def __post_init__(self) -> None:
        # Rounding makes a product of unit vectors 1.0000001.
        object.__setattr__(self, "scores", np.clip(self.scores, -1, 1))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, query: int) -> list[Hit]:
        count = len(self.ids[query])
        payloads = self.payloads[query] if self.payloads else [None] * count
        corrected: list[float | None] = [None] * count
        if self.corrected_scores is not None:
            corrected = self.corrected_scores[query].tolist()
        return [
            Hit(id_, float(score), payload, hub)
            for id_, score, payload, hub in zip(
                self.ids[query], self.scores[query], payloads, corrected, strict=True
            )
        ]

    def __iter__(self) -> Iterator[list[Hit]]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, repr=False)
class HubCorrection:
    """A query model whose searches are corrected for hubs.

    Attributes:
        model: the query model.
        bank: how many of its vectors of pictures without labels the biases come from.
        k: how many of an item's largest cosines with the bank are averaged.
        weight: factor of that mean in the bias.
    """

    model: ModelIdentity
    bank: int
    k: int
    weight: float

    def __repr__(self) -> str:
        return f"HubCorrection({self.model}, {self.bank} vectors, k={self.k}, w={self.weight:g})"


@dataclass(frozen=True)
class GalleryStats:
    """A gallery in figures.

    Attributes:
        items: how many.
        by_model: items by the model that made them.
        admitted: every model whose vectors and queries are accepted.
        approximate: whether searches go through an approximate index.
        bytes_on_disk: size of the folder.
        corrections: the query models whose searches are corrected for hubs.
    """

    name: str
    space: Fingerprint
    dim: int
    items: int
    by_model: Mapping[ModelIdentity, int]
    admitted: tuple[ModelIdentity, ...]
    approximate: bool
    bytes_on_disk: int
    corrections: tuple[HubCorrection, ...] = ()
