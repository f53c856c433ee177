"""What every measurement begins with: preprocessed pictures, and labels as numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from samespace._dataset import Dataset, Item
from samespace._repeats import picture_digest
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


_SAME = 1 - 1e-3
_PAIRS_AT_ONCE = 2_000_000


def queries_in_gallery(
    data: Dataset, queries: NDArray[np.float32], gallery: NDArray[np.float32]
) -> dict[int, int]:
    """Return the queries whose picture, pixel by pixel, is in the gallery too: positions of both.

    Args:
        queries, gallery: vectors (Q, D) and (G, D) of one model, none of them zero. Equal pictures
            have equal vectors but for rounding, so only pictures with near vectors are compared.
    """
    queries, gallery = (
        side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, gallery)
    )
    asked, kept = np.zeros(len(queries), bool), np.zeros(len(gallery), bool)
    step = max(1, _PAIRS_AT_ONCE // len(gallery))
    for start in range(0, len(queries), step):
        is_near = queries[start : start + step] @ gallery.T > _SAME
        asked[start : start + step] = is_near.any(1)
        kept |= is_near.any(0)
    asked_places, kept_places = np.flatnonzero(asked).tolist(), np.flatnonzero(kept).tolist()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        of_queries = pool.map(partial(_digest, data), [data.queries[i] for i in asked_places])
        of_gallery = pool.map(partial(_digest, data), [data.gallery[i] for i in kept_places])
        there = dict(zip(of_gallery, kept_places, strict=True))
        pairs = list(zip(asked_places, of_queries, strict=True))
    return {query: there[digest] for query, digest in pairs if digest in there}


def _digest(data: Dataset, item: Item) -> bytes:
    return picture_digest(np.asarray(decode_image(data.read(item))))


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
