"""Embed pictures, each by itself: what becomes of one is nothing to the others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from samespace.pool._sources import content, is_url
from samespace_edge import Embedder, ImageError, ImageSource

Made = NDArray[np.float32] | str
"""The vector (D,) of a picture, or why there is none."""

_READERS = 4
"""URLs of a batch that are read at the same time, and so pictures held decoded at once."""


def embed_each(model: Embedder, sources: Sequence[ImageSource]) -> list[Made]:
    """The float32 unit vector (D,) of every picture, or why there is none.

    Held at once are the pixels of all at the model's input size, and one decoded picture, or four
    where they come from URLs.
    """

    def prepared(source: ImageSource) -> NDArray[np.uint8] | str:
        try:
            return model.preprocess(content(source) if is_url(source) else source)
        except (ImageError, OSError, MemoryError) as error:
            return str(error) or type(error).__name__

    if any(map(is_url, sources)):
        with ThreadPoolExecutor(_READERS) as readers:
            ready = list(readers.map(prepared, sources))
    else:
        ready = [prepared(s) for s in sources]
    made: list[Made] = [r if isinstance(r, str) else "" for r in ready]
    good = {n: r for n, r in enumerate(ready) if not isinstance(r, str)}
    for place, vector in zip(good, _vectors(model, list(good.values())), strict=True):
        made[place] = vector
    return made


def _vectors(model: Embedder, pixels: Sequence[NDArray[np.uint8]]) -> Sequence[Made]:
    if not pixels:
        return []
    try:
        return list(model.embed_pixels(np.stack(pixels)))
    except Exception as error:  # whatever the runtime raises; the others of the batch are innocent
        if len(pixels) == 1:
            return [f"the model cannot embed it: {error}"]
        return [_vectors(model, [p])[0] for p in pixels]
