"""Networks whose units are never quite dead, with the weights that they have."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from samespace_cloud.families.mobilenet_v3 import HardSwish
from samespace_cloud.linear._activations import (
    LeakyHardswish,
    LeakyReLU6,
    leaky_hardswish,
    leaky_relu6,
)
from samespace_cloud.linear._tracing import traced
from samespace_edge import ConfigError


def leaky(module: nn.Module, slope: float) -> GraphModule:
    """A copy of `module` with leaky activations, and the same weights under the same names.

    Behind a ReLU that is off, the Jacobian of a picture has zeros, and no tangent can turn it on:
    the linear model cannot do what fine-tuning does. LQF therefore gives every activation a slope
    where it had none (Achille et al. 2021, section 3). ReLU becomes LeakyReLU; ReLU6 gets the
    slope on both sides of [0, 6]; hard swish below -3. A ReLU6 of x + 3 is a gate (squeeze and
    excite) and stays as it is: outside [0, 1] it would amplify.

    The pretrained weights are kept unchanged, so the function is another one, the more so the
    larger the slope: measure what it costs before any tuning. `recalibrate` gives the batch norms
    statistics of what they then see, which mends part of it.

    Args:
        module: traced by torch.fx, so free of branches that depend on what it sees.
        slope: at least 0 and below 1; 0 changes nothing. It is noted in a buffer, `leak`, so that
            tangents of one slope are not taken for those of another.

    Raises `ConfigError` for another slope, or where `module` is leaky already or cannot be traced.
    """
    if not 0 <= slope < 1:
        raise ConfigError(f"the slope of a leaky activation is at least 0 and below 1, not {slope}")
    if hasattr(module, "leak"):
        raise ConfigError("the network is leaky already; start from the network as it was")
    copied = copy.deepcopy(module)
    graph = traced(copied)
    changed = GraphModule(copied, graph)
    if slope > 0:
        for node in graph.nodes:
            _replace(changed, node, slope)
        graph.lint()
        changed.recompile()
        changed.register_buffer("leak", torch.tensor(slope))
    return changed.train(module.training)


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy of `module` whose batch norms have the mean and variance of what they see.

    Args:
        module: stays as it is.
        batches: normalised pictures (N, 3, H, W); all batches count alike.

    Raises `ConfigError` where there is no batch.
    """
    fresh = copy.deepcopy(module).eval()
    norms = [m for m in fresh.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    seen = 0
    for batch in batches:
        fresh(batch)
        seen += 1
    if not seen:
        raise ConfigError("statistics of batch norms need at least one batch of pictures")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return fresh.train(module.training)


def _replace(module: GraphModule, node: Node, slope: float) -> None:
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        if isinstance(layer, nn.ReLU6) and not _is_gate(node):
            module.set_submodule(str(node.target), LeakyReLU6(slope))
        elif isinstance(layer, nn.ReLU):
            module.set_submodule(str(node.target), nn.LeakyReLU(slope))
        elif isinstance(layer, nn.Hardswish | HardSwish):
            module.set_submodule(str(node.target), LeakyHardswish(slope))
    elif node.op == "call_function":
        function = node.target
        if function is F.relu6 and not _is_gate(node):
            function = leaky_relu6
        elif function in (F.relu, torch.relu):
            function = F.leaky_relu
        elif function is F.hardswish:
            function = leaky_hardswish
        else:
            return
        node.target, node.args, node.kwargs = function, (node.args[0], slope), {}


def _is_gate(node: Node) -> bool:
    source = node.args[0]
    return isinstance(source, Node) and source.target is operator.add and 3 in source.args
