"""The pictures that a tangent was fitted to: which they are, and whose."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from samespace import Dataset, Item
from samespace_cloud.pretrained import MEAN, STD
from samespace_cloud.tagging.sees import FromPictures, Report
from samespace_edge import ConfigError, DataError


@dataclass(frozen=True)
class Picture:
    """One picture that a tangent was fitted to.

    Attributes:
        id: its path in the manifest.
        label: what it shows.
        sha256: of its file.
        columns: the manifest's free columns, such as whose it is.
    """

    id: str
    label: str
    sha256: str
    columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, item: Item) -> Picture:
        """Of a dataset; raises `DataError` where it cannot be read."""
        digest = hashlib.sha256(dataset.read(item)).hexdigest()
        return cls(item.path, item.label, digest, dict(item.columns))

    def to_json(self) -> list[Any]:
        """As it stands in checkpoints."""
        return [self.id, self.label, self.sha256, dict(self.columns)]


def recorded(dataset: Dataset, items: Sequence[Item]) -> tuple[Picture, ...]:
    """The pictures of these items; raises `DataError` where one is listed twice."""
    seen: set[str] = set()
    for item in items:
        if item.path in seen:
            raise DataError(f"{dataset.source} lists {item.path} more than once; keep one row")
        seen.add(item.path)
    return tuple(Picture.of(dataset, item) for item in items)


def items_of(dataset: Dataset, pictures: Sequence[Picture], whose: str) -> list[Item]:
    """Where the dataset has these pictures.

    Args:
        whose: what messages call them.

    Raises `DataError` where it lacks one, or where one has another label or content by now.
    """
    place = {i.path: i for i in dataset.items}
    if lost := [p.id for p in pictures if p.id not in place]:
        raise DataError(
            f"{dataset.source} lacks {len(lost)} of the {len(pictures)} pictures that {whose} was "
            f"tuned on, such as {lost[0]}; give a manifest that lists them, or forget them"
        )
    items = [place[p.id] for p in pictures]
    for picture, item in zip(pictures, items, strict=True):
        now = Picture.of(dataset, item)
        if (now.label, now.sha256) != (picture.label, picture.sha256):
            what = "label" if now.label != picture.label else "content"
            raise DataError(
                f"{picture.id} of {dataset.source} has another {what} than when {whose} was tuned "
                "on it; restore it, or update the tuning with the manifest as it is"
            )
    return items


def select(
    pictures: Sequence[Picture], where: Mapping[str, str], ids: Collection[str], whose: str
) -> tuple[Picture, ...]:
    """The pictures with these ids, and those whose columns have all the values of `where`.

    Raises `ConfigError` for a column, a value, all values together or an id that no picture has.
    """
    if not where and not ids:
        raise ConfigError("say which pictures: by a column's value, or by ids")
    for column, value in where.items():
        values = sorted({p.columns[column] for p in pictures if column in p.columns})
        if not values:
            known = ", ".join(sorted({c for p in pictures for c in p.columns})) or "none"
            raise ConfigError(
                f"no picture that {whose} was tuned on has a column {column!r}; columns: {known}"
            )
        if value not in values:
            raise ConfigError(
                f"no picture that {whose} was tuned on has {column}={value}; it has: "
                + ", ".join(values[:10])
            )
    owned = [p for p in pictures if where and where.items() <= p.columns.items()]
    if where and not owned:
        raise ConfigError(
            f"no picture that {whose} was tuned on has all of "
            + ", ".join(f"{column}={value}" for column, value in where.items())
        )
    if unknown := sorted(set(ids) - {p.id for p in pictures}):
        raise ConfigError(
            f"{len(unknown)} of {len(set(ids))} ids are not among the {len(pictures)} pictures "
            f"that {whose} was tuned on, such as {unknown[0]!r}; ids are paths in its manifest"
        )
    chosen = {*ids, *(p.id for p in owned)}
    return tuple(p for p in pictures if p.id in chosen)


def normalised(pixels: Tensor) -> Tensor:
    """uint8 RGB (N, 3, S, S) to what backbones take, float32."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (pixels.to(torch.float32) / 255 - mean) / std


def read_inputs(
    dataset: Dataset, items: Sequence[Item], sees: FromPictures, report: Report
) -> Tensor:
    """Normalised pictures float32 (N, 3, S, S). Nothing is kept on disk: what is to be forgotten
    would stay there."""
    return normalised(sees.read(dataset, items, None, report))
