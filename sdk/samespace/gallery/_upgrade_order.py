"""In which order a gallery's items are embedded again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._inputs import loads
from samespace.gallery._protocols import GalleryStore
from samespace_edge import ConfigError

_LOOKS_AT_VECTORS = ("farthest", "uncertain")


@dataclass(frozen=True)
class UpgradeOrder:
    """An order, and where it finds what it goes by.

    Attributes:
        name: a row of `samespace.backfill.ORDERS`.
        label: the payload's field that says what an item shows.
        column: the payload's field of numbers that the order `column` goes by.
        seed: of the order `random`.
    """

    name: str = "random"
    label: str = "label"
    column: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        from samespace.backfill import ORDERS

        if self.name not in ORDERS:
            raise ConfigError(
                f"there is no order {self.name!r}; choose one of: {', '.join(sorted(ORDERS))}"
            )
        if (self.name == "column") != (self.column is not None):
            raise ConfigError(
                "the order 'column' goes by a payload's field, and only it does: name both"
            )

    def keys(self, store: GalleryStore, target: int) -> NDArray[Any]:
        """Keys of all items that the model `target` did not make, first things first.

        Raises `ConfigError` where an item has no number in the column.
        """
        from samespace.backfill import ORDERS

        keys: list[Any] = []
        raw, labels, values = [], [], []
        for key, id_, model, vector, text in store.rows():
            if model == target:
                continue
            payload = loads(text)
            told = payload if isinstance(payload, dict) else {}
            keys.append(key)
            labels.append(told.get(self.label))
            if self.name in _LOOKS_AT_VECTORS:
                raw.append(vector)
            if self.column is not None:
                values.append(_number(told, self.column, id_))
        if not keys:
            return np.empty(0, np.int64)
        vectors = np.frombuffer(b"".join(raw), np.float32).reshape(len(keys), -1 if raw else 0)
        place = ORDERS[self.name](
            vectors,
            _codes(labels),
            np.array(values, np.float64) if self.column is not None else None,
            self.seed,
        )
        # A store's keys are numbers, or what only it can read.
        kind = np.int64 if isinstance(keys[0], int) else object
        return np.fromiter(keys, kind, len(keys))[place]


def _codes(labels: list[Any]) -> NDArray[np.int64] | None:
    """Labels as numbers; None where one is missing."""
    if any(label is None for label in labels):
        return None
    texts = [json.dumps(label, sort_keys=True) for label in labels]
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)


def _number(payload: Mapping[str, Any], column: str, id_: str) -> float:
    value = payload.get(column)
    try:
        if not isinstance(value, bool | None):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"item {id_!r} has no number in the payload's field {column!r}: {value!r}")
