"""Fine-tune a backbone on labelled pictures as a convex problem."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from samespace_cloud.closed_form import fit_ridge
from samespace_cloud.linear._cg import Solved, solve_cg
from samespace_cloud.linear._config import LinearConfig
from samespace_cloud.linear._descent import Entry, descend
from samespace_cloud.linear._dual import solve_tangent
from samespace_cloud.linear._kfac import KFAC
from samespace_cloud.linear._leaky import leaky, recalibrate
from samespace_cloud.linear._linearized import Linearized, Only, flatten, set_tangent
from samespace_cloud.linear._losses import check_labels, rescaled_targets
from samespace_cloud.linear._problem import (
    LeastSquares,
    batches,
    check_pictures,
    finite,
    need_outputs,
    need_transpose,
)
from samespace_edge import ConfigError


class Classifier(nn.Module):
    """A backbone and a linear layer: what it takes to outputs (N, K)."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.backbone(x))
        return y


@dataclass(frozen=True)
class LinearlyTuned:
    """What `finetune_linear` returns.

    Attributes:
        model: the tuned network; pictures (N, ...) to outputs (N, K).
        problem: what it was fitted to, for influence, forgetting and uncertainty.
        log: an entry for every epoch, or every iteration of `cg` (`iteration`, `residual`,
            `seconds`).
    """

    model: Linearized
    problem: LeastSquares
    log: tuple[Entry, ...]


def finetune_linear(
    backbone: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    config: LinearConfig,
    classes: int | None = None,
    only: Only | None = None,
    progress: Callable[[Entry], None] = lambda entry: None,
) -> LinearlyTuned:
    """Linear quadratic fine-tuning (LQF, Achille et al. 2021) of a backbone with a fresh head.

    The backbone gets leaky activations, if `config.slope` says so, the head its start; both are
    linearised there, and the tangent is solved for.

    Args:
        backbone: normalised pictures to features (N, F); it stays as it is.
        pictures: float32 (N, 3, H, W), normalised as the backbone takes them.
        labels: int64 (N,), 0 to classes - 1; every class has a picture.
        config: everything else.
        classes: K; by default the largest label and one.
        only: which parameters of `Classifier` get a tangent: names begin with `backbone.` or
            `head.`.
        progress: is given each entry of the log.

    Raises `ConfigError` for labels outside their range, a class without pictures, pictures or
    outputs that are not finite, and what `config.solver` cannot solve.
    """
    if len(pictures) != len(labels) or not len(pictures):
        raise ConfigError(f"{len(pictures)} pictures have {len(labels)} labels; give one for each")
    classes = int(labels.max()) + 1 if classes is None else classes
    start = linear_start(backbone, pictures, labels, classes, config)
    model = Linearized(start, only)
    problem = labelled_problem(pictures, labels, classes, config)
    log, _ = fit_tangent(model, problem, config, progress=progress)
    return LinearlyTuned(model, problem, log)


@torch.no_grad()
def linear_start(
    backbone: nn.Module, pictures: Tensor, labels: Tensor, classes: int, config: LinearConfig
) -> Classifier:
    """w0 of `finetune_linear`: a copy of the backbone, leaky or not, and a head."""
    _check_classes(labels, classes)
    body: nn.Module = copy.deepcopy(backbone).eval().requires_grad_(True)
    parts = list(batches(len(pictures), config.batch_size))
    if config.slope > 0:
        body = leaky(body, config.slope)
        if config.recalibrate:
            # All batches count alike, and none may be of a single picture.
            body = recalibrate(body, torch.tensor_split(pictures, len(parts)))
    features = finite(torch.cat([body(pictures[rows]) for rows in parts]))
    head = nn.Linear(features.shape[1], classes, device=features.device)
    if config.head == "ridge":
        targets, _ = rescaled_targets(labels, classes, config.kappa)
        weight, bias = fit_ridge(features, targets, config.head_penalty)
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    else:
        generator = torch.Generator().manual_seed(config.seed)
        scale = features.shape[1] ** -0.5
        head.weight.copy_(scale * torch.randn(head.weight.shape, generator=generator))
        head.bias.zero_()
    return Classifier(body, head).eval()


