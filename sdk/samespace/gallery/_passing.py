"""Which items a filter lets through, remembered until something changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._filter import Where, compared_kinds, compile_where
from samespace.gallery._store import Store

_CACHED_FILTERS = 8


_WORDS = {
    "integer": "numbers",
    "real": "numbers",
    "text": "texts",
    "true": "booleans",
    "false": "booleans",
    "array": "lists",
    "object": "objects",
}
_COMPARABLE = ("numbers", "texts", "booleans")


def _worded(kinds: Sequence[str]) -> str:
    """SQLite's names of JSON types in words, such as `numbers or texts`."""
    return " or ".join(dict.fromkeys(_WORDS[kind] for kind in kinds))


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

    def explain(self, where: Where) -> str:
        """See `Gallery.explain_filter`."""
        for key, path, kinds in compared_kinds(where):
            if other := self._other_kind(path, kinds):
                kind, value = other
                asked, held = _worded(kinds), _worded([kind])
                advice = f"Compare with {held}, or store the items again with {asked} there"
                if held not in _COMPARABLE:
                    advice = f"A filter cannot compare {held}: store {asked} in a key of its own"
                elif (asked, held) == ("numbers", "texts"):
                    advice += f" (of a CSV: --number {key})"
                return (
                    f"the filter on {key!r} compares with {asked}, but items hold {held} there, "
                    f"such as {value!r}, so none can pass. {advice}."
                )
        return ""

    def _other_kind(self, path: str, kinds: Sequence[str]) -> tuple[str, Any] | None:
        """The JSON type and the value of some item at a path of the payloads, where some item has a
        value there and none has one of these types; None otherwise."""
        marks = ",".join("?" * len(kinds))
        with self._store.errors():
            is_there = self._store.db.execute(
                f"SELECT 1 FROM items WHERE json_type(payload, ?) IN ({marks}) LIMIT 1",
                (path, *kinds),
            ).fetchone()
            if is_there:
                return None
            found: tuple[str, Any] | None = self._store.db.execute(
                "SELECT json_type(payload, ?), json_extract(payload, ?) FROM items "
                "WHERE json_type(payload, ?) NOT NULL AND json_type(payload, ?) != 'null' LIMIT 1",
                (path, path, path, path),
            ).fetchone()
            return found

    def forget(self) -> None:
        """Forget all of it: items came or went."""
        self._found.clear()
