"""The exact optimum of a small fine-tuning: ridge regression in the tangent space, dual form."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from samespace_cloud.linear._linearized import Linearized, unflatten
from samespace_cloud.linear._problem import LeastSquares, batches, need_outputs
from samespace_edge import ConfigError

LIMIT = 1 << 28
"""Numbers that a Jacobian or kernel may have: 2 GiB in float64."""

_CHUNK = 16
_ALIKE = 1e-6


@dataclass(frozen=True)
class TangentRidge:
    """A solved problem, with what its pictures say of one another; all float64.

    With S the square roots of the weights, B = S J and r = S (target - f(w0)), the optimum is
    w - w0 = B^T alpha with alpha = M r and M = (B B^T + penalty)^-1.

    Attributes:
        jacobian: B, (N K, P), picture by picture.
        inverse: M, (N K, N K).
        alpha: (N K,).
        roots: S, (N, K).
        targets: (N, K).
        penalty: of the problem.
    """

    jacobian: Tensor
    inverse: Tensor
    alpha: Tensor
    roots: Tensor
    targets: Tensor
    penalty: float

    @property
    def tangent(self) -> Tensor:
        """w - w0, float32 (P,)."""
        return (self.jacobian.T @ self.alpha).float()

    def off(self, tangent: Tensor) -> tuple[float, float]:
        """How far a tangent (P,) is: |b - H w| / |b| with H = B^T B + penalty and b = B^T r, and
        |w - optimum|."""
        w, rows = tangent.double(), self.jacobian
        best = rows.T @ self.alpha
        right = rows.T @ (rows @ best) + self.penalty * best
        left = right - rows.T @ (rows @ w) - self.penalty * w
        return float(left.norm() / right.norm().clamp_min(1e-300)), float((w - best).norm())

    def rows(self, pictures: Tensor) -> Tensor:
        """The rows of `pictures` (R,) in the kernel, (R K,)."""
        outputs = self.targets.shape[1]
        return (
            pictures[:, None] * outputs + torch.arange(outputs, device=pictures.device)
        ).reshape(-1)


def jacobian(model: Linearized, inputs: Tensor) -> Tensor:
    """J(x; w0), float32 (N, K, P): the derivative of every output by every weight.

    Raises `ConfigError` where it would have more than `LIMIT` numbers.
    """
    return exact_jacobian(model, inputs).float()


def exact_jacobian(model: Linearized, inputs: Tensor) -> Tensor:
    """As `jacobian`, and computed, in float64: what float32 rounds off, a small penalty amplifies.

    Where torch cannot take several pictures at once, or takes them wrongly (PReLU), they go one by
    one.
    """
    exact = _doubled(model)
    weights, inputs = exact.weights(), inputs.double()
    with torch.no_grad():
        outputs = exact.base(inputs[:1]).shape[1]
    numbers = sum(w.numel() for w in weights.values())
    _fits(len(inputs) * outputs * numbers, "Jacobian")

    def of_one(w: dict[str, Tensor], x: Tensor) -> Tensor:
        made: Tensor = functional_call(exact.base, w, (x[None],))
        return made[0]

    def stacked(found: dict[str, Tensor]) -> Tensor:
        return torch.cat([found[name].flatten(2) for name in weights], dim=2).detach()

    generator = torch.Generator().manual_seed(0)
    some = torch.randn(numbers, generator=generator, dtype=inputs.dtype).to(inputs.device)
    along = unflatten(some, weights)
    together, parts = vmap(jacrev(of_one), in_dims=(None, 0)), []
    for rows in batches(len(inputs), _CHUNK):
        x = inputs[rows]
        try:
            part = stacked(together(weights, x))
            right = exact.streams(x, along)[1]
            alike = bool((part @ some - right).norm() <= _ALIKE * right.norm())
        except RuntimeError:
            alike = False
        if not alike:
            each = [jacrev(of_one)(weights, one) for one in x]
            part = stacked({n: torch.stack([found[n] for found in each]) for n in weights})
        parts.append(part)
    return torch.cat(parts)


def _doubled(model: Linearized) -> Linearized:
    return copy.deepcopy(model).double()


def tangent_kernel(model: Linearized, inputs: Tensor) -> Tensor:
    """J J^T, the neural tangent kernel at w0 (Jacot et al. 2018), float64 (N, K, N, K)."""
    rows = exact_jacobian(model, inputs)
    n, k, _ = rows.shape
    _fits((n * k) ** 2, "kernel")
    flat = rows.flatten(0, 1)
    return (flat @ flat.T).view(n, k, n, k)


def solve_tangent(model: Linearized, problem: LeastSquares) -> TangentRidge:
    """The optimum to rounding, with N K unknowns in the place of P.

    It is for small problems, N K up to some thousands: a check of every other solver, and what
    influence, forgetting and posterior variance are computed from. Where no weight serves two
    outputs, as in a linear layer, each output has a kernel of its own.

    Raises `ConfigError` where Jacobian or kernel would have more than `LIMIT` numbers.
    """
    n, k = problem.targets.shape
    _fits((n * k) ** 2, "kernel")
    exact = replace(
        problem,
        inputs=problem.inputs.double(),
        targets=problem.targets.double(),
        weights=problem.weights.double(),
    )
    base = need_outputs(_doubled(model), exact)
    raw = exact_jacobian(model, problem.inputs)
    roots = exact.weights.sqrt()
    residual = roots * (exact.targets - base)
    scaled = roots[:, :, None] * raw
    rows = scaled.flatten(0, 1)
    if _separate(raw):
        inverse = rows.new_zeros(n * k, n * k)
        for output in range(k):
            where = torch.arange(n, device=rows.device) * k + output
            inverse[where[:, None], where] = _inverse(scaled[:, output], problem.penalty)
    else:
        inverse = _inverse(rows, problem.penalty)
    alpha = inverse @ residual.reshape(-1)
    return TangentRidge(rows, inverse, alpha, roots, exact.targets, problem.penalty)


def fits(model: Linearized, problem: LeastSquares, limit: int = LIMIT) -> bool:
    """Whether Jacobian and kernel of a problem have at most `limit` numbers each."""
    unknowns = problem.targets.numel()
    weights = sum(w.numel() for w in model.weights().values())
    return unknowns * max(unknowns, weights) <= limit


def _inverse(rows: Tensor, penalty: float) -> Tensor:
    kernel = rows @ rows.T
    kernel.diagonal().add_(penalty)
    return torch.cholesky_inverse(torch.linalg.cholesky(kernel))


def _separate(rows: Tensor) -> bool:
    """Whether no weight has a derivative in two outputs."""
    return bool(((rows != 0).any(dim=0).sum(dim=0) <= 1).all())


def _fits(numbers: int, what: str) -> None:
    if numbers > LIMIT:
        raise ConfigError(
            f"the {what} would have {numbers / 1e6:.0f} million numbers, more than "
            f"{LIMIT / 1e6:.0f}; take fewer pictures or weights (only=...), or solve_cg"
        )
