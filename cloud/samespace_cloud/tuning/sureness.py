"""How sure a tuning is of its answers: the variance of its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from samespace import Dataset
from samespace_cloud.linear import posterior_variance
from samespace_cloud.material import Progress
from samespace_cloud.tagging.data import part
from samespace_cloud.tuning.checkpoint import TunedCheckpoint
from samespace_cloud.tuning.solved import solution_of
from samespace_cloud.tuning.tables import write_table
from samespace_cloud.tuning.training import read, silent


@dataclass(frozen=True, eq=False)
class Confidence:
    """Outputs for M pictures, and how far each is known.

    Attributes:
        ids, labels: of the pictures.
        classes: what the K outputs stand for.
        outputs: float32 (M, K), of the tuning.
        variance: float32 (M, K), of the Gaussian posterior.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    outputs: Tensor
    variance: Tensor

    @property
    def answers(self) -> list[str]:
        """Classes with the largest outputs."""
        return [self.classes[i] for i in self.outputs.argmax(1).tolist()]

    @property
    def std(self) -> Tensor:
        """Standard deviation of the largest output, float32 (M,)."""
        best = self.outputs.argmax(1, keepdim=True)
        return self.variance.gather(1, best)[:, 0].sqrt()

    @property
    def ahead(self) -> Tensor:
        """By how many standard deviations the largest output is above the next one, float32 (M,);
        the two are taken as independent."""
        best, places = self.outputs.topk(2, dim=1)
        spread = self.variance.gather(1, places).sum(1).sqrt()
        return (best[:, 0] - best[:, 1]) / spread.clamp_min(1e-12)

    def write(self, file: str | Path) -> None:
        """Write a CSV, `id,label,prediction,output,std,ahead`."""
        best = self.outputs.max(1).values
        numbers = torch.stack([best, self.std, self.ahead], dim=1).tolist()
        rows = zip(self.ids, self.labels, self.answers, numbers, strict=True)
        header = ("id", "label", "prediction", "output", "std", "ahead")
        write_table(file, header, [(*row, *(f"{x:.6g}" for x in three)) for *row, three in rows])


def confidence_of(
    checkpoint: TunedCheckpoint,
    dataset: Dataset,
    split: str = "test",
    progress: Progress = silent,
) -> Confidence:
    """What a tuning says of the `split` pictures of a dataset, and how far that is known.

    The training pictures, all of them, are taken from the same dataset. The variance is that of
    Laplace's approximation, which is exact for a linear model (MacKay 1992): large where a picture
    is unlike all that it was tuned on. What w0 is unsure of is not in it.

    Raises as `solution_of` does, and `DataError` where there are no such pictures.
    """
    items = part(dataset, split)
    solution = solution_of(checkpoint, dataset, progress)
    inputs = read(dataset, items, checkpoint.sees, progress)
    places = solution.chunks(len(inputs))
    parts = []
    for number, rows in enumerate(places):
        parts.append(posterior_variance(solution.model, solution.ridge, inputs[rows]))
        progress("measure variances", number + 1, len(places))
    return Confidence(
        tuple(i.path for i in items),
        tuple(i.label for i in items),
        checkpoint.classes,
        checkpoint.logits(inputs),
        torch.cat(parts),
    )
