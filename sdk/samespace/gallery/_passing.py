"""Which items a filter lets through, remembered until something changes."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._filter import Where, compile_where
from samespace.gallery._store import Store

_CACHED_FILTERS = 8


class Passing:
    """The keys that pass the last few filters, for an index that follows a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: dict[str, NDArray[np.int64]] = {}

    def keys(self, where: Where) -> NDArray[np.int64]:
        """Keys of the items that a filter lets through, ascending."""
        condition, parameters = compile_where(where)
        cached = json.dumps([condition, parameters])
        if cached not in self._found:
            if len(self._found) >= _CACHED_FILTERS:
                self._found.pop(next(iter(self._found)))
            keys = self._store.keys_where(condition, parameters)
            self._found[cached] = np.array(keys, np.int64)
        return self._found[cached]

    def forget(self) -> None:
        """Forget all of it: items came or went."""
        self._found.clear()
