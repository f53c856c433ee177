"""The convex problem that fine-tuning becomes, and the products that solve it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samespace_cloud.linear._linearized import Linearized, flatten, unflatten
from samespace_edge import ConfigError

BATCH = 64
"""Pictures in a product, by default."""


@dataclass(frozen=True)
class LeastSquares:
    """Fit a linearised network's outputs f to targets, at the cost of leaving w0.

    The minimum is taken of sum_ij weight_ij (f_ij - target_ij)^2 + penalty |w - w0|^2. It is a sum
    over pictures, not a mean, so that what is left when pictures go is the same problem without
    them.

    Attributes:
        inputs: float32 (N, ...), what the network takes.
        targets: float32 (N, K): scaled one-hots, or another model's vectors.
        weights: float32 (N, K), at least 0.
        penalty: of the squared distance from w0, above 0: what makes the optimum unique.

    Raises `ConfigError` where the shapes do not fit, a number is not finite or out of range.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    penalty: float

    def __post_init__(self) -> None:
        n, shape = len(self.inputs), tuple(self.targets.shape)
        if len(shape) != 2 or shape[0] != n or tuple(self.weights.shape) != shape or not n:
            raise ConfigError(
                f"{n} inputs, targets {shape} and weights {tuple(self.weights.shape)} do not fit; "
                "they are (N, ...), (N, K) and (N, K)"
            )
        if not self.targets.isfinite().all():
            raise ConfigError("some targets are not finite; leave those pictures out")
        if not (self.weights.isfinite().all() and (self.weights >= 0).all()):
            raise ConfigError("weights have to be finite and at least 0")
        if not 0 < self.penalty < float("inf"):
            raise ConfigError(f"the penalty has to be above 0 and finite, not {self.penalty}")

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> LeastSquares:
        """The same on another device, where everything is then computed."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            weights=self.weights.to(device),
        )

    def part(self, rows: Tensor | slice) -> LeastSquares:
        """The problem of some pictures alone, with the whole penalty."""
        return replace(
            self, inputs=self.inputs[rows], targets=self.targets[rows], weights=self.weights[rows]
        )

    def without(self, rows: Tensor) -> LeastSquares:
        """The problem without the pictures at places `rows`, int64 (R,)."""
        return self.part(kept(len(self), rows))

    def loss(self, outputs: Tensor, tangent: Tensor) -> float:
        """The objective, for the outputs (N, K) of the tangent (P,)."""
        misfit = (self.weights.double() * (outputs - self.targets).double().square()).sum()
        return float(misfit + self.penalty * tangent.double().square().sum())


def kept(count: int, rows: Tensor) -> Tensor:
    """The places of 0 to count - 1 that are not in `rows`; raises `ConfigError` for others."""
    if ((rows < 0) | (rows >= count)).any():
        raise ConfigError(f"there are {count} pictures, counted from 0; {rows.tolist()} were named")
    stays = torch.ones(count, dtype=torch.bool)
    stays[rows] = False
    if not stays.any():
        raise ConfigError(f"without all {count} pictures nothing is left; the answer is w0")
    return stays.nonzero()[:, 0]


@torch.no_grad()
def start_outputs(model: Linearized, inputs: Tensor, batch: int = BATCH) -> Tensor:
    """f(x; w0), (N, K); raises `ConfigError` where an output is not finite."""
    outputs = torch.cat([model.base(inputs[rows]) for rows in batches(len(inputs), batch)])
    return finite(outputs)


def need_outputs(model: Linearized, problem: LeastSquares, batch: int = BATCH) -> Tensor:
    """f(x; w0) of a problem's inputs, (N, K); raises `ConfigError` where they are not as many as
    the targets, or not finite."""
    base = start_outputs(model, problem.inputs, batch)
    if base.shape != problem.targets.shape:
        raise ConfigError(
            f"the network makes outputs {tuple(base.shape)}, the targets are "
            f"{tuple(problem.targets.shape)}; give one for each output"
        )
    return base


@torch.no_grad()
def linear_outputs(model: Linearized, inputs: Tensor, vector: Tensor, batch: int = BATCH) -> Tensor:
    """f_lin(x; w0 + vector), (N, K).

    Args:
        vector: a tangent (P,), as `flatten` has it.
    """
    tangent = unflatten(vector, model.tangents())
    parts = [sum(model.streams(inputs[rows], tangent)) for rows in batches(len(inputs), batch)]
    return finite(torch.cat([torch.as_tensor(p) for p in parts]))


def pull_back(model: Linearized, inputs: Tensor, outputs: Tensor, batch: int = BATCH) -> Tensor:
    """J^T u, (P,): what the weights of each picture's outputs, u (N, K), ask of the tangent."""
    total = flatten(model.weights()).zero_()
    for rows in batches(len(inputs), batch):
        vector = torch.zeros_like(total).requires_grad_()
        _, change = model.streams(inputs[rows], unflatten(vector, model.tangents()))
        (part,) = torch.autograd.grad(change, vector, outputs[rows])
        total += part
    return total


def need_transpose(model: Linearized, inputs: Tensor) -> None:
    """Raises `ConfigError` where J^T cannot be had: an operation's forward-mode derivative has none
    of its own, or no weight with a tangent has a say in the outputs.

    Args:
        inputs: a picture or two, (N, ...).
    """
    weights = model.weights()
    vector = torch.zeros_like(flatten(weights)).requires_grad_()
    _, change = model.streams(inputs, unflatten(vector, weights))
    if not change.requires_grad:
        raise ConfigError(
            f"the outputs do not depend on {', '.join(model.names[:3])}: these layers do not run; "
            "choose others (only=...)"
        )
    try:
        torch.autograd.grad(change.sum(), vector)
    except RuntimeError as error:
        raise ConfigError(
            f"an operation of {model.culprit(inputs)} has a forward-mode derivative that cannot be "
            f"transposed: {error}. Replace it (nn.Hardsigmoid by relu6(x + 3) / 6), or solve a "
            "small problem by 'exact', which needs none"
        ) from error


def curve(model: Linearized, problem: LeastSquares, vector: Tensor, batch: int = BATCH) -> Tensor:
    """(J^T W J + penalty) times a tangent (P,): half of the objective's Hessian, which is constant.

    The product with J and the one with its transpose share one forward pass: the derivative
    stream's own gradient with respect to the tangent is the transpose.
    """
    total = problem.penalty * vector
    for rows in batches(len(problem), batch):
        moved = vector.detach().requires_grad_()
        _, change = model.streams(problem.inputs[rows], unflatten(moved, model.tangents()))
        weighted = problem.weights[rows] * change.detach()
        (part,) = torch.autograd.grad(change, moved, weighted)
        total += part
    return total


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of 0 to `count`, `size` at a time."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def finite(outputs: Tensor) -> Tensor:
    """`outputs`; raises `ConfigError` where one is not finite."""
    if len(bad := _not_finite(outputs)):
        raise ConfigError(
            f"the network's outputs for {len(bad)} pictures, the first at place {int(bad[0])}, are "
            "not finite: look at its weights, the slope and the normalisation of the pictures"
        )
    return outputs


def check_pictures(pictures: Tensor) -> None:
    """Raises `ConfigError` where one is not finite: a network that clips might not show it."""
    if len(bad := _not_finite(pictures)):
        raise ConfigError(
            f"{len(bad)} pictures, the first at place {int(bad[0])}, hold numbers that are not "
            "finite: look at their normalisation"
        )


def _not_finite(values: Tensor) -> Tensor:
    return (~values.isfinite()).flatten(1).any(dim=1).nonzero()[:, 0]
