"""What a module has to be to be exported, and how it is held meanwhile."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from samespace_edge import ConfigError

_WRAP = (
    "An exported module returns one float32 tensor (N, D). Wrap it in a module whose forward "
    "returns {pick}"
)


@contextmanager
def ready(module: nn.Module) -> Iterator[nn.Module]:
    """Lend a module on the CPU in eval mode. Afterwards it is in the mode that it was in.

    A module with tensors on other devices is copied, and stays where it is.

    Raises `ConfigError` for parameters that are not float32.
    """
    for name, tensor in module.named_parameters():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ConfigError(
                f"{name} of the module is {str(tensor.dtype).removeprefix('torch.')}; modules are "
                "exported in float32. Give copy.deepcopy(module).float(); the target onnx-fp16 "
                "makes a file in half precision of it"
            )
    if any(t.device.type != "cpu" for t in (*module.parameters(), *module.buffers())):
        module = copy.deepcopy(module).cpu()
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield module.eval()
    finally:
        for part, is_training in modes:
            part.training = is_training


@torch.no_grad()
def embedding_width(module: nn.Module, height: int, width: int) -> int:
    """Return the width of a module's embeddings, from running it on two pictures.

    Raises `ConfigError` where it fails, or does not return one tensor float32 (2, D).
    """
    pictures = torch.zeros(2, 3, height, width)
    try:
        made = module(pictures)
    except Exception as error:  # whatever the module's own code raises
        raise ConfigError(
            f"the module fails on float32 pictures {tuple(pictures.shape)}, normalised, channels "
            f"first: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, Tensor):
        raise ConfigError(f"the module returns {_described(made)}. {_how_to_wrap(made)}")
    if made.dtype != torch.float32:
        kind = str(made.dtype).removeprefix("torch.")
        raise ConfigError(f"the module returns {kind}. {_WRAP.format(pick='its result.float()')}")
    if made.ndim != 2 or len(made) != 2:
        raise ConfigError(
            f"the module makes {tuple(made.shape)} of 2 pictures; an embedding model makes "
            "(2, D). Leave out what follows the pooled features, such as a classifier's list."
        )
    return int(made.shape[1])


def _parts(made: Any) -> dict[str, Any]:
    """What an object holds, by the Python that picks it."""
    if isinstance(made, Mapping):
        return {f"[{key!r}]": value for key, value in made.items()}
    if dataclasses.is_dataclass(made):
        return {f".{f.name}": getattr(made, f.name) for f in dataclasses.fields(made)}
    if isinstance(made, tuple) and hasattr(made, "_fields"):
        return {f".{name}": getattr(made, name) for name in made._fields}
    if isinstance(made, tuple | list):
        return {f"[{i}]": value for i, value in enumerate(made)}
    return {}


def _described(made: Any) -> str:
    shown = [
        f"{pick} {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
        for pick, value in _parts(made).items()
    ]
    kind = type(made).__name__
    return f"a {kind} with {', '.join(shown)}" if shown else f"a {kind}"


def _how_to_wrap(made: Any) -> str:
    fits = [p for p, v in _parts(made).items() if isinstance(v, Tensor) and v.ndim == 2]
    return _WRAP.format(pick=f"its result{fits[0]}" if fits else "the pooled features alone")
