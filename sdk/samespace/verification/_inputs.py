"""What every measurement begins with: preprocessed pictures, and labels as numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from samespace._dataset import Dataset, Item
from samespace_edge import ImageError, Resize, VerificationError
from samespace_edge._image import decode_image

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is done."""

BATCH = 64


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


def batches(resize: Resize, data: Dataset, items: Sequence[Item]) -> Iterator[NDArray[np.uint8]]:
    """The items' pictures as a graph takes them, uint8 RGB (N, H, W, 3), up to `BATCH` at once.

    Raises `VerificationError` naming a picture that cannot be read.
    """

    def pixels(item: Item) -> NDArray[np.uint8]:
        try:
            return resize(decode_image(data.read(item)))
        except ImageError as error:
            raise VerificationError(f"{item.path} of {data.source}: {error}") from None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(items), BATCH):
            yield np.stack(list(pool.map(pixels, items[start : start + BATCH])))


def label_codes(
    queries: Sequence[Item], gallery: Sequence[Item]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels of queries (Q,) and gallery (G,) as numbers that they share."""
    names = sorted({i.label for i in (*queries, *gallery)})
    number = {name: i for i, name in enumerate(names)}
    return (
        np.array([number[i.label] for i in queries], np.int64),
        np.array([number[i.label] for i in gallery], np.int64),
    )
