"""What callers give to a gallery, checked before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace._files import is_text
from samespace_edge import (
    Bundle,
    ConfigError,
    DimensionError,
    DuplicateIdError,
    Embedder,
    InvalidVectorError,
    ModelIdentity,
)

Vectors = NDArray[np.float32]

_SHOWN = 5
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)  # dumps would make one every time


def identity_of(model: Embedder | Bundle | ModelIdentity | str | Path) -> ModelIdentity:
    """Who makes the vectors of a model, given as itself, its bundle or that one's path."""
    if isinstance(model, ModelIdentity):
        return model
    if isinstance(model, Embedder):
        return model.identity
    bundle = model if isinstance(model, Bundle) else Bundle.open(model)
    return bundle.identity(bundle.variant())


def checked_ids(ids: Sequence[str], unique: bool = True) -> Sequence[str]:
    """Ids as they have to be; raises `ConfigError` or `DuplicateIdError`."""
    if isinstance(ids, str):
        raise ConfigError("ids is a list of strings, not one string")
    if not all(isinstance(i, str) and i for i in ids):
        wrong = next(i for i in ids if not (isinstance(i, str) and i))
        raise ConfigError(f"ids are non-empty strings, not {wrong!r}")
    require_text(ids, "an id")
    if unique and len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = [i for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
        raise DuplicateIdError(f"{some(twice)} more than once in one call")
    return ids


def require_text(texts: Sequence[str], what: str) -> None:
    """Raise `ConfigError` for a text that UTF-8 cannot hold, as file names that are not UTF-8 are.

    Args:
        what: what the texts are to be, for the message.
    """
    for text in texts:
        if not is_text(text):
            raise ConfigError(
                f"{text!r} is no valid text (UTF-8), so it cannot be {what}. If it is a file's "
                "name, rename the file or give the item another id. Nothing of this call was "
                "stored."
            )


def some(ids: Sequence[str]) -> str:
    """A few ids for a message."""
    shown = ", ".join(repr(i) for i in ids[:_SHOWN])
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"the id{'s' if len(ids) > 1 else ''} {shown}{more}"


def payload_texts(payloads: Sequence[Any] | None, count: int) -> list[str | None]:
    """Payloads as JSON text; raises `ConfigError` for what JSON cannot hold."""
    if payloads is None:
        return [None] * count
    if len(payloads) != count:
        raise ConfigError(f"{len(payloads)} payloads for {count} items")
    try:
        texts = [None if p is None else _JSON.encode(p) for p in payloads]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a payload has to be what JSON can hold: {error}") from None
    require_text([text for text in texts if text is not None], "a payload")
    return texts


def loads(text: str | None) -> Any:
    """A payload from its JSON text."""
    return None if text is None else json.loads(text)


def packed(name: str, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Texts of any length as two arrays: their UTF-8 bytes in one piece, and where each ends."""
    encoded = [t.encode() for t in texts]
    return {
        name: np.frombuffer(b"".join(encoded), np.uint8),
        f"{name}_ends": np.cumsum([len(e) for e in encoded], dtype=np.int64),
    }


def unit_vectors(
    vectors: Any,
    dim: int,
    gallery: str,
    names: Sequence[str] | None = None,
    width: int | None = None,
) -> Vectors:
    """Unit vectors, contiguous float32 (N, D), made from what a caller gave.

    Args:
        gallery: its name, for errors.
        names: ids of the vectors, for errors; None for queries.
        width: for prefixes of vectors of `dim`: (N, width), or whole vectors, which are cut.

    Raises `DimensionError`, `InvalidVectorError`, `ConfigError`.
    """
    array = np.asarray(vectors)
    if width is not None and array.ndim == 2 and array.shape[1] == dim:
        array = array[:, :width]
    if width is not None and (array.ndim != 2 or array.shape[1] != width):
        raise DimensionError(
            f"a search of gallery {gallery!r} by width={width} takes the first {width} of "
            f"{dim} numbers of every vector, (N, {width}), or all of them, not {array.shape}"
        )
    if width is None and (array.ndim != 2 or array.shape[1] != dim):
        raise DimensionError(
            f"gallery {gallery!r} holds vectors of width {dim}, so it takes (N, {dim}), "
            f"not {array.shape}"
        )
    if array.dtype.kind != "f":
        raise InvalidVectorError(f"vectors have to be floats, not {array.dtype}")
    if names is not None and len(names) != len(array):
        raise ConfigError(f"{len(names)} ids for {len(array)} vectors")
    array = np.ascontiguousarray(array, np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", array, array))
    # A NaN or an infinity anywhere makes the norm one too.
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 1e-6)))
    if len(bad):
        which = some([names[int(i)] for i in bad]) if names else f"query {bad[0]}"
        raise InvalidVectorError(
            f"{which}: a vector holds NaN or infinity, or is zero and so has no direction"
        )
    if np.abs(norms - 1).max(initial=0) > 1e-5:
        array = array / norms[:, None]
    return array
