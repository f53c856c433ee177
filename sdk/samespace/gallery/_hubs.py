"""Setting up a hub correction: the long part without a lock on the database, the rest at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._hub_store import ROWS_AT_ONCE, Correction, HubStore
from samespace.gallery._store import Store

Vectors = NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is done."""

_CENTRE_FROM = 256


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


def is_vectors(bank: Any) -> bool:
    """Whether a bank is given as vectors: an array of floats. Everything else is pictures."""
    return isinstance(bank, np.ndarray) and bank.dtype.kind == "f"


def correct(
    store: Store,
    hubs: HubStore,
    lock: RLock,
    made: Correction,
    progress: Progress,
) -> None:
    """Compute the bias of every item and store the correction.

    Items are read in parts and `lock` is only held for reading them: meanwhile others search and
    write. A row is never changed, so a bias that was computed stays right; what came since gets
    its bias in the transaction that stores everything, and what went is left out.
    """
    store.require_writable()
    # Checks k, weight and bank before anything long; and in an empty gallery, it is what the
    # biases of items to come are expected to be.
    centre = float(made.bias(made.bank[:_CENTRE_FROM]).mean())
    keys: list[int] = []
    parts: list[Vectors] = []
    with lock:
        total = sum(store.count_by_model().values())
    more = True
    while more:
        with lock:
            rows = list(itertools.islice(store.rows(keys[-1] if keys else 0), ROWS_AT_ONCE))
        # A part that is not full was the last: whoever goes on writing cannot keep us here.
        more = len(rows) == ROWS_AT_ONCE
        if not rows:
            break
        raw = b"".join(row[3] for row in rows)
        parts.append(made.bias(np.frombuffer(raw, np.float32).reshape(len(rows), -1)))
        keys += [row[0] for row in rows]
        progress("hub biases", len(keys), max(total, len(keys)))
    biases = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if len(biases):
        centre = float(biases.mean(dtype=np.float64))
    with lock, store.writing():
        hubs.put(replace(made, centre=centre), np.array(keys, np.int64), biases)
