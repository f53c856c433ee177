"""Pictures of known classes: what is trained on, and what is kept to validate on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from samespace import Dataset, Item
from samespace._dataset import _repeated, problems_error, read_manifest
from samespace._files import FolderFiles
from samespace_cloud.tagging.config import TaggerConfig
from samespace_edge import ConfigError, DataError, canonical_json

SPLITS = ("train", "val", "test")


def open_labelled(path: str | Path) -> Dataset:
    """Read a dataset of classes: a manifest with `path,label,split` and free columns.

    What `Dataset.open` reads is read as well, if classes to test are classes to train; `role` says
    nothing of them and may be missing. Raises `DataError` as that does.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv" or not path.is_file():
        return _with_manifest(Dataset.open(path))
    items, problems = read_manifest(path.read_bytes(), str(path), ("path", "label", "split"))
    if problems:
        raise problems_error(str(path), problems)
    return Dataset(path.stem, items, FolderFiles(path.parent), str(path))


def _with_manifest(dataset: Dataset) -> Dataset:
    """Refuses folders of labels: they are split by label, so half of the classes are test alone."""
    names = (PurePosixPath(name).name for name in dataset._files.names())
    trained = {i.label for i in dataset.items if i.split == "train"}
    tested = {i.label for i in dataset.items if i.split == "test"}
    if "manifest.csv" not in names and tested and trained.isdisjoint(tested):
        raise DataError(
            f"{dataset.source} has no manifest.csv, so every second label would be kept for test; "
            "a tagger needs pictures of every class in train. Write one: path,label,split"
        )
    return dataset


def check_pictures(dataset: Dataset, report: Callable[[int, int], None]) -> None:
    """Read every picture; raises `DataError`, whose `problems` lists what cannot be read, and what
    is listed more than once."""
    if problems := [*_repeated(dataset), *dataset._picture_problems(report)]:
        raise problems_error(dataset.source, problems)


def part(dataset: Dataset, split: str) -> tuple[Item, ...]:
    """The pictures of `train`, `val` or `test`; raises `DataError` where there are none."""
    if split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}; choose from: {', '.join(SPLITS)}")
    items = tuple(i for i in dataset.items if i.split == split)
    if not items:
        raise DataError(f"{dataset.source} has no {split} pictures")
    return items


@dataclass(frozen=True)
class Labelled:
    """What a tagger is trained and validated on.

    Attributes:
        train, val: the pictures; `val` may be empty.
        classes: names, sorted; positions in it are what the logits stand for.
        digest: hash of all of it: which pictures are trained on, and in which order, as well.
    """

    train: tuple[Item, ...]
    val: tuple[Item, ...]
    classes: tuple[str, ...]
    digest: str

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        train: tuple[Item, ...],
        val: tuple[Item, ...],
        classes: tuple[str, ...],
    ) -> Labelled:
        """These pictures of a dataset; reads their files."""
        order = [[i.path for i in items] for items in (train, val)]
        text = canonical_json([dataset.sha256([*train, *val]), *order])
        return cls(train, val, classes, hashlib.sha256(text.encode()).hexdigest())

    def codes(self, items: Sequence[Item]) -> Tensor:
        """Positions of the pictures' labels in `classes`, int64 (N,)."""
        return codes_of(items, self.classes)


def read_labelled(dataset: Dataset, config: TaggerConfig) -> Labelled:
    """Split train pictures from validation pictures: the dataset's own, or a share of every class.

    Raises `DataError` where there are fewer than two classes, or where a class has no train picture
    to learn it from.
    """
    train, val = part(dataset, "train"), dataset.val
    if not val:
        train, val = held_out(train, config.val_share, config.split_seed)
    classes = tuple(sorted({i.label for i in train}))
    if len(classes) < 2:
        raise DataError(f"{dataset.source} has {len(classes)} class in train; a tagger needs two")
    if lone := sorted({i.label for i in val} - set(classes)):
        raise DataError(
            f"{dataset.source}: {len(lone)} class(es) of val have no train picture, such as "
            f"{lone[0]!r}; move some to train, or leave the class out"
        )
    return Labelled.of(dataset, train, val, classes)


def codes_of(items: Sequence[Item], classes: Sequence[str]) -> Tensor:
    """Positions of the pictures' labels in `classes`, int64 (N,); -1 for those that are none."""
    place = {name: i for i, name in enumerate(classes)}
    return torch.tensor([place.get(i.label, -1) for i in items], dtype=torch.int64)


def held_out(
    items: Sequence[Item], share: float, seed: int
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Train and validation pictures, in their order: a share of every class's, rounded, but never
    all of them."""
    generator = np.random.default_rng(seed)
    places: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        places.setdefault(item.label, []).append(i)
    held: set[int] = set()
    for label in sorted(places):
        of_class = places[label]
        count = min(round(share * len(of_class)), len(of_class) - 1)
        held.update(of_class[i] for i in generator.permutation(len(of_class))[:count].tolist())
    return (
        tuple(x for i, x in enumerate(items) if i not in held),
        tuple(x for i, x in enumerate(items) if i in held),
    )
