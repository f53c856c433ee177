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
        score: cosine with the query, -1 to 1.
        payload: what was stored with it; None if payloads were not asked for.
    """

    id: str
    score: float
    payload: Any = None


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
        scores: float32 (N, K): cosines; K is the smaller of k and the items there are.
        payloads: for every query the payloads, or None if they were not asked for.
    """

    ids: list[list[str]]
    scores: Vectors
    payloads: list[list[Any]] | None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, query: int) -> list[Hit]:
        payloads = self.payloads[query] if self.payloads else [None] * len(self.ids[query])
        return [
            Hit(id_, float(score), payload)
            for id_, score, payload in zip(
                self.ids[query], self.scores[query], payloads, strict=True
            )
        ]

    def __iter__(self) -> Iterator[list[Hit]]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class GalleryStats:
    """A gallery in figures.

    Attributes:
        items: how many.
        by_model: items by the model that made them.
        admitted: every model whose vectors and queries are accepted.
        approximate: whether searches go through an approximate index.
        bytes_on_disk: size of the folder.
    """

    name: str
    space: Fingerprint
    dim: int
    items: int
    by_model: Mapping[ModelIdentity, int]
    admitted: tuple[ModelIdentity, ...]
    approximate: bool
    bytes_on_disk: int
