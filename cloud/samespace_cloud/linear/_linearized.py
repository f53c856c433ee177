"""A network linearised in its weights: f_lin(x; w) = f(x; w0) + J(x; w0) (w - w0)."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from samespace_edge import ConfigError, Fingerprint

with warnings.catch_warnings():
    # Loaded on the first forward-mode product; it warns of torch.jit, which is torch's own affair.
    warnings.simplefilter("ignore")
    import torch._decomp.decompositions_for_jvp

Only = Callable[[str], bool] | Iterable[str]

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Linearized(nn.Module):
    """What `module` makes, to first order in its weights around those that it has now.

    The derivative is a forward-mode product, so the Jacobian is never built (LQF, Achille et al.
    2021, section 3). The parameters of this module are `tangent`, the difference w - w0, which
    starts at 0; w0 and the statistics of batch norms are buffers. Nothing inside is ever in
    training mode: a batch norm that saw the batch would not be linear in the weights.

    Args:
        module: any network of one tensor; it is copied, and stays as it is.
        only: which parameters get a tangent: a predicate on their names, or prefixes of names.
            By default all that require a gradient.

    Raises `ConfigError` where no parameter is left, for a prefix that none begins with, and for a
    batch norm without statistics.
    """

    def __init__(self, module: nn.Module, only: Only | None = None) -> None:
        super().__init__()
        wanted = _predicate(only)
        trained = [n for n, p in module.named_parameters() if p.requires_grad and wanted(n)]
        if not trained:
            raise ConfigError(
                f"no parameter of {type(module).__name__} is left to linearise; it has "
                f"{', '.join(n for n, _ in module.named_parameters()) or 'none'}. Choose others "
                "with 'only', or let them require a gradient"
            )
        _check_prefixes(only, [n for n, _ in module.named_parameters()])
        self.base = _frozen(module)
        self.names = tuple(trained)
        weights = self.weights()
        self.tangent = nn.ParameterDict(
            {_key(n): nn.Parameter(torch.zeros_like(weights[n])) for n in trained}
        )
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """As for any module, but `base` stays in eval mode."""
        super().train(mode)
        self.base.eval()
        return self

    def weights(self) -> dict[str, Tensor]:
        """w0 of what has a tangent, by name."""
        buffers = dict(self.base.named_buffers())
        return {name: buffers[name] for name in self.names}

    def tangents(self) -> dict[str, Tensor]:
        """The tangent w - w0, by the name of its parameter."""
        return {name: self.tangent[_key(name)] for name in self.names}

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, ...) to outputs (N, K)."""
        value, change = self.streams(x)
        return value + change

    def streams(
        self, x: Tensor, tangent: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the network makes of `x` at w0, and J(x; w0) times a tangent; (N, K) each.

        Args:
            x: (N, ...).
            tangent: by name, as `tangents`; by default the module's own.

        Raises `ConfigError` that names the submodule with an operation that has no forward-mode
        derivative.
        """
        tangent = self.tangents() if tangent is None else dict(tangent)

        def run(weights: dict[str, Tensor]) -> Any:
            return functional_call(self.base, weights, (x,))

        try:
            value: Tensor
            change: Tensor
            value, change, *_ = jvp(run, (self.weights(),), (tangent,))
        except RuntimeError as error:
            raise self._explained(error, x, run, tangent) from error
        return value, change

    def _explained(
        self, error: RuntimeError, x: Tensor, run: Callable[..., Any], tangent: dict[str, Tensor]
    ) -> Exception:
        with torch.no_grad():
            self.base(x)  # what fails without a derivative too fails here, in its own words
        path = ""
        with _running(self.base) as stack:
            try:
                jvp(run, (self.weights(),), (tangent,))
            except RuntimeError:
                path = stack[-1] if stack else ""
        where = f"{path or 'the network itself'} ({type(self.base.get_submodule(path)).__name__})"
        return ConfigError(
            f"an operation of {where} has no forward-mode derivative: {error}. Replace it with one "
            "that has, or linearise only what runs behind it (only=...)"
        )

    def culprit(self, x: Tensor) -> str:
        """The submodule without submodules whose forward-mode derivative autograd cannot go through
        for inputs `x`, or the network itself."""
        seen: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {}
        hooks = []
        for path, part in self.base.named_modules():
            if next(part.children(), None) is None:

                def note(m: nn.Module, given: tuple[Any, ...], path: str = path) -> None:
                    seen[path] = (m, given)

                hooks.append(part.register_forward_pre_hook(note))
        try:
            with torch.no_grad():
                self.base(x)
        finally:
            for hook in hooks:
                hook.remove()
        for path, (part, given) in seen.items():
            ones = tuple(torch.ones_like(g).requires_grad_() for g in given)
            try:
                change: Tensor = jvp(part, given, ones)[1]
                torch.autograd.grad(change.sum(), ones)
            except RuntimeError:
                return f"{path} ({type(part).__name__})"
        return f"the network itself ({type(self.base).__name__})"

    @property
    def fingerprint(self) -> Fingerprint:
        """The identity of w0: sha256 over all weights and statistics by name."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.base.state_dict().items()):
            if name.endswith("num_batches_tracked"):  # a counter of training, not a weight
                continue
            array = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return Fingerprint(digest.hexdigest())


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """One vector (P,) of all numbers, in the mapping's order."""
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The opposite of `flatten`: views of `vector` (P,), shaped as `like`."""
    parts = torch.split(vector, [t.numel() for t in like.values()])
    return {n: p.view(t.shape) for (n, t), p in zip(like.items(), parts, strict=True)}


@torch.no_grad()
def set_tangent(model: Linearized, vector: Tensor) -> None:
    """Let the tangent of `model` be `vector` (P,), as `flatten` has it."""
    own = model.tangents()
    for name, value in unflatten(vector, own).items():
        own[name].copy_(value)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a parameter's own name has no dot


def _predicate(only: Only | None) -> Callable[[str], bool]:
    if only is None:
        return lambda name: True
    if callable(only):
        return only
    prefixes = (only,) if isinstance(only, str) else tuple(only)
    return lambda name: any(name == p or name.startswith(p.rstrip(".") + ".") for p in prefixes)


def _check_prefixes(only: Only | None, names: list[str]) -> None:
    if only is None or callable(only):
        return
    for prefix in (only,) if isinstance(only, str) else tuple(only):
        if not any(map(_predicate((prefix,)), names)):
            raise ConfigError(
                f"no parameter's name begins with {prefix!r} (only); there are {len(names)}, from "
                f"{names[0]} to {names[-1]}"
            )


def _frozen(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose parameters are buffers; what was shared stays shared."""
    frozen = copy.deepcopy(module).eval()
    seen: dict[int, Tensor] = {}
    for path, part in frozen.named_modules():
        if isinstance(part, _BATCH_NORM) and part.running_mean is None:
            raise ConfigError(
                f"{path} ({type(part).__name__}) keeps no statistics, so what a picture gives "
                "depends on the others of its batch; build it with track_running_stats=True"
            )
        for name, parameter in list(part._parameters.items()):
            del part._parameters[name]
            shared = None
            if parameter is not None:
                shared = seen.setdefault(id(parameter), parameter.detach())
            part.register_buffer(name, shared)
    return frozen


@contextmanager
def _running(module: nn.Module) -> Iterator[list[str]]:
    """The paths of the submodules that are running, the innermost last."""
    stack: list[str] = []
    hooks = []
    for path, part in module.named_modules():

        def enter(*_: Any, path: str = path) -> None:
            stack.append(path)

        def leave(*_: Any) -> None:
            stack.pop()

        hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()
