"""Linear quadratic fine-tuning (LQF, Achille et al. 2021): fine-tuning as a convex problem.

>>> from samespace_cloud.linear import LinearConfig, finetune_linear
>>> tuned = finetune_linear(backbone, pictures, labels, LinearConfig())  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "KFAC": "_kfac",
    "Classifier": "_finetune",
    "LeastSquares": "_problem",
    "LinearConfig": "_config",
    "Linearized": "_linearized",
    "LinearlyTuned": "_finetune",
    "MergedTangents": "_vectors",
    "Solved": "_cg",
    "TangentRidge": "_dual",
    "TangentVector": "_vectors",
    "TwoStream": "_two_stream",
    "finetune_linear": "_finetune",
    "fit_tangent": "_finetune",
    "forget": "_influence",
    "influence": "_influence",
    "jacobian": "_dual",
    "labelled_problem": "_finetune",
    "leaky": "_leaky",
    "leave_one_out": "_influence",
    "linear_outputs": "_problem",
    "linear_start": "_finetune",
    "posterior_variance": "_posterior",
    "recalibrate": "_leaky",
    "rescaled_targets": "_losses",
    "set_tangent": "_linearized",
    "solve_cg": "_cg",
    "solve_tangent": "_dual",
    "square_loss": "_losses",
    "start_outputs": "_problem",
    "steepest": "_cg",
    "tangent_kernel": "_dual",
}

__all__ = sorted(_WHERE, key=lambda n: (not n.isupper(), not n[0].isupper(), n))


def __getattr__(name: str) -> Any:
    # Importing the package is quick; torch can wait until something of it is used.
    if name in _WHERE:
        return getattr(import_module(f"samespace_cloud.linear.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'samespace_cloud.linear' has no attribute {name!r}")
