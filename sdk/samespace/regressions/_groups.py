"""Flips by class, and by what the user knows of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samespace._dataset import Dataset
from samespace.regressions._checks import RESERVED, Column, Texts, some
from samespace.regressions._exact import exact_interval
from samespace.regressions._pair import Pair
from samespace.regressions._predictions import Predictions
from samespace.regressions._report import Group
from samespace.verification import Estimate
from samespace_edge import ConfigError, DataError


def with_columns(
    predictions: Predictions, dataset: Dataset, columns: Sequence[str] | None = None
) -> Predictions:
    """The predictions with the free columns of a dataset's manifest, whose paths are the ids.

    A column of the predictions' own goes before one of the manifest.

    Args:
        columns: only these; None for all but those whose names predictions have themselves.

    Raises `DataError` for pictures that the dataset does not list.
    """
    items = {item.path: item for item in dataset.items}
    if lost := [name for name in predictions.ids if name not in items]:
        raise DataError(
            f"{len(lost)} picture(s) of {predictions.source} are not in {dataset.source}: "
            f"{some(lost)}; ids have to be the manifest's paths"
        )
    found = [items[name].columns for name in predictions.ids]
    there = dict.fromkeys(name for one in found for name in one if name not in RESERVED)
    names = [name for name in there if columns is None or name in columns]
    added = {name: np.array([one.get(name, "") for one in found], object) for name in names}
    return replace(predictions, columns={**added, **predictions.columns})


def grouped(
    values: Texts | Column, before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[Group, ...]:
    """Flips by value, most negative ones first, then by value.

    Args:
        values: (N,).
        before, after: (N,): whether the old, and the new, model is right.
    """
    names, place, counts = np.unique(values, return_inverse=True, return_counts=True)

    def count(rows: NDArray[np.bool_]) -> list[int]:
        return [int(n) for n in np.bincount(place, rows, minlength=len(names))]

    figures = zip(
        names.tolist(),
        counts.tolist(),
        count(~before),
        count(~after),
        count(before & ~after),
        count(~before & after),
        strict=True,
    )
    groups = [
        Group(value, n, wrong_old / n, wrong_new / n, negative, positive, exact(negative, n))
        for value, n, wrong_old, wrong_new, negative, positive in figures
    ]
    return tuple(sorted(groups, key=lambda g: (-g.negative, g.value)))


def exact(count: int, of: int) -> Estimate:
    """A share with its exact interval."""
    interval = exact_interval(count, of)
    return Estimate(count / of, interval.low, interval.high, interval.over)


def column(pair: Pair, name: str) -> Column:
    """A free column of either file, (N,); raises `ConfigError` or `DataError`."""
    found = [p.columns[name] for p in (pair.old, pair.new) if name in p.columns]
    if not found:
        known = sorted({*pair.old.columns, *pair.new.columns})
        raise ConfigError(
            f"neither {pair.old.source} nor {pair.new.source} has the column {name!r}; "
            f"{_known(known)}"
        )
    if len(bad := np.flatnonzero(found[0] != found[-1])):
        i = bad[0]
        raise DataError(
            f"{pair.old.source} and {pair.new.source} disagree on the column {name!r} of "
            f"{len(bad)} picture(s), such as {pair.old.ids[i]!r}: {str(found[0][i])!r} and "
            f"{str(found[-1][i])!r}; it has to be of the picture, not of the model"
        )
    return found[0]


def _known(names: Sequence[str]) -> str:
    return f"they have: {', '.join(names)}" if names else "they have none but their own"
