"""K-FAC: the curvature of each layer as a Kronecker product, and its inverse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.linear._linearized import Linearized, unflatten
from samespace_cloud.linear._problem import LeastSquares, batches
from samespace_edge import ConfigError

Layer = nn.Conv2d | nn.Linear | nn.BatchNorm2d
_BATCH = 32
_CHUNK = 1 << 24  # numbers of patches that are held at once


class KFAC:
    """An approximate inverse of a least-squares problem's constant Hessian.

    The Hessian is 2 (J^T W J + penalty). For a layer with inputs a and outputs s, J^T W J is
    sum_i (a_i a_i^T) (x) (sum_k w_ik g_ik g_ik^T) with g_ik the derivative of output k by s; K-FAC
    takes A (x) G of the means of either (Martens, Grosse 2015, section 3). In a convolution the
    positions are either summed as if they were independent, `expand` (KFC, Grosse, Martens 2016),
    or averaged first, `reduce` (Eschenhagen et al. 2023, section 3), which is cheaper, and nearer
    where the network ends in a pooling. a is what the layer sees in
    the network at w0, the value stream; so is g, and neither ever changes: one estimate serves a
    whole training. The groups of a grouped or depthwise convolution have factors of their own.
    Scales and shifts of batch norms have the exact diagonal.

    Args:
        model: its parameters may belong to Conv2d, Linear and BatchNorm2d.
        problem: the factors are estimated from its pictures.
        damping: added to each layer's curvature, as a share of its mean eigenvalue, beside the
            penalty.
        correction: `pi` splits the damping between the factors by their sizes (Martens, Grosse
            2015, section 6.3); `exact` adds it to their product, by their eigenvectors.
        spatial: see above.
        draws: random directions in which the outputs' curvature is sampled, at one backward pass
            each; 0 takes every output in turn, which is exact.
        pictures: how many to estimate from, evenly spread; 0 takes all.
        seed: of the directions.

    Raises `ConfigError` for parameters of other layers.
    """

    def __init__(
        self,
        model: Linearized,
        problem: LeastSquares,
        damping: float = 1e-2,
        correction: Literal["pi", "exact"] = "pi",
        spatial: Literal["expand", "reduce"] = "reduce",
        draws: int = 0,
        pictures: int = 0,
        seed: int = 0,
    ) -> None:
        self._shapes = model.weights()
        layers = _layers(model)
        factors = {path: _Factors(layer, names) for path, (layer, names) in layers.items()}
        rows = _spread(len(problem), pictures)
        part = problem.part(rows)
        generator = torch.Generator().manual_seed(seed)
        for some in batches(len(part), _BATCH):
            seen = _probed(model, {p: row[0] for p, row in layers.items()}, part.inputs[some])
            for path, a in seen.inputs.items():
                factors[path].see(a, spatial)
            for direction in _directions(part.weights[some], draws, generator):
                grads = torch.autograd.grad(
                    seen.outputs, list(seen.probes.values()), direction, retain_graph=True
                )
                for path, g in zip(seen.probes, grads, strict=True):
                    factors[path].answer(seen.inputs[path], g, spatial)
        if idle := [path for path in layers if path not in seen.inputs]:
            raise ConfigError(
                f"the layer {idle[0]!r} does not run, so K-FAC has no factors for it; leave it out "
                "(only=...)"
            )
        scale = len(problem) / len(part)
        self._blocks = [
            f.inverse(scale, len(part), problem.penalty, damping, correction)
            for f in factors.values()
        ]

    @torch.no_grad()
    def __call__(self, gradient: Tensor) -> Tensor:
        """The inverse times a gradient (P,): with the exact Hessian, Newton's step."""
        parts = unflatten(gradient, self._shapes)
        found: dict[str, Tensor] = {}
        for block in self._blocks:
            found |= block(parts)
        return torch.cat([found[name].reshape(-1) for name in self._shapes])


