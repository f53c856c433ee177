"""How sure the linear model is: the Gaussian posterior of ridge regression, in dual form."""

from __future__ import annotations

import torch
from torch import Tensor

from samespace_cloud.linear._dual import TangentRidge, exact_jacobian
from samespace_cloud.linear._linearized import Linearized
from samespace_edge import ConfigError


def posterior_variance(
    model: Linearized, solved: TangentRidge, inputs: Tensor, noise: float | None = None
) -> Tensor:
    """The variance of the outputs for `inputs`, float32 (M, K), what is observed noise left out.

    With Gaussian noise of variance noise / weight on the targets and a Gaussian prior of variance
    noise / penalty on the tangent, the posterior covariance of w is noise (B^T B + penalty)^-1,
    which is Laplace's approximation, here exact (MacKay 1992; Immer et al. 2021). In dual form an
    output's variance is noise / penalty (j j^T - j B^T M B j^T), with j its row of the Jacobian.

    Args:
        solved: from `solve_tangent`.
        inputs: (M, ...), as the network takes them.
        noise: variance of a target of weight 1; by default the training residual over its degrees
            of freedom, sum w (f - t)^2 / tr(I - hat), over the targets of a weight above 0.

    Raises `ConfigError` where `noise` is not above 0.
    """
    if noise is None:
        observed = solved.roots.reshape(-1) > 0
        residual = solved.penalty * solved.inverse.diagonal()[observed]  # of I - hat
        noise = float((solved.penalty * solved.alpha).square().sum() / residual.sum())
    if not noise > 0:
        raise ConfigError(f"the variance of the targets' noise has to be above 0, not {noise}")
    rows = exact_jacobian(model, inputs)
    flat = rows.flatten(0, 1)
    towards = flat @ solved.jacobian.T
    known = ((towards @ solved.inverse) * towards).sum(dim=1)
    variance = (flat.square().sum(dim=1) - known).clamp_min(0) * (noise / solved.penalty)
    return variance.view(rows.shape[:2]).to(torch.float32)
