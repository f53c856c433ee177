"""A network as a graph of layers and functions, whatever the size of its input."""

from __future__ import annotations

import operator

import torch.nn.functional as F
from torch import nn
from torch.fx import Graph, Node, Tracer

from samespace_cloud.families.layers import pad_same
from samespace_cloud.families.mobilenet_v3 import HardSwish
from samespace_cloud.families.shuffle import shuffled
from samespace_cloud.linear._activations import LEAKY
from samespace_edge import ConfigError

_WHOLE = (HardSwish, *LEAKY)


class _Tracer(Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _WHOLE) or super().is_leaf_module(m, module_qualified_name)


def traced(module: nn.Module) -> Graph:
    """The graph of `module`, by torch.fx; layers of `torch.nn` are nodes of their own.

    Raises `ConfigError` where what the network does depends on what it sees, or where a tensor is
    used again after it was overwritten.
    """
    try:
        # They compute with shapes, which a graph for all sizes cannot.
        graph = _Tracer(autowrap_functions=(pad_same, shuffled)).trace(module)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{type(module).__name__} cannot be traced by torch.fx: {error}. Write it without "
            "branches that depend on tensors or their shapes"
        ) from error
    _check_in_place(graph, module)
    return graph


def _check_in_place(graph: Graph, module: nn.Module) -> None:
    """Refuses what overwrites a tensor that is used again: in the graph it has its old value."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not node.args or not isinstance(node.args[0], Node) or not _overwrites(node, module):
            continue
        later = [user for user in node.args[0].users if place[user] > place[node]]
        if later or not node.users:
            raise ConfigError(
                f"{node.target} overwrites a tensor that is used again; write it without "
                "inplace=True, or without +="
            )


def _overwrites(node: Node, module: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if node.target is operator.iadd:
        return True
    second = node.target in (F.relu, F.relu6, F.silu, F.hardswish) and len(node.args) > 1
    return bool(node.kwargs.get("inplace", second and node.args[1]))
