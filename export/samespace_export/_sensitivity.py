"""Which layers int8 costs most, measured, and which of them stay in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge import ConfigError

FLOAT_SHARE = 0.10
"""Largest share of the arithmetic that stays in float."""

# Layers that a refusal names.
_NAMED = 5


@dataclass(frozen=True)
class LayerError:
    """One layer of the sweep.

    Attributes:
        layer: its module path.
        macs: its multiply-accumulates for one picture.
        error: mean of 1 - cosine to the fp32 file's vectors with this layer alone in int8.
    """

    layer: str
    macs: int
    error: float


@dataclass(frozen=True)
class Quantization:
    """How an int8 file came about; kept in the bundle as `quantization.json`.

    Attributes:
        variant: which file.
        pictures: how many calibration pictures there were.
        percentile: the one that was used, of `percentile_errors`.
        percentile_errors: mean of 1 - cosine on the pictures kept back, all layers in int8, for
            every percentile that was tried.
        layers: the sensitivity sweep, in the order in which the layers run.
        keep_float: layers that stay in float.
        error: mean of 1 - cosine on the pictures kept back, of the finished file, in exact
            arithmetic.
    """

    variant: str
    pictures: int
    percentile: float
    percentile_errors: Mapping[float, float]
    layers: Sequence[LayerError]
    keep_float: Sequence[str]
    error: float

    def to_json(self) -> dict[str, Any]:
        """As it stands in `quantization.json`."""
        value = asdict(self)
        value["percentile_errors"] = {str(p): e for p, e in self.percentile_errors.items()}
        return value


def mean_error(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Mean of 1 - cosine between the rows of two arrays of unit vectors (N, D)."""
    return float(1 - (vectors.astype(np.float64) * reference).sum(1).mean())


def refuse_large_error(quantization: Quantization, largest: float) -> None:
    """Raise `ConfigError`, with the layers that cause most of it, for an error above `largest`."""
    if quantization.error <= largest:
        return
    in_int8 = [x for x in quantization.layers if x.layer not in quantization.keep_float]
    worst = sorted(in_int8, key=lambda x: -x.error)[:_NAMED]
    named = ", ".join(f"{x.layer} ({x.error:.2g})" for x in worst)
    raise ConfigError(
        f"{quantization.variant} departs from the fp32 file by {quantization.error:.2g} (mean of "
        f"1 - cosine on the calibration pictures kept back), and {largest:g} is allowed. Searches "
        f"with it would find other things. The layers that cost most by themselves: {named}. "
        "Give more or other calibration pictures, fine-tune for int8 ('samespace train int8'), "
        "ship another precision, or raise Calibration.largest_error."
    )


def float_ends(layers: Sequence[LayerError], share: float = FLOAT_SHARE) -> tuple[str, ...]:
    """Layers to keep in float: from the graph's two ends inwards, as long as a layer causes a
    larger share of the error than it has of the arithmetic, up to `share` of the arithmetic.

    Only the ends, because a float layer between int8 layers costs two conversions in every
    runtime, and onnxruntime quantises the weights of such an island by itself, per tensor, which
    is worse than what the island was to prevent.
    """
    error = sum(layer.error for layer in layers) or 1.0
    macs = sum(layer.macs for layer in layers) or 1
    left = share * macs
    kept: set[str] = set()
    for order in (layers, layers[::-1]):
        for layer in order:
            if layer.error / error <= layer.macs / macs or layer.macs > left:
                break
            kept.add(layer.layer)
            left -= layer.macs
    return tuple(layer.layer for layer in layers if layer.layer in kept)
