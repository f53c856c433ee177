"""A linear fine-tuning for every weight decay, out of one: a penalty only shifts the curvature."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from samespace_cloud.linear import LeastSquares, Linearized, start_outputs
from samespace_cloud.linear._problem import curve, pull_back

_NOTHING = 1e-30  # a problem has a penalty


@dataclass(frozen=True)
class PenaltyPath:
    """The first steps of conjugate gradients, kept, so that they can be taken with any penalty.

    With H = J^T W J and b = J^T W (target - f(w0)), the Krylov space of b is the same for H and for
    H + penalty (Frommer, Maass 1999): Lanczos' basis V of it has V^T H V = T, tridiagonal, and the
    step of conjugate gradients with a penalty is V (T + penalty)^-1 |b| e_1.

    Attributes:
        basis: V^T, float32 (steps, P).
        bends: T, float64 (steps, steps).
        length: |b|.
    """

    basis: Tensor
    bends: Tensor
    length: float

    @classmethod
    @torch.no_grad()
    def of(cls, model: Linearized, problem: LeastSquares, steps: int, batch: int) -> Self:
        """Of a problem whose penalty is left out; a step costs one of conjugate gradients."""
        bare = replace(problem, penalty=_NOTHING)
        misfit = problem.weights * (problem.targets - start_outputs(model, problem.inputs, batch))
        with torch.enable_grad():  # type: ignore[no-untyped-call]
            first = pull_back(model, problem.inputs, misfit, batch)
        length = float(first.norm())
        rows, along, across = [first / length], list[float](), list[float]()
        while True:
            with torch.enable_grad():  # type: ignore[no-untyped-call]
                ahead = curve(model, bare, rows[-1], batch)
            along.append(float(ahead @ rows[-1]))
            basis = torch.stack(rows)
            for _ in range(2):  # once leaves what float32 rounds off
                ahead = ahead - basis.T @ (basis @ ahead)
            across.append(float(ahead.norm()))
            if len(rows) == steps or across[-1] <= 1e-6 * max(along):
                break
            rows.append(ahead / across[-1])
        beside = torch.tensor(across[:-1], dtype=torch.float64)
        bends = torch.diag(torch.tensor(along, dtype=torch.float64))
        bends += torch.diag(beside, 1) + torch.diag(beside, -1)
        return cls(basis, bends, length)

    @property
    def largest(self) -> float:
        """The largest curvature."""
        return float(torch.linalg.eigvalsh(self.bends)[-1])

    def at(self, penalty: float) -> Tensor:
        """The tangent (P,) for a penalty."""
        right = torch.zeros(len(self.bends), dtype=torch.float64)
        right[0] = self.length
        shifted = self.bends + penalty * torch.eye(len(self.bends), dtype=torch.float64)
        steps = torch.linalg.solve(shifted, right).float()
        return steps.to(self.basis.device) @ self.basis
