"""Everything that decides over a linear fine-tuning, as one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from samespace_cloud.checked import not_numbers
from samespace_cloud.linear._losses import KAPPA
from samespace_edge import ConfigError


@dataclass(frozen=True)
class LinearConfig:
    """How a linearised network is fine-tuned.

    Attributes:
        solver: `cg` solves to a residual, with no learning rate or seed; `exact` to rounding, if
            the problem is small; `kfac` and `sgd` are gradient descent with momentum, with and
            without preconditioning; `adam` is Adam.
        loss: `square` is the rescaled square loss; `cross-entropy`, to compare, is for `sgd` and
            `adam`, since its curvature is not constant.
        kappa, emphasis: see `samespace_cloud.linear.rescaled_targets`.
        slope: of leaky activations, 0 to 1, published as 0.1; 0 keeps them as they were, and did
            better where both were measured (docs/finetuning.md).
        recalibrate: whether a leaky network's batch norms get the statistics of the pictures.
        head: where the linear head starts, at w0: at `ridge` regression of the targets on the
            features, or at `random`. From 0 the backbone would have no derivative.
        head_penalty: of that regression, as a share of the features' mean variance.
        weight_decay: penalty of |w - w0|^2 for each picture; the mean loss over pictures gets
            weight_decay |w - w0|^2.
        penalty: of |w - w0|^2 for all pictures together, in the place of weight_decay times their
            number: give it where trainings on more or fewer pictures are to be one problem.
        preconditioned: whether `cg` is preconditioned by K-FAC too: it gains in the first steps
            and loses later, so take it where a few steps are all that can be paid for.
        damping: of K-FAC, as a share of each layer's mean curvature.
        kfac_pictures: how many pictures K-FAC's factors are estimated from; 0 takes all.
        kfac_draws: random directions for them; 0 takes every output in turn.
        tolerance: the residual at which `cg` stops.
        iterations: after which `cg` stops in any case.
        epochs: passes over the pictures, of the others.
        batch_size: pictures in a step or product.
        lr: of `adam`, as it is; of `sgd` and `kfac`, as a share of the largest stable one, which
            the constant curvature decides. It falls to 0 along a cosine.
        momentum: of `sgd` and `kfac`.
        seed: of a random head, of the order of pictures and of K-FAC's directions.
    """

    solver: Literal["kfac", "sgd", "adam", "cg", "exact"] = "cg"
    loss: Literal["square", "cross-entropy"] = "square"
    kappa: float = KAPPA
    emphasis: float = 1.0
    slope: float = 0.0
    recalibrate: bool = True
    head: Literal["ridge", "random"] = "ridge"
    head_penalty: float = 1.0
    weight_decay: float = 1e-2
    penalty: float | None = None
    preconditioned: bool = False
    damping: float = 1e-2
    kfac_pictures: int = 512
    kfac_draws: int = 4
    tolerance: float = 1e-3
    iterations: int = 50
    epochs: int = 20
    batch_size: int = 64
    lr: float = 0.5
    momentum: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "solver": self.solver in ("kfac", "sgd", "adam", "cg", "exact"),
            "loss": self.loss in ("square", "cross-entropy"),
            "kappa": 0 < self.kappa < math.inf,
            "emphasis": 0 < self.emphasis < math.inf,
            "slope": 0 <= self.slope < 1,
            "head": self.head in ("ridge", "random"),
            "head_penalty": 0 < self.head_penalty < math.inf,
            "weight_decay": 0 < self.weight_decay < math.inf,
            "penalty": self.penalty is None or 0 < self.penalty < math.inf,
            "damping": 0 <= self.damping < math.inf,
            "kfac_pictures": self.kfac_pictures >= 0,
            "kfac_draws": self.kfac_draws >= 0,
            "tolerance": 0 < self.tolerance < 1,
            "iterations": self.iterations >= 1,
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "lr": 0 < self.lr < math.inf,
            "momentum": 0 <= self.momentum < 1,
        }
        wrong = [f"{name} = {getattr(self, name)!r}" for name, ok in checks.items() if not ok]
        if wrong := list(dict.fromkeys([*not_numbers(self), *wrong])):
            raise ConfigError(f"settings of a linear fine-tuning out of range: {', '.join(wrong)}")
        if self.loss == "cross-entropy" and self.solver not in ("sgd", "adam"):
            raise ConfigError(
                f"{self.solver} needs a curvature that is constant, which cross entropy has not: "
                "set loss to 'square', or solver to 'sgd' or 'adam'"
            )

    def penalty_for(self, pictures: int) -> float:
        """What |w - w0|^2 costs in a training on so many pictures."""
        return self.weight_decay * pictures if self.penalty is None else self.penalty

    def to_json(self) -> dict[str, Any]:
        """As it stands in logs."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LinearConfig:
        """The opposite of `to_json`; raises `ConfigError` for unknown keys."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise ConfigError(f"unknown settings of a linear fine-tuning: {', '.join(unknown)}")
        try:
            return cls(**value)
        except TypeError as error:
            raise ConfigError(
                f"settings of a linear fine-tuning that cannot be read: {error}"
            ) from None
