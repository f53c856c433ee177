"""Pictures decoded once, in parallel, to arrays of one size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samespace import Dataset, Item
from samespace_edge import Resize, canonical_json, decode
from samespace_edge._temporary import temporary_for

Report = Callable[[int, int], None]


def decoded(
    dataset: Dataset,
    items: Sequence[Item],
    resize: Resize,
    cache: Path | None = None,
    progress: Report = lambda done, total: None,
) -> NDArray[np.uint8]:
    """Decode and resize `items` to uint8 RGB (N, height, width, 3).

    Args:
        cache: a folder where the result is kept, by what was read, and found the next time.
        progress: is told how many of how many are done.
    """
    file = None
    if cache is not None:
        key = canonical_json([dataset.sha256(items), [i.path for i in items], resize.to_json()])
        file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
        if file.exists():
            found: NDArray[np.uint8] = np.load(file, allow_pickle=False)
            return found
    out = np.empty((len(items), resize.height, resize.width, 3), np.uint8)

    def fill(i: int) -> None:
        out[i] = resize(decode(dataset.read(items[i])))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(fill, range(len(items))), 1):
            progress(done, len(items))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_for(file)
        with temporary.open("wb") as stream:
            np.save(stream, out)
        temporary.replace(file)
    return out


@dataclass(frozen=True)
class Holdout:
    """Train items split by label, so that validation is on labels never trained on.

    Attributes:
        train: what is left to train on.
        queries, gallery: validation pictures; of every label every second one.
    """

    train: tuple[Item, ...]
    queries: tuple[Item, ...]
    gallery: tuple[Item, ...]


def hold_out(items: Sequence[Item], share: float, seed: int) -> Holdout:
    """Carve a share of the labels out of `items` for validation; 0 carves none out."""
    labels = sorted({i.label for i in items})
    count = round(share * len(labels))
    chosen = np.random.default_rng(seed).choice(len(labels), count, replace=False)
    return hold_out_labels(items, {labels[int(i)] for i in chosen})


def hold_out_labels(items: Sequence[Item], held: Collection[str]) -> Holdout:
    """Keep these labels for validation, and the others to train on."""
    queries: list[Item] = []
    gallery: list[Item] = []
    seen: dict[str, int] = {}
    for item in items:
        if item.label in held:
            n = seen[item.label] = seen.get(item.label, -1) + 1
            (queries if n % 2 else gallery).append(item)
    train = tuple(i for i in items if i.label not in held)
    return Holdout(train, tuple(queries), tuple(gallery))
