"""What one training picture does: leaving it out, forgetting it, in closed form and exactly.

With pictures R left out, the optimum has alpha_R = 0 and, for the others,
alpha - M[:, R] M[R, R]^-1 alpha[R]: the leverage form of ridge regression (Cook, Weisberg 1982,
chapter 2; by blocks of K outputs). No approximation is made: the model is linear in its weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samespace_cloud.linear._dual import TangentRidge, exact_jacobian
from samespace_cloud.linear._linearized import Linearized
from samespace_cloud.linear._problem import kept


def forget(solved: TangentRidge, pictures: Tensor) -> Tensor:
    """The tangent, float32 (P,), that training without `pictures` gives, up to rounding.

    Args:
        solved: from `solve_tangent`.
        pictures: int64 (R,), places in the problem.

    Raises `ConfigError` where there is no such picture, or none would be left.
    """
    kept(len(solved.targets), pictures)
    return (solved.jacobian.T @ _without(solved, pictures)).float()


def leave_one_out(solved: TangentRidge) -> Tensor:
    """What the model trained without a picture says of it, for every picture: float32 (N, K).

    An honest validation without a validation set: target_i - S_i^-1 M_ii^-1 alpha_i. Outputs of
    weight 0 are NaN, since nothing of them was kept.
    """
    n, k = solved.targets.shape
    blocks = solved.inverse.view(n, k, n, k)[torch.arange(n), :, torch.arange(n), :]
    residual: Tensor = torch.linalg.solve(blocks, solved.alpha.view(n, k))
    said = solved.targets - residual / solved.roots
    return said.where(solved.roots > 0, torch.nan).float()


def influence(model: Linearized, solved: TangentRidge, inputs: Tensor) -> Tensor:
    """How the outputs for `inputs` change when a training picture is left out.

    Args:
        inputs: (M, ...), as the network takes them.

    Returns float32 (N, M, K): with the picture at N left out, less with it.
    """
    n = len(solved.targets)
    seen = exact_jacobian(model, inputs)
    towards = seen.flatten(0, 1) @ solved.jacobian.T
    moved = [_without(solved, torch.tensor([i])) - solved.alpha for i in range(n)]
    return (torch.stack(moved) @ towards.T).view(n, *seen.shape[:2]).float()


def _without(solved: TangentRidge, pictures: Tensor) -> Tensor:
    gone = solved.rows(torch.unique(pictures))
    block = solved.inverse[gone[:, None], gone]
    alpha: Tensor
    alpha = solved.alpha - solved.inverse[:, gone] @ torch.linalg.solve(block, solved.alpha[gone])
    alpha[gone] = 0
    return alpha
