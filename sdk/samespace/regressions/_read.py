"""Predictions as files: CSV for answers, npz for answers with every class's figure."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace._csv import HEAD, find_form, read_rows
from samespace.regressions._checks import RESERVED, Texts, as_column, as_text
from samespace.regressions._predictions import Predictions
from samespace_edge import DataError

_ARRAYS = ("ids", "labels", "classes", "logits", "probabilities")

# What numpy raises for a file that is damaged, or never was one.
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_predictions(path: str | Path, *, labelled: bool = True) -> Predictions:
    """Read predictions from a file.

    A CSV is UTF-8 with the header `id,label,prediction` and, if it likes, `score`; all else are
    free columns. An npz holds `ids` (N,), `labels` (N,), `classes` (C,) and either `logits` or
    `probabilities` (N, C); other arrays (N,) are free columns. Labels are names of classes; where
    they are whole numbers and the classes are not, they are positions in `classes`, from 0.

    Args:
        labelled: whether labels have to be there, as `compare` needs them and `choose` does not.

    Raises `DataError` that names the file, the row (from 1, the header and blank lines not counted)
    and the fix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".npz"):
        raise DataError(f"{path} is neither a .csv nor an .npz of predictions")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not content:
        raise DataError(f"{path} is empty")
    read = _read_csv if suffix == ".csv" else _read_npz
    return read(content, str(path), labelled)


def _read_csv(content: bytes, source: str, labelled: bool) -> Predictions:
    required = ("id", "label", "prediction") if labelled else ("id", "prediction")
    form = find_form(content[:HEAD], source, required, known=("label", "score"))
    header = [name for name in form.columns if name]
    rows = []
    for number, (_, fields) in enumerate(read_rows(io.BytesIO(content), form, source), 1):
        if len(fields) != len(form.columns):
            raise DataError(
                f"{source}: row {number} has another number of fields than the header; quote "
                "fields that hold a comma"
            )
        rows.append(dict(zip(form.columns, fields, strict=True)))
    columns = {name: [row[name] for row in rows] for name in header}
    labels, scores = columns.get("label"), columns.get("score")
    if labels is not None and not labelled and not any(labels):
        labels = None
    return Predictions(
        ids=tuple(columns["id"]),
        labels=None if labels is None else as_text(labels),
        predicted=as_text(columns["prediction"]),
        scores=None if scores is None else _scores(scores, source),
        columns={k: as_column(v) for k, v in columns.items() if k not in RESERVED},
        source=source,
    )


def _scores(texts: Sequence[str], source: str) -> NDArray[np.float64]:
    values = np.empty(len(texts))
    for row, text in enumerate(texts):
        try:
            values[row] = float(text)
        except ValueError:
            raise DataError(
                f"{source}: the score of row {row + 1} is {text!r}, not a number; fill the "
                "column in every row, or leave it out"
            ) from None
    return values


def _read_npz(content: bytes, source: str, labelled: bool) -> Predictions:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: _plain(file[name], name) for name in file.files}
    except _UNREADABLE as error:
        objects = "Object arrays" in str(error)
        fix = "save texts as np.array(..., dtype=str)" if objects else "write it again"
        raise DataError(f"{source} is not an npz of plain arrays: {error}; {fix}") from None
    required = ("ids", "labels", "classes") if labelled else ("ids", "classes")
    figures = [name for name in ("logits", "probabilities") if name in arrays]
    missing = [name for name in required if name not in arrays]
    if not figures:
        missing.append("logits or probabilities")
    if missing:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{source} lacks {', '.join(missing)}; it holds {held}")
    if len(figures) == 2:
        raise DataError(f"{source} holds logits and probabilities; keep one of the two")
    make = Predictions.from_logits if figures == ["logits"] else Predictions.from_probabilities
    return make(
        _flat(arrays, "ids", source).tolist(),
        _labels(arrays, source),
        arrays[figures[0]],
        _flat(arrays, "classes", source).tolist(),
        columns={k: v for k, v in arrays.items() if k not in _ARRAYS},
        source=source,
    )


def _plain(value: Any, name: str) -> NDArray[Any]:
    """A member of an npz; bytes as the text that they are in UTF-8."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"its member {name!r} is no array")
    return np.char.decode(value, "utf-8") if value.dtype.kind == "S" else value


def _flat(arrays: Mapping[str, NDArray[Any]], name: str, source: str) -> Texts:
    if arrays[name].ndim != 1:
        raise DataError(f"{source}: {name} have the shape {arrays[name].shape}; give a flat array")
    return as_text(arrays[name])


def _labels(arrays: Mapping[str, NDArray[Any]], source: str) -> Texts | None:
    if "labels" not in arrays:
        return None
    labels, classes = arrays["labels"], _flat(arrays, "classes", source)
    if labels.dtype.kind not in "iu" or arrays["classes"].dtype.kind in "iu":
        return _flat(arrays, "labels", source)
    bad = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(bad):
        raise DataError(
            f"{source}: the label of row {bad[0] + 1} is {labels.flat[bad[0]]}, which is no "
            f"position in {len(classes)} classes (from 0); give positions, or names"
        )
    names: Texts = classes[labels]
    return names
