"""Vectors from files: .npy, and the .npz that `samespace embed` and `gallery export` write."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge import ConfigError, Fingerprint, ModelIdentity


@dataclass(frozen=True)
class VectorFile:
    """Vectors, and what their file says of them.

    Attributes:
        vectors: floats (N, D).
        names: path or id of every row; None where the file has none.
        model: who made them; None where the file does not say.
    """

    path: str
    vectors: NDArray[Any]
    names: tuple[str, ...] | None = None
    model: ModelIdentity | Fingerprint | None = None


def read_vectors(path: str | Path) -> VectorFile:
    """Read a .npy of floats (N, D), or a .npz with one called `vectors`; nothing is unpickled.

    Raises `ConfigError` for anything else, and for vectors of several models.
    """
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"vectors": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"{path} is no .npy or .npz file that numpy reads without unpickling: {why}"
        ) from None
    vectors = arrays.get("vectors")
    if vectors is None:
        raise ConfigError(
            f"{path} has no array called 'vectors'; it has: {', '.join(sorted(arrays))}"
        )
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise ConfigError(
            f"the vectors in {path} have to be floats (N, D), not {vectors.dtype} {vectors.shape}"
        )
    try:
        found = VectorFile(str(path), vectors, _names(arrays), _model(arrays, path))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ConfigError(f"{path} is not as samespace writes it: {error!r}") from None
    if found.names is not None and len(found.names) != len(vectors):
        raise ConfigError(f"{path} names {len(found.names)} rows and holds {len(vectors)} vectors")
    return found


def check_names(a: VectorFile, b: VectorFile) -> None:
    """Raise `ConfigError` where two files name their rows, and not alike."""
    if a.names is None or b.names is None or len(a.names) != len(b.names):
        return  # other lengths are refused with a message of their own
    for row, (ours, theirs) in enumerate(zip(a.names, b.names, strict=True)):
        if ours != theirs:
            raise ConfigError(
                f"row {row} is {ours!r} in {a.path} and {theirs!r} in {b.path}: row i of both has "
                "to be of the same picture. Write both in the same order."
            )


def _names(arrays: Mapping[str, NDArray[Any]]) -> tuple[str, ...] | None:
    if "paths" in arrays:
        return tuple(str(p) for p in arrays["paths"])
    return tuple(_unpacked(arrays, "ids")) if "ids" in arrays else None


def _model(arrays: Mapping[str, NDArray[Any]], path: str | Path) -> Any:
    if "fingerprint" in arrays:
        return Fingerprint(str(arrays["fingerprint"]))
    if "models" not in arrays:
        return None
    made_by = [ModelIdentity.from_json(json.loads(t)) for t in _unpacked(arrays, "models")]
    used = [made_by[int(i)] for i in np.unique(arrays["model"])]
    if len({m.fingerprint for m in used}) > 1:
        raise ConfigError(
            f"{path} holds vectors of several models ({', '.join(map(str, used))}); an adapter is "
            "for the vectors of one. Take those of one out."
        )
    return used[0] if used else None


def _unpacked(arrays: Mapping[str, NDArray[Any]], name: str) -> list[str]:
    """Texts from their bytes in one piece and where each ends, as a gallery exports them."""
    raw = arrays[name].tobytes()
    ends = [int(e) for e in arrays[f"{name}_ends"]]
    return [raw[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
