"""Writes predictions, in the two forms that `read_predictions` reads."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from samespace.regressions._checks import as_text
from samespace.regressions._predictions import Predictions
from samespace.regressions._read import _ARRAYS
from samespace_edge import ConfigError

TAKEN = (*_ARRAYS, "file", "allow_pickle")
"""What a free column of an npz cannot be called; the last two are taken by numpy's function."""


def write_predictions(predictions: Predictions, path: str | Path) -> None:
    """Write a `.csv` (answers, scores, free columns) or an `.npz` (probabilities as well).

    In one step: where the file is, it is whole.

    Raises `ConfigError` for another suffix, and for an npz of answers without probabilities.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        content = _csv(predictions)
    elif suffix == ".npz":
        content = _npz(predictions)
    else:
        raise ConfigError(f"predictions are written as .csv or as .npz, not as {path}")
    part = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    part.replace(path)


def _csv(p: Predictions) -> bytes:
    columns: dict[str, list[str]] = {"id": list(p.ids)}
    if p.labels is not None:
        columns["label"] = p.labels.tolist()
    columns["prediction"] = p.predicted.tolist()
    if p.scores is not None:
        columns["score"] = [repr(s) for s in p.scores.tolist()]
    columns.update({name: values.tolist() for name, values in p.columns.items()})
    text = io.StringIO(newline="")
    # Python leaves a lone \r unquoted, which readers take for the end of a row.
    odd = any("\r" in value for values in columns.values() for value in values)
    dialect = csv.unix_dialect if odd else csv.excel
    writer = csv.writer(text, dialect, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def _npz(p: Predictions) -> bytes:
    if p.probabilities is None or p.classes is None:
        raise ConfigError(
            f"{p.source} holds answers without probabilities; write it as .csv, which needs none"
        )
    if taken := [name for name in p.columns if name in TAKEN]:
        raise ConfigError(f"a free column of an npz cannot be called {taken[0]!r}; rename it")
    labels = {} if p.labels is None else {"labels": p.labels}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        ids=np.array(p.ids),
        classes=np.array(p.classes),
        probabilities=p.probabilities,
        **labels,
        **{name: as_text(values) for name, values in p.columns.items()},
    )
    return buffer.getvalue()
