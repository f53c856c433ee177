"""What an adapter computes: a centre, one or two matrices, a bias, and what a small net adds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samespace_edge._errors import ConfigError
from samespace_edge._tensors import Tensors

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AdapterLayers:
    """y = (x - centre) · linear + bias + residual(x - centre), all float32.

    Attributes:
        centre: (I,), the mean of what comes in.
        linear: one matrix (I, O), or the two factors (I, R), (R, O) of one of rank R.
        bias: (O,).
        residual: matrix and bias of every layer of a net from (I,) to (O,), with max(0, ·) between
            them; empty where there is none.

    Raises `ConfigError` for arrays that do not go together or hold NaN or infinity.
    """

    centre: Array
    linear: tuple[Array, ...]
    bias: Array
    residual: tuple[tuple[Array, Array], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.linear) <= 2:
            raise ConfigError(f"an adapter has one matrix or two factors, not {len(self.linear)}")
        own = {
            "centre": _own(self.centre),
            "linear": tuple(_own(m) for m in self.linear),
            "bias": _own(self.bias),
            "residual": tuple((_own(w), _own(b)) for w, b in self.residual),
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)
        for name, array in self.tensors().items():
            if array.ndim != (2 if _is_matrix(name) else 1):
                raise ConfigError(f"array {name!r} of an adapter cannot be {array.shape}")
            if not np.isfinite(array).all():
                raise ConfigError(f"array {name!r} of an adapter holds NaN or infinity")
        _chain("linear", [self.centre.size, *_ends(self.linear)], self.bias.size)
        if self.residual:
            widths = [self.centre.size, *_ends([w for w, _ in self.residual])]
            _chain("residual", widths, self.bias.size)
            for i, (weight, bias) in enumerate(self.residual):
                if weight.shape[1] != bias.size:
                    raise ConfigError(f"bias {i} of the residual is not as wide as its matrix")

    def __call__(self, x: Array) -> Array:
        """Map float32 (N, I) to float32 (N, O)."""
        x = x - self.centre
        y = x
        for matrix in self.linear:
            y = y @ matrix
        y = y + self.bias
        for i, (matrix, bias) in enumerate(self.residual):
            x = (np.maximum(x, 0) if i else x) @ matrix + bias
        return y + x if self.residual else y

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one vector; sums and biases are left out."""
        return sum(m.size for m in (*self.linear, *(w for w, _ in self.residual)))

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(array.size for array in self.tensors().values())

    @property
    def sha256(self) -> str:
        """Over every array by name: name, dtype, shape, bytes (little-endian)."""
        digest = hashlib.sha256()
        for name, array in sorted(self.tensors().items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.astype("<f4").tobytes())
        return digest.hexdigest()

    def tensors(self) -> dict[str, Array]:
        """The arrays by name, as they are written to a file."""
        named = {"centre": self.centre, "bias": self.bias}
        named |= {f"linear.{i}": m for i, m in enumerate(self.linear)}
        for i, (weight, bias) in enumerate(self.residual):
            named |= {f"residual.{i}.weight": weight, f"residual.{i}.bias": bias}
        return named

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> AdapterLayers:
        """The opposite of `tensors`; raises `ConfigError` for arrays that make no adapter."""
        try:
            layers = cls(
                tensors["centre"],
                tuple(tensors[f"linear.{i}"] for i in range(_count(tensors, "linear"))),
                tensors["bias"],
                tuple(
                    (tensors[f"residual.{i}.weight"], tensors[f"residual.{i}.bias"])
                    for i in range(_count(tensors, "residual"))
                ),
            )
        except KeyError as missing:
            raise ConfigError(f"array {missing} of an adapter is missing") from None
        if strange := sorted(set(tensors) - set(layers.tensors())):
            raise ConfigError(f"an adapter has no array {', '.join(strange)}")
        return layers


def _own(array: Array) -> Array:
    """A copy that nobody can write to."""
    copy = np.array(array, np.float32, order="C")
    copy.flags.writeable = False
    return copy


def _is_matrix(name: str) -> bool:
    return name.startswith("linear.") or name.endswith(".weight")


def _ends(matrices: Sequence[Array]) -> list[int]:
    return [n for matrix in matrices for n in matrix.shape]


def _chain(what: str, widths: Sequence[int], end: int) -> None:
    """Every matrix has to take what the one before it gives."""
    pairs = list(zip(widths[::2], [*widths[1::2]], strict=False))
    if any(a != b for a, b in pairs) or widths[-1] != end:
        raise ConfigError(
            f"the {what} part of an adapter does not lead from {widths[0]} to {end}: {widths}"
        )


def _count(tensors: Tensors, prefix: str) -> int:
    return len({name.split(".")[1] for name in tensors if name.startswith(f"{prefix}.")})
