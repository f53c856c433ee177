"""What a converter is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is done."""

NOT_LEAVE_ONE_OUT = (
    "Published figures of this dataset search each test picture among all the others (leave one "
    "out). Here half of each test label's pictures are queries and the others the gallery: "
    "the figures of this split CANNOT be compared with published ones."
)


@dataclass(frozen=True)
class Row:
    """One picture of the manifest to be.

    Attributes:
        file: where the picture lies.
        label, split, role, columns: as in the manifest.
        origin: the file, and the line in it, that lists the picture.
    """

    file: Path
    label: str
    split: str
    role: str
    origin: str
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A download and what is to be made of it.

    Attributes:
        folder: of the download.
        protocol: one of the converter's.
        crops: folder for cut-out pictures, where the converter makes any.
    """

    folder: Path
    protocol: str
    crops: Path | None
    progress: Progress


@dataclass(frozen=True)
class Converted:
    """The rows of a manifest, and what the reader of its figures has to know."""

    rows: Sequence[Row]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Converter:
    """A dataset that can be converted.

    Attributes:
        convert: reads the download.
        title: name, authors and year.
        protocols: the default one first.
        published: by protocol, counts of the whole dataset (the names of `Conversion.counts`).
        closed: protocols whose test labels are in train.
        crops: whether it cuts pictures out, and needs a folder for them.
    """

    convert: Callable[[Request], Converted]
    title: str
    protocols: tuple[str, ...]
    published: Mapping[str, Mapping[str, int]]
    closed: frozenset[str] = frozenset()
    crops: bool = False


def halves(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """Split test pictures without roles: of each label the first, third, ... in the order listed
    become gallery, the second, fourth, ... queries.

    Returns the rows, and how many labels were left out because they have one picture only.
    """
    labels: dict[str, list[Row]] = {}
    for row in rows:
        labels.setdefault(row.label, []).append(row)
    split = [
        Row(r.file, r.label, "test", "query" if i % 2 else "gallery", r.origin, r.columns)
        for group in labels.values()
        if len(group) > 1
        for i, r in enumerate(group)
    ]
    return split, sum(len(group) == 1 for group in labels.values())


def halved(train: Sequence[Row], test: Sequence[Row]) -> Converted:
    """Train as it is and test in halves, with the notes that belong to it."""
    rows, single = halves(test)
    notes = [NOT_LEAVE_ONE_OUT]
    if single:
        notes.append(f"{single} test labels with one picture are left out")
    return Converted([*train, *rows], notes)
