"""A linearised network as an ordinary one, which any runtime can run."""

from __future__ import annotations

from operator import attrgetter

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from samespace_cloud.linear._layers import LAYERS, Applied, Constant
from samespace_cloud.linear._linearized import Linearized
from samespace_cloud.linear._rules import FUNCTIONS, METHODS, Streams
from samespace_cloud.linear._tracing import traced
from samespace_edge import ConfigError


class TwoStream(nn.Module):
    """Value and derivative in one plain forward pass: f(x; w0) + J(x; w0) (w - w0).

    Every layer carries the value and its derivative along the tangent side by side (Tangent Model
    Composition, Liu, Soatto 2023): no autograd, no torch.func, only operations that any network
    has, so it exports. A convolution becomes three, fewer where `only` left the tangent out.
    It holds the tangent that the linearised network has when this is made. torch.fx takes `y += x`
    for y = y + x: a network that also uses y under another name then has another value here.

    Raises `ConfigError` that names a layer or operation without a rule.
    """

    def __init__(self, linearized: Linearized) -> None:
        super().__init__()
        graph = traced(linearized.base)
        root = nn.Module()
        # The nodes and edges stay; each node becomes its rule, each tensor on an edge a pair.
        for node in graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            rule = _rule(node, linearized)
            path = str(node.target) if node.op == "call_module" else f"operations.{node.name}"
            _put(root, path, rule)
            node.op, node.target = "call_module", path
        self.network = GraphModule(root, graph)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        made: Streams = self.network(Streams(x, None))
        return made.value if made.change is None else made.value + made.change


def _rule(node: Node, linearized: Linearized) -> nn.Module:
    # By the tensor and not by its name: a weight that layers share has one of their names.
    names = {id(weight): name for name, weight in linearized.weights().items()}
    tangents = {name: t.detach() for name, t in linearized.tangents().items()}
    if node.op == "call_module":
        path = str(node.target)
        layer = linearized.base.get_submodule(path)
        make = LAYERS.get(type(layer))
        if make is None:
            raise _without_rule(f"the layer {path!r} ({type(layer).__name__})")
        own = {n: tangents[names[id(w)]] for n, w in layer.named_buffers() if id(w) in names}
        made: nn.Module = make(layer, own)
        return made
    if node.op == "get_attr":
        value = attrgetter(str(node.target))(linearized.base)
        return Constant(value, tangents[names[id(value)]] if id(value) in names else None)
    if node.op == "call_method":
        if node.target not in METHODS:
            raise _without_rule(f"the method {str(node.target)!r} of a tensor")
        return Applied(METHODS[str(node.target)])
    assert callable(node.target)
    if node.target not in FUNCTIONS:
        raise _without_rule(f"the function {getattr(node.target, '__name__', node.target)!r}")
    return Applied(FUNCTIONS[node.target], node.target)


def _without_rule(what: str) -> ConfigError:
    return ConfigError(
        f"{what} has no rule for its derivative, so the network cannot be written in two streams; "
        "use another, or add a row to the tables in samespace_cloud/linear/_rules.py and _layers.py"
    )


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    *above, name = path.split(".")
    place = root
    for part in above:
        if not hasattr(place, part):
            place.add_module(part, nn.Module())
        place = place.get_submodule(part)
    place.add_module(name, module)
