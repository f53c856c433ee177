"""Everything in a gallery as one file that numpy reads without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samespace.gallery._inputs import packed
from samespace.gallery._store import Row
from samespace_edge import ModelIdentity


def write_export(
    path: Path, rows: Sequence[Row], models: Mapping[int, ModelIdentity], dim: int
) -> None:
    """Write the arrays that `Gallery.export` describes, in one step.

    Args:
        rows: the items.
        models: the admitted models by number.
        dim: width of the vectors.
    """
    position = {number: i for i, number in enumerate(models)}
    raw = b"".join(row[3] for row in rows)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
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
