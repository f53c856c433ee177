"""Fine-tuning step by step: gradient descent with momentum, with or without K-FAC, and Adam."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace_cloud.linear._cg import Precondition, steepest
from samespace_cloud.linear._config import LinearConfig
from samespace_cloud.linear._linearized import Linearized, flatten, unflatten
from samespace_cloud.linear._losses import square_loss
from samespace_cloud.linear._problem import LeastSquares, finite

Entry = dict[str, Any]
Progress = Callable[[Entry], None]


def descend(
    model: Linearized,
    problem: LeastSquares,
    config: LinearConfig,
    precondition: Precondition | None = None,
    progress: Progress = lambda entry: None,
) -> list[Entry]:
    """Move the tangent of `model` down the mean loss, from where it is.

    Args:
        problem: for cross entropy, its largest target is a picture's label.
        config: `solver` decides between Adam and momentum.
        precondition: K-FAC of the whole problem.
        progress: is given each epoch's entry.

    Returns an entry for every epoch: `epoch`, `step`, `loss` (the mean over its steps, penalty
    included), `rate`, `seconds`. Raises `ConfigError` where outputs stop being finite.
    """
    count, size = len(problem), min(config.batch_size, len(problem))
    decay = problem.penalty / count
    parameters = list(model.parameters())
    optimizer: torch.optim.Optimizer
    peak = config.lr
    if config.solver == "adam":
        optimizer = torch.optim.Adam(parameters, lr=peak)
    else:
        peak *= _largest_rate(model, problem, config, precondition)
        optimizer = torch.optim.SGD(parameters, lr=peak, momentum=config.momentum)
    steps = math.ceil(count / size)
    log: list[Entry] = []
    for epoch in range(config.epochs):
        started, losses = time.monotonic(), 0.0
        generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
        order = torch.randperm(count, generator=generator)
        for step in range(steps):
            done = (epoch * steps + step) / (config.epochs * steps)
            optimizer.param_groups[0]["lr"] = peak * 0.5 * (1 + math.cos(math.pi * done))
            part = problem.part(order[step * size : (step + 1) * size])
            optimizer.zero_grad(set_to_none=True)
            outputs = finite(model(part.inputs))
            loss = _loss(outputs, part, config) + decay * _square(model)
            loss.backward()  # type: ignore[no-untyped-call]
            if precondition is not None:
                # K-FAC's Hessian is of the sum over pictures, the loss a mean.
                _redirect(model, lambda g: count * precondition(g))
            optimizer.step()
            losses += float(loss.detach())
        log.append(
            {
                "epoch": epoch,
                "step": (epoch + 1) * steps,
                "loss": losses / steps,
                "rate": optimizer.param_groups[0]["lr"],
                "seconds": round(time.monotonic() - started, 2),
            }
        )
        progress(log[-1])
    return log


def _loss(outputs: Tensor, part: LeastSquares, config: LinearConfig) -> Tensor:
    if config.loss == "cross-entropy":
        return F.cross_entropy(outputs, part.targets.argmax(dim=1))
    return square_loss(outputs, part.targets, part.weights)


def _square(model: Linearized) -> Tensor:
    return torch.stack([t.square().sum() for t in model.parameters()]).sum()


def _redirect(model: Linearized, inverse: Precondition) -> None:
    tangents = model.tangents()
    gradient = flatten(
        {n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in tangents.items()}
    )
    for name, step in unflatten(inverse(gradient), tangents).items():
        tangents[name].grad = step


def _largest_rate(
    model: Linearized,
    problem: LeastSquares,
    config: LinearConfig,
    precondition: Precondition | None,
) -> float:
    """1 over the largest curvature that a step's own pictures have, as a mean over pictures."""
    size = min(config.batch_size, len(problem))
    part = problem.part(torch.linspace(0, len(problem) - 1, size).round().long())
    # As a problem of all pictures it would have so many times the curvature.
    scale = len(problem) / size
    scaled = LeastSquares(part.inputs, part.targets, scale * part.weights, problem.penalty)
    largest = steepest(model, scaled, precondition, seed=config.seed, batch=config.batch_size)
    return 1 / largest if precondition is not None else len(problem) / largest