def labelled_problem(
    pictures: Tensor, labels: Tensor, classes: int, config: LinearConfig, partial: bool = False
) -> LeastSquares:
    """What labelled pictures ask of a linearised network with `classes` outputs.

    Args:
        partial: whether classes may have no picture: their outputs are drawn to 0 then.

    Raises `ConfigError` for labels outside their range, a class without pictures, and pictures that
    are not finite.
    """
    check_labels(labels, classes)
    check_pictures(pictures)
    if not partial:
        _check_classes(labels, classes)
    targets, weights = rescaled_targets(labels, classes, config.kappa, config.emphasis)
    return LeastSquares(pictures, targets, weights, config.penalty_for(len(labels)))


def fit_tangent(
    model: Linearized,
    problem: LeastSquares,
    config: LinearConfig,
    start: Tensor | None = None,
    progress: Callable[[Entry], None] = lambda entry: None,
) -> tuple[tuple[Entry, ...], Solved]:
    """Let the tangent of `model` be what `config.solver` finds.

    Args:
        start: a tangent (P,) that `cg` starts from; the optimum is the same.

    Returns the log, and how far from the optimum the result is: `Solved`, whose figures are of the
    square loss. Raises as `finetune_linear` does.
    """
    first = problem.part(slice(config.batch_size))
    need_outputs(model, first, config.batch_size)  # refused before anything is paid for
    if config.solver == "exact":
        model.streams(first.inputs[:1])
    else:
        need_transpose(model, first.inputs[:1])
    log: list[Entry] = []
    if config.solver == "exact":
        ridge = solve_tangent(model, problem)
        residual, distance = ridge.off(ridge.tangent)
        solved = Solved(ridge.tangent, residual, 0, (residual,), distance)
    elif config.solver == "cg":
        solved = _by_cg(model, problem, config, start, log, progress)
    else:
        kfac = _kfac(model, problem, config) if config.solver == "kfac" else None
        set_tangent(model, torch.zeros_like(flatten(model.weights())))
        log += descend(model, problem, config, kfac, progress)
        found = flatten(model.tangents()).detach()
        # No iteration: only how far it came.
        solved = solve_cg(model, problem, iterations=0, start=found, batch=config.batch_size)
    set_tangent(model, solved.tangent)
    return tuple(log), solved


def _by_cg(
    model: Linearized,
    problem: LeastSquares,
    config: LinearConfig,
    start: Tensor | None,
    log: list[Entry],
    progress: Callable[[Entry], None],
) -> Solved:
    started = time.monotonic()

    def note(iteration: int, residual: float) -> None:
        seconds = round(time.monotonic() - started, 2)
        log.append({"iteration": iteration, "residual": residual, "seconds": seconds})
        progress(log[-1])

    return solve_cg(
        model,
        problem,
        config.tolerance,
        config.iterations,
        _kfac(model, problem, config) if config.preconditioned else None,
        start,
        config.batch_size,
        note,
    )


def _kfac(model: Linearized, problem: LeastSquares, config: LinearConfig) -> KFAC:
    return KFAC(
        model,
        problem,
        damping=config.damping,
        draws=config.kfac_draws if config.kfac_draws < problem.targets.shape[1] else 0,
        pictures=config.kfac_pictures,
        seed=config.seed,
    )


def _check_classes(labels: Tensor, classes: int) -> None:
    check_labels(labels, classes)
    counts = torch.bincount(labels, minlength=classes)
    if (counts == 0).any():
        empty = (counts == 0).nonzero()[:, 0].tolist()
        raise ConfigError(
            f"classes {', '.join(map(str, empty[:5]))} have no picture among the {len(labels)}; "
            "number the classes that there are, or add pictures"
        )
