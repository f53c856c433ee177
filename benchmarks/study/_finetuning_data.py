"""Classes to fine-tune for: pictures decoded once, and drawn from as far as few are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samespace import Dataset, Item
from samespace_cloud.pictures import decoded
from samespace_cloud.tagging import FromPictures, TaggerConfig, open_labelled
from samespace_cloud.views import Views

NETWORKS = {"small": FromPictures("lite0-edge", 64), "whole": FromPictures("lite0", 128)}
"""What all methods tune: the start of EfficientNet-Lite0, as in the study of taggers' updates, for
two cores; or all of it at the pixels that the pictures have, for a GPU."""

VIEWS, VIEWS_SEED = 6, 0
"""How many views of a picture there are, and what they are drawn with."""


@dataclass(frozen=True)
class Task:
    """Pictures and what they are told apart by.

    Attributes:
        name: of its rows.
        manifest: under the data folder.
        column: of the manifest that has the classes; the label's by default.
        lends_validation: whether validation pictures are taken out of train, whole labels at a
            time, and the test pictures are the queries.
    """

    name: str
    manifest: str
    column: str = ""
    lends_validation: bool = False


TASKS: Mapping[str, Task] = {
    "clothing": Task("clothing", "clothing/manifest.csv"),
    "grocery-coarse": Task("grocery, coarse", "grocery_store/classify.csv", "coarse_label"),
    "furniture": Task(
        "furniture categories (rendered)", "furniture3d/manifest.csv", "category", True
    ),
    "grocery": Task("grocery", "grocery_store/classify.csv"),
}
"""By what `--sets` calls them."""


@dataclass(eq=False)
class Material:
    """The pictures of a task.

    Attributes:
        task: which.
        data: the data folder.
        out: where decoded pictures and views are kept.
        sees: the network that is tuned for them.
    """

    task: Task
    data: Path
    out: Path
    sees: FromPictures

    @cached_property
    def dataset(self) -> Dataset:
        """Its pictures, labelled by their classes."""
        found = open_labelled(self.data / self.task.manifest)
        items = _with_validation(found.items) if self.task.lends_validation else found.items
        column = self.task.column
        if not column:
            return found.subset(items)
        return found.subset([replace(i, label=i.columns[column]) for i in items])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Sorted names."""
        return tuple(sorted({i.label for i in self.dataset.train}))

    def items(self, split: str) -> tuple[Item, ...]:
        """The pictures of `train`, `val` or `test`."""
        return tuple(i for i in self.dataset.items if i.split == split)

    def codes(self, items: tuple[Item, ...]) -> NDArray[np.int64]:
        """Places of their labels in `classes`, int64 (N,)."""
        place = {name: i for i, name in enumerate(self.classes)}
        return np.array([place[i.label] for i in items], np.int64)

    def inputs(self, split: str) -> Tensor:
        """Unchanged pictures of a part, uint8 (N, 3, S, S)."""
        return self.sees.read(self.dataset, self.items(split), self.out / "decoded")

    def drawn(self, shots: int, draw: int) -> Drawn:
        """`shots` train pictures of every class, as far as it has them; all for 0.

        Fewer shots of one draw are among more shots of it.
        """
        items = self.items("train")
        if not shots:
            return Drawn(self, items)
        codes, kept = self.codes(items), list[int]()
        for code in range(len(self.classes)):
            # Each class by itself, so that its first pictures are the same for any number.
            order = np.random.default_rng([draw, code]).permutation(np.flatnonzero(codes == code))
            kept += order[:shots].tolist()
        return Drawn(self, tuple(items[i] for i in sorted(kept)))


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a training learns from.

    Attributes:
        material: where it is from.
        train: the pictures.
    """

    material: Material
    train: tuple[Item, ...]

    @property
    def dataset(self) -> Dataset:
        """These pictures and all validation pictures."""
        return self.material.dataset.subset([*self.train, *self.material.items("val")])

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        return torch.from_numpy(self.material.codes(self.train))

    def views(self, count: int = VIEWS) -> Tensor:
        """The pictures as they are and `count` - 1 random views of each, uint8
        (count, N, 3, S, S): the same for all methods and seeds, as if they were the data."""
        sees = self.material.sees
        plain = TaggerConfig(sees)
        cache = self.material.out / "decoded"
        pictures = decoded(self.material.dataset, self.train, sees.canvas(plain.side), cache)
        views = Views(pictures, plain.augmentation, [sees.input_size], VIEWS, VIEWS_SEED)
        views.prepare(cache=self.material.out.parent / "views")
        return views.inputs[sees.input_size][:count]


def _with_validation(items: tuple[Item, ...]) -> list[Item]:
    """A tenth of every category's labels as validation, and of test the queries alone."""
    generator = np.random.default_rng(0)
    held = set[str]()
    for category in sorted({i.columns["category"] for i in items if i.split == "train"}):
        of = sorted(
            {i.label for i in items if i.split == "train" and i.columns["category"] == category}
        )
        held |= set(generator.permutation(of)[: round(len(of) / 10)].tolist())
    return [
        replace(i, split="val") if i.split == "train" and i.label in held else i
        for i in items
        if i.split != "test" or i.role == "query"
    ]
