"""The optimum of a fine-tuning, by conjugate gradients: one answer, whatever the order or seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samespace_cloud.linear._linearized import Linearized, flatten
from samespace_cloud.linear._problem import BATCH, LeastSquares, curve, need_outputs, pull_back
from samespace_edge import ConfigError

Precondition = Callable[[Tensor], Tensor]

_ROUNDING = 4 * 2.0**-23


@dataclass(frozen=True)
class Solved:
    """A tangent that solves a problem up to a residual.

    Attributes:
        tangent: float32 (P,), in the order of the model's names.
        residual: |b - H w| / |b| with H = J^T W J + penalty and b = J^T W (target - f(w0)),
            measured on `tangent`.
        distance: |tangent - optimum| is at most this: |b - H w| / penalty, since no eigenvalue of H
            is below the penalty. It is a bound, and often far above. Of float32 products it has
            what they may round off, 4 x 2^-23 of |b|.
        iterations: steps that were needed.
        residuals: before the first step and after each, as the recurrence has them.
    """

    tangent: Tensor
    residual: float
    iterations: int
    residuals: tuple[float, ...]
    distance: float = math.inf

    def __repr__(self) -> str:
        return f"Solved(residual={self.residual:.2g}, iterations={self.iterations})"


def solve_cg(
    model: Linearized,
    problem: LeastSquares,
    tolerance: float = 1e-4,
    iterations: int = 200,
    precondition: Precondition | None = None,
    start: Tensor | None = None,
    batch: int = BATCH,
    progress: Callable[[int, float], None] = lambda iteration, residual: None,
) -> Solved:
    """Conjugate gradients on the normal equations (Hestenes, Stiefel 1952).

    (J^T W J + penalty) (w - w0) = J^T W (target - f(w0)). Nothing is drawn at random, and pictures
    enter as one sum: the same pictures in any order, or from any start, give the same model up to
    the residual. An iteration costs about five forward passes over the pictures.

    Args:
        tolerance: the residual at which to stop, relative to the right side.
        iterations: after how many to stop in any case; the result says how far it came. With 0 it
            says how good `start` is.
        precondition: an approximate inverse of H up to a factor, symmetric, such as `KFAC`.
        start: a tangent (P,) to start from, such as the solution with other pictures.
        batch: pictures in a product.
        progress: is told the iteration and its residual.

    Raises `ConfigError` where the network's outputs, or the products, are not finite.
    """
    base = need_outputs(model, problem, batch)
    weighted = problem.weights * (problem.targets - base)
    right = pull_back(model, problem.inputs, weighted, batch).double()
    norm = float(right.norm())
    if norm == 0:
        return Solved(torch.zeros_like(right).float(), 0.0, 0, (0.0,), 0.0)

    # Products are float32; the sums of many of them are not.
    def curved(vector: Tensor) -> Tensor:
        return curve(model, problem, vector.float(), batch).double()

    def inverse(vector: Tensor) -> Tensor:
        return vector if precondition is None else precondition(vector.float()).double()

    found = torch.zeros_like(right) if start is None else start.double()
    rest = right if start is None else right - curved(found)
    ahead = inverse(rest)
    direction, along = ahead, float(torch.dot(rest, ahead))
    residuals = [float(rest.norm()) / norm]
    while residuals[-1] > tolerance and len(residuals) <= iterations:
        product = curved(direction)
        bend = float(torch.dot(direction, product))
        if not 0 < bend < float("inf"):
            raise ConfigError(
                f"the curvature along a step is {bend}, not above 0 and finite: the Jacobian at w0 "
                "overflows or the preconditioner is not positive"
            )
        found = found + (along / bend) * direction
        rest = rest - (along / bend) * product
        ahead = inverse(rest)
        previous, along = along, float(torch.dot(rest, ahead))
        direction = ahead + (along / previous) * direction
        residuals.append(float(rest.norm()) / norm)
        progress(len(residuals) - 1, residuals[-1])
    # What the recurrence says drifts from what is: the answer's residual is measured.
    found = found.float().double()
    left = float((right - curved(found)).norm())
    steps = len(residuals) - 1
    distance = (left + _ROUNDING * norm) / problem.penalty
    return Solved(found.float(), left / norm, steps, tuple(residuals), distance)


def steepest(
    model: Linearized,
    problem: LeastSquares,
    precondition: Precondition | None = None,
    iterations: int = 12,
    seed: int = 0,
    batch: int = BATCH,
) -> float:
    """The largest eigenvalue of the objective's Hessian, preconditioned; by power iteration.

    The Hessian is constant, so this one number says which learning rates are stable: gradient
    descent is below 2 divided by it.
    """
    generator = torch.Generator().manual_seed(seed)
    like = flatten(model.weights())
    vector = torch.randn(like.shape, generator=generator).to(like.device)
    inverse = precondition or (lambda v: v)
    value = 0.0
    for _ in range(iterations):
        vector = vector / vector.norm()
        vector = inverse(2 * curve(model, problem, vector, batch))
        value = float(vector.norm())
    if not 0 < value < float("inf"):
        raise ConfigError(f"the Hessian's largest eigenvalue is {value}; look at the network's w0")
    return value
