"""What a tagger says of a part of a dataset, as a file that others read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samespace import Dataset, Item
from samespace.regressions import Predictions, write_predictions
from samespace.regressions._checks import RESERVED
from samespace.regressions._write import TAKEN
from samespace_cloud.tagging.data import part
from samespace_cloud.tagging.sees import Report
from samespace_edge import ConfigError, Fingerprint
from samespace_edge._temporary import temporary_for


class Answers(Protocol):
    """What says something of pictures: a tagger, or a tuning."""

    classes: tuple[str, ...]

    @property
    def fingerprint(self) -> Fingerprint:
        """Its identity."""

    def predict(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        cache: Path | None = None,
        report: Report = lambda done, total: None,
    ) -> Tensor:
        """Logits float32 (N, C), on the CPU, of unchanged pictures."""


def predictions_of(
    checkpoint: Answers,
    dataset: Dataset,
    split: str = "test",
    file: str | Path | None = None,
    cache: Path | None = None,
    report: Report = lambda done, total: None,
) -> Predictions:
    """What a tagger says of the `split` pictures of a dataset: the ids are their paths, the free
    columns those of the manifest whose names are free in such a file.

    Args:
        file: where to write it as well: a `.csv` of answers and scores, or an `.npz` with `ids`,
            `labels`, `classes` and `logits`, which a later update can be held to.
        cache: a folder where decoded pictures, or vectors, are kept and found again.
        report: is told how many of how many are read.

    Labels that the tagger does not have are told as they are: it has none of them right. Raises
    `DataError` where there are no such pictures, or where logits are not finite.
    """
    if file is not None and Path(file).suffix.lower() not in (".csv", ".npz"):
        raise ConfigError(f"predictions are written as .csv or as .npz, not as {file}")
    items = part(dataset, split)
    logits = checkpoint.predict(dataset, items, cache, report).numpy()
    ids, labels = [i.path for i in items], [i.label for i in items]
    taken = TAKEN if file is not None and Path(file).suffix.lower() == ".npz" else ()
    names = dict.fromkeys(n for i in items for n in i.columns if n not in (*RESERVED, *taken))
    columns = {name: [i.columns.get(name, "") for i in items] for name in names}
    found = Predictions.from_logits(
        ids,
        labels,
        logits,
        checkpoint.classes,
        columns,
        source=f"{checkpoint.fingerprint.short}… of {dataset.name}, {split}",
    )
    if file is None:
        return found
    file = Path(file)
    if file.suffix.lower() == ".csv":
        write_predictions(found, file)
        return found
    # Logits, and not probabilities: what is common to all logits of a picture would be lost.
    arrays = {
        "ids": np.array(ids),
        "labels": np.array(labels),
        "classes": np.array(checkpoint.classes),
        "logits": logits,
    }
    write_arrays(file, {name: np.array(c) for name, c in columns.items()} | arrays)
    return found


def write_arrays(file: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an `.npz` in one step."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_for(file)
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    temporary.replace(file)