class _Factors:
    """What is summed up of one layer: A and G (groups, d, d), or a diagonal."""

    def __init__(self, layer: Layer, names: Mapping[str, str]) -> None:
        self._layer = layer
        self._names = names  # weight and bias, as far as they have a tangent
        self._a: Tensor | None = None
        self._g: Tensor | None = None
        self._diagonal: dict[str, Tensor] = {}

    def see(self, a: Tensor, spatial: str) -> None:
        """Inputs of the layer."""
        if isinstance(self._layer, nn.BatchNorm2d):
            return
        # Few pictures at a time: the patches of a kernel are many times the picture.
        area = math.prod(self._layer.kernel_size) if isinstance(self._layer, nn.Conv2d) else 1
        for rows in batches(len(a), max(1, _CHUNK // (a[0].numel() * area))):
            x = _patches(self._layer, a[rows], set(self._names))
            x = x.mean(-1, keepdim=True) if spatial == "reduce" else x
            self._a = _grown(self._a, _gram(x) / x.shape[-1])

    def answer(self, a: Tensor, g: Tensor, spatial: str) -> None:
        """Derivatives of a direction's outputs by the layer's outputs."""
        if isinstance(self._layer, nn.BatchNorm2d):
            rows = {
                "weight": (g * _standardised(self._layer, a)).sum((2, 3)),
                "bias": g.sum((2, 3)),
            }
            for kind in self._names:
                now = rows[kind].square().sum(0).double()
                self._diagonal[kind] = self._diagonal.get(kind, 0) + now
            return
        y = g.reshape(len(g), _groups(self._layer), -1, _positions(self._layer, g))
        y = y.sum(-1, keepdim=True) if spatial == "reduce" else y
        self._g = _grown(self._g, _gram(y))

    def inverse(
        self, scale: float, pictures: int, penalty: float, damping: float, correction: str
    ) -> _Block | _Diagonal:
        """The damped inverse of this layer's block of the Hessian."""
        if self._a is None or self._g is None:
            inverse = {}
            for kind, row in self._diagonal.items():
                h = scale * row
                inverse[self._names[kind]] = (0.5 / (h + penalty + damping * h.mean())).float()
            return _Diagonal(inverse)
        a_values, a_vectors = torch.linalg.eigh(self._a / pictures)
        g_values, g_vectors = torch.linalg.eigh(scale * self._g)
        a_values, g_values = a_values.clamp_min(0), g_values.clamp_min(0)
        a_mean, g_mean = a_values.mean(-1), g_values.mean(-1)
        gamma = penalty + damping * a_mean * g_mean
        a_row, g_row = a_values[:, None, :], g_values[:, :, None]
        if correction == "exact":
            values = a_row * g_row + gamma[:, None, None]
        else:
            pi = (a_mean / g_mean.clamp_min(1e-30)).clamp(1e-6, 1e6).sqrt()
            root = gamma.sqrt()
            values = (a_row + (pi * root)[:, None, None]) * (g_row + (root / pi)[:, None, None])
        return _Block(self._names, a_vectors.float(), g_vectors.float(), (0.5 / values).float())


@dataclass(frozen=True)
class _Block:
    """The inverse of a Kronecker product, by its eigenvectors: (groups, d, d) and (groups, o, o),
    and the inverse eigenvalues (groups, o, d)."""

    names: Mapping[str, str]
    a: Tensor
    g: Tensor
    inverse: Tensor

    def __call__(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        groups, outputs, _ = self.inverse.shape
        kinds = [kind for kind in ("weight", "bias") if kind in self.names]
        own = [gradient[self.names[kind]].reshape(groups, outputs, -1) for kind in kinds]
        matrix = torch.cat(own, dim=2)
        found = self.g @ ((self.g.mT @ matrix @ self.a) * self.inverse) @ self.a.mT
        parts = torch.split(found, [part.shape[2] for part in own], dim=2)
        return {self.names[kind]: part for kind, part in zip(kinds, parts, strict=True)}


@dataclass(frozen=True)
class _Diagonal:
    """Inverse curvatures by parameter name."""

    inverse: Mapping[str, Tensor]

    def __call__(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: row * gradient[name] for name, row in self.inverse.items()}


@dataclass(frozen=True)
class _Probed:
    """A batch on its way through the network at w0.

    Attributes:
        inputs: of each layer, by path.
        probes: zeros that were added to each layer's output, to take derivatives by.
        outputs: (N, K).
    """

    inputs: dict[str, Tensor]
    probes: dict[str, Tensor]
    outputs: Tensor


def _probed(model: Linearized, layers: Mapping[str, Layer], x: Tensor) -> _Probed:
    inputs: dict[str, Tensor] = {}
    probes: dict[str, Tensor] = {}
    hooks = []
    for path, layer in layers.items():

        def probe(_: nn.Module, given: tuple[Tensor], made: Tensor, path: str = path) -> Tensor:
            if path in inputs:
                raise ConfigError(f"the layer {path!r} runs twice, which K-FAC has no factors for")
            inputs[path] = given[0].detach()
            probes[path] = torch.zeros_like(made).requires_grad_()
            return made + probes[path]

        hooks.append(layer.register_forward_hook(probe))
    try:
        outputs = model.base(x)
    finally:
        for hook in hooks:
            hook.remove()
    return _Probed(inputs, probes, outputs)


def _layers(model: Linearized) -> dict[str, tuple[Layer, dict[str, str]]]:
    """The layers with tangents by path, and the names of their `weight` and `bias`."""
    found: dict[str, tuple[Layer, dict[str, str]]] = {}
    for name in model.names:
        path, _, kind = name.rpartition(".")
        layer = model.base.get_submodule(path)
        if not isinstance(layer, Layer) or getattr(layer, "padding_mode", "zeros") != "zeros":
            raise ConfigError(
                f"K-FAC has no factors for {name!r} of {type(layer).__name__}; it has for Conv2d "
                "padded with zeros, Linear and BatchNorm2d. Solve by cg, sgd or adam, or leave it "
                "out (only=...)"
            )
        found.setdefault(path, (layer, {}))[1][kind] = name
    return found


def _directions(weights: Tensor, draws: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Vectors (N, K) whose outer products sum, or average, to diag(weights) of each picture."""
    root = weights.sqrt()
    if draws == 0:
        for k in range(weights.shape[1]):
            one = torch.zeros_like(root)
            one[:, k] = root[:, k]
            yield one
    for _ in range(draws):
        signs = torch.randint(2, root.shape, generator=generator).to(root.device) * 2 - 1
        yield root * signs / math.sqrt(draws)


def _patches(layer: nn.Conv2d | nn.Linear, x: Tensor, kinds: set[str]) -> Tensor:
    """What each output position reads: (N, groups, d, positions), a row of ones for a bias."""
    parts = []
    if isinstance(layer, nn.Linear):
        x = x.reshape(len(x), 1, -1, x.shape[-1]).mT
    else:
        if layer.kernel_size != (1, 1) or layer.stride != (1, 1) or layer.padding != (0, 0):
            if isinstance(layer.padding, str):
                raise ConfigError(f"K-FAC needs the padding in pixels, not {layer.padding!r}")
            x = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        x = x.reshape(len(x), layer.groups, -1, x.flatten(2).shape[-1])
    if "weight" in kinds:
        parts.append(x)
    if "bias" in kinds:
        parts.append(torch.ones_like(x[:, :, :1]))
    return torch.cat(parts, dim=2)


def _gram(x: Tensor) -> Tensor:
    """sum of x x^T over pictures and positions: (N, groups, d, T) to float64 (groups, d, d)."""
    rows = x.permute(1, 2, 0, 3).flatten(2)
    return (rows @ rows.mT).double()


def _standardised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, eps=norm.eps)


def _grown(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part


def _groups(layer: Layer) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _positions(layer: Layer, g: Tensor) -> int:
    return g[0, 0].numel() if isinstance(layer, nn.Conv2d) else g[0].numel() // g.shape[-1]


def _spread(count: int, wanted: int) -> Tensor:
    """`wanted` places of 0 to count - 1, evenly spread; all for 0."""
    if wanted in (0, count) or wanted > count:
        return torch.arange(count)
    return torch.linspace(0, count - 1, wanted).round().long()
