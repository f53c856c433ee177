"""What one picture costs: multiply-accumulates and parameters, counted from the layers that run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """Cost of a model for one picture.

    Attributes:
        macs: multiply-accumulates in convolutions and linear layers. Norms, activations and
            pooling are left out, as the literature does.
        parameters: number of trainable weights, batch-norm scales and shifts included.
    """

    macs: int
    parameters: int

    @property
    def mmacs(self) -> float:
        """Millions of multiply-accumulates."""
        return self.macs / 1e6


def count_cost(module: nn.Module, height: int, width: int) -> Cost:
    """Run `module` once on zeros (1, 3, height, width) and count what it does."""
    macs = sum(layer_macs(module, height, width).values())
    return Cost(macs, sum(p.numel() for p in module.parameters()))


def layer_macs(module: nn.Module, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of every convolution and linear layer that runs, by module path."""
    macs: dict[str, int] = {}

    def on_conv(path: str, layer: nn.Conv2d, _inputs: Any, output: Tensor) -> None:
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        cost = output[0].numel() * kernel * layer.in_channels // layer.groups
        macs[path] = macs.get(path, 0) + cost

    def on_linear(path: str, layer: nn.Linear, _inputs: Any, output: Tensor) -> None:
        macs[path] = macs.get(path, 0) + output[0].numel() * layer.in_features

    hooks = []
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            hooks.append(layer.register_forward_hook(partial(on_conv, path)))
        elif isinstance(layer, nn.Linear):
            hooks.append(layer.register_forward_hook(partial(on_linear, path)))
    training = module.training
    device = next(module.parameters()).device
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, 3, height, width, device=device))
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return macs
