"""A tuning's problem, solved to rounding: what influence and confidence are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samespace import Dataset
from samespace_cloud.linear import (
    LeastSquares,
    LinearConfig,
    Linearized,
    TangentRidge,
    linear_outputs,
    rescaled_targets,
    solve_tangent,
)
from samespace_cloud.linear._dual import LIMIT
from samespace_cloud.material import Progress
from samespace_cloud.tuning.changing import problem_of
from samespace_cloud.tuning.checkpoint import TunedCheckpoint, need_labels
from samespace_cloud.tuning.config import TuneConfig
from samespace_edge import ConfigError


@dataclass(frozen=True, eq=False)
class Solution:
    """A classifier's tuning and the optimum of its problem.

    Attributes:
        model: linearised.
        problem: what it was fitted to.
        ridge: the optimum, in dual form.
        config: how it was tuned.
        classes: what the outputs stand for.
    """

    model: Linearized
    problem: LeastSquares
    ridge: TangentRidge
    config: LinearConfig
    classes: tuple[str, ...]

    def outputs(self, inputs: Tensor) -> Tensor:
        """Of the optimum, float32 (M, K)."""
        made: Tensor = linear_outputs(self.model, inputs, self.ridge.tangent)
        return made

    def chunks(self, count: int) -> list[slice]:
        """Slices of 0 to `count` whose Jacobians are small enough."""
        numbers = len(self.classes) * self.ridge.jacobian.shape[1]
        size = max(1, LIMIT // (8 * numbers))
        return [slice(at, min(at + size, count)) for at in range(0, count, size)]

    def targets(self, labels: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Targets and weights (M, K) of pictures with these labels; raises `ConfigError` for a
        label that it does not have."""
        place = {name: i for i, name in enumerate(self.classes)}
        if lone := sorted(set(labels) - set(place)):
            raise ConfigError(
                f"{len(lone)} class(es) of the pictures, such as {lone[0]!r}, are none of the "
                f"tuning's: {', '.join(self.classes[:10])}. Leave those pictures out"
            )
        codes = torch.tensor([place[name] for name in labels], dtype=torch.int64)
        both: tuple[Tensor, Tensor]
        both = rescaled_targets(codes, len(place), self.config.kappa, self.config.emphasis)
        return both


def solution_of(checkpoint: TunedCheckpoint, dataset: Dataset, progress: Progress) -> Solution:
    """Solve a tuning's problem exactly, from the pictures that it was tuned on.

    Raises `ConfigError` for a base, a merged tuning, an embedding, one that was not fitted by least
    squares, and one whose pictures and weights are too many; `DataError` where the dataset lacks
    one of its pictures, or has another in its place.
    """
    need_labels(checkpoint)
    everything = range(len(checkpoint.pictures))
    copied, problem = problem_of(checkpoint, dataset, everything, progress)
    ridge = solve_tangent(copied.model, problem)
    config = TuneConfig.from_json(checkpoint.settings["tune"]).linear
    return Solution(copied.model, problem, ridge, config, checkpoint.classes)
