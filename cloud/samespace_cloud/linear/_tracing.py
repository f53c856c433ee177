"""A network as a graph of layers and functions, whatever the size of its input."""

from __future__ import annotations

from torch import nn
from torch.fx import Graph, Tracer

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

    Raises `ConfigError` where what the network does depends on what it sees.
    """
    try:
        # They compute with shapes, which a graph for all sizes cannot.
        return _Tracer(autowrap_functions=(pad_same, shuffled)).trace(module)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{type(module).__name__} cannot be traced by torch.fx: {error}. Write it without "
            "branches that depend on tensors or their shapes"
        ) from error
