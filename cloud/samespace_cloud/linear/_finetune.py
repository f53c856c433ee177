"""Fine-tune a backbone on labelled pictures as a convex problem."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from samespace_cloud.closed_form import fit_ridge
from samespace_cloud.linear._cg import solve_cg
from samespace_cloud.linear._config import LinearConfig
from samespace_cloud.linear._descent import Entry, descend
from samespace_cloud.linear._kfac import KFAC
from samespace_cloud.linear._leaky import leaky, recalibrate
from samespace_cloud.linear._linearized import Linearized, Only, set_tangent
from samespace_cloud.linear._losses import check_labels, rescaled_targets
from samespace_cloud.linear._problem import LeastSquares, batches, finite, start_outputs
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

    The backbone gets leaky activations, the head its start; both are linearised there, and the
    tangent is solved for.

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
    check_labels(labels, classes)
    counts = torch.bincount(labels, minlength=classes)
    if (counts == 0).any():
        empty = (counts == 0).nonzero()[:, 0].tolist()
        raise ConfigError(
            f"classes {', '.join(map(str, empty[:5]))} have no picture among the {len(labels)}; "
            "number the classes that there are, or add pictures"
        )
    start = _start(backbone, pictures, labels, classes, config)
    model = Linearized(start, only)
    targets, weights = rescaled_targets(labels, classes, config.kappa, config.emphasis)
    penalty = config.weight_decay * len(labels)
    problem = LeastSquares(pictures, targets, weights, penalty)
    start_outputs(model, pictures[: config.batch_size])  # refused before anything is paid for
    kfac = None
    if config.solver == "kfac" or (config.solver == "cg" and config.preconditioned):
        kfac = KFAC(
            model,
            problem,
            damping=config.damping,
            draws=config.kfac_draws if config.kfac_draws < classes else 0,
            pictures=config.kfac_pictures,
            seed=config.seed,
        )
    if config.solver != "cg":
        return LinearlyTuned(model, problem, tuple(descend(model, problem, config, kfac, progress)))
    log: list[Entry] = []
    started = time.monotonic()

    def note(iteration: int, residual: float) -> None:
        seconds = round(time.monotonic() - started, 2)
        log.append({"iteration": iteration, "residual": residual, "seconds": seconds})
        progress(log[-1])

    solved = solve_cg(
        model,
        problem,
        config.tolerance,
        config.iterations,
        kfac,
        batch=config.batch_size,
        progress=note,
    )
    set_tangent(model, solved.tangent)
    return LinearlyTuned(model, problem, tuple(log))


@torch.no_grad()
def _start(
    backbone: nn.Module, pictures: Tensor, labels: Tensor, classes: int, config: LinearConfig
) -> nn.Module:
    """w0: the leaky backbone with its head."""
    body: nn.Module = copy.deepcopy(backbone).eval().requires_grad_(True)
    parts = list(batches(len(pictures), config.batch_size))
    if config.slope > 0:
        body = leaky(body, config.slope)
        if config.recalibrate:
            body = recalibrate(body, (pictures[rows] for rows in parts))
    features = finite(torch.cat([body(pictures[rows]) for rows in parts]))
    head = nn.Linear(features.shape[1], classes)
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
