"""Start an edge model from its cloud model's weights.

Both are built from the same blocks, so an edge model that has fewer of them, or narrower ones, or
a smaller input, finds its layers in the cloud model by name. Where a layer is narrower it takes
the leading channels, and of a larger kernel the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Inherited:
    """How much of a model came from another.

    Attributes:
        whole: tensors copied as they are.
        sliced: tensors of which the leading part was copied.
        fresh: tensors that the source does not have.
    """

    whole: int
    sliced: int
    fresh: int


def inherit(target: nn.Module, source: nn.Module) -> Inherited:
    """Copy into `target` what `source` has under the same names; says how much that was.

    Tensors that are larger in `target` than in `source` in some direction stay as they are.
    """
    theirs = source.state_dict()
    whole = sliced = fresh = 0
    with torch.no_grad():
        for name, own in target.state_dict().items():
            given = theirs.get(name)
            if given is None or given.dim() != own.dim() or not _fits(own, given):
                fresh += 1
                continue
            whole += given.shape == own.shape
            sliced += given.shape != own.shape
            own.copy_(given[_part(own, given)])
    return Inherited(whole, sliced, fresh)


def _part(own: Tensor, given: Tensor) -> tuple[slice, ...]:
    """Leading channels (the first two directions) and the centre of the kernel (the others)."""
    starts = [
        0 if i < 2 else (b - a) // 2
        for i, (a, b) in enumerate(zip(own.shape, given.shape, strict=True))
    ]
    return tuple(slice(start, start + size) for start, size in zip(starts, own.shape, strict=True))


def _fits(own: Tensor, given: Tensor) -> bool:
    return all(a <= b for a, b in zip(own.shape, given.shape, strict=True))
