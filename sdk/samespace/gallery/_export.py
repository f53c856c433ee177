"""Everything in a gallery as one file that numpy reads without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._inputs import packed
from samespace.gallery._protocols import StoredRow
from samespace_edge import DataError, ModelIdentity
from samespace_edge._temporary import temporary_for


def write_export(
    path: Path, rows: Sequence[StoredRow], models: Mapping[int, ModelIdentity], dim: int
) -> None:
    """Write the arrays that `Gallery.export` describes, in one step.

    Args:
        rows: the items.
        models: the admitted models by number.
        dim: width of the vectors.
    """
    position = {number: i for i, number in enumerate(models)}
    raw = b"".join(row[3] for row in rows)
    temporary = temporary_for(path)
    with temporary.open("wb") as file:
        arrays: dict[str, Any] = {
            "vectors": np.frombuffer(raw, np.float32).reshape(len(rows), dim),
            "model": np.array([position[row[2]] for row in rows], np.int64),
            **packed("ids", [row[1] for row in rows]),
            **packed("payloads", [row[4] or "null" for row in rows]),
            **packed("models", [json.dumps(m.to_json()) for m in models.values()]),
        }
        np.savez_compressed(file, **arrays)
    temporary.replace(path)


def read_export(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and vectors (N, D) of what `write_export` wrote.

    Raises `DataError` for a file that is something else, naming what it lacks.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ends, blob = arrays["ids_ends"], arrays["ids"].tobytes()
            vectors = np.asarray(arrays["vectors"], np.float32)
        cuts = [0, *ends.tolist()]
        ids = [blob[a:b].decode() for a, b in pairwise(cuts)]
    except (OSError, ValueError, KeyError, AttributeError, EOFError) as error:
        raise DataError(
            f"{path} is no file of 'samespace gallery export' ({error}); vectors are given as such"
        ) from None
    if len(ids) != len(vectors):
        raise DataError(f"{path} has {len(ids)} ids for {len(vectors)} vectors")
    return ids, vectors
