"""What each training picture does to a tuning: leaving it out, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samespace import Dataset
from samespace_cloud.linear import influence, leave_one_out
from samespace_cloud.material import Progress
from samespace_cloud.tagging.data import part
from samespace_cloud.tagging.predictions import write_arrays
from samespace_cloud.tuning.checkpoint import TunedCheckpoint
from samespace_cloud.tuning.solved import Solution, solution_of
from samespace_cloud.tuning.tables import write_table
from samespace_cloud.tuning.training import read, silent


@dataclass(frozen=True, eq=False)
class Influences:
    """What leaving out each of N training pictures does to the outputs for M others.

    Attributes:
        ids, labels: of the training pictures.
        without: what the tuning without a picture says of it, float32 (N, K): an honest validation
            on every picture.
        others: ids of the other pictures.
        classes: what the K outputs stand for.
        change: float32 (N, M, K): outputs with the picture left out, less those with it.
        loss_change: float64 (N,): the same of the mean square loss over the others. Above 0 the
            picture helps; far below 0 it may have a wrong label.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    without: Tensor
    others: tuple[str, ...]
    classes: tuple[str, ...]
    change: Tensor
    loss_change: Tensor

    @property
    def answers_without(self) -> list[str]:
        """What the tuning without a picture answers for it."""
        return [self.classes[i] for i in self.without.argmax(1).tolist()]

    @property
    def accuracy_without(self) -> float:
        """Share of pictures that are answered rightly by the tuning without them."""
        right = [a == b for a, b in zip(self.answers_without, self.labels, strict=True)]
        return sum(right) / len(right)

    def write(self, file: str | Path) -> None:
        """Write a `.csv` (`id,label,answer_without,loss_change`), or an `.npz` with all arrays;
        raises `ConfigError` for another ending."""
        rows = zip(self.ids, self.labels, self.answers_without, self.loss_change, strict=True)
        if Path(file).suffix.lower() == ".npz":
            arrays = {
                "ids": np.array(self.ids),
                "labels": np.array(self.labels),
                "without": self.without.numpy(),
                "others": np.array(self.others),
                "classes": np.array(self.classes),
                "change": self.change.numpy(),
                "loss_change": self.loss_change.numpy(),
            }
            write_arrays(file, arrays)
            return
        header = ("id", "label", "answer_without", "loss_change")
        write_table(file, header, [(*row, f"{float(change):.6g}") for *row, change in rows])


def influence_of(
    checkpoint: TunedCheckpoint,
    dataset: Dataset,
    split: str = "test",
    progress: Progress = silent,
) -> Influences:
    """Of every training picture, on the `split` pictures of the dataset.

    The training pictures, all of them, are taken from the same dataset. Nothing is trained: with H
    the Hessian and g_i a picture's gradient the change is H^-1 g_i with its leverage (Cook,
    Weisberg 1982), which for a linear model is what training without it gives, to rounding.

    Raises as `solution_of` does, and `DataError` where there are no such pictures.
    """
    items = part(dataset, split)
    solution = solution_of(checkpoint, dataset, progress)
    inputs = read(dataset, items, checkpoint.sees, progress)
    places = solution.chunks(len(inputs))
    parts = []
    for number, rows in enumerate(places):
        parts.append(influence(solution.model, solution.ridge, inputs[rows]))
        progress("leave pictures out", number + 1, len(places))
    change = torch.cat(parts, dim=1)
    return Influences(
        tuple(p.id for p in checkpoint.pictures),
        tuple(p.label for p in checkpoint.pictures),
        leave_one_out(solution.ridge),
        tuple(i.path for i in items),
        checkpoint.classes,
        change,
        _loss_change(solution, inputs, change, [i.label for i in items]),
    )


def _loss_change(solution: Solution, inputs: Tensor, change: Tensor, labels: list[str]) -> Tensor:
    targets, weights = solution.targets(labels)
    off = (solution.outputs(inputs) - targets).double()
    moved = off + change.double()
    per_picture = (weights * (moved.square() - off.square())).sum(dim=2)
    return per_picture.mean(dim=1)
