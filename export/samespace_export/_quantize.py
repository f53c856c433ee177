"""fp32 file + real pictures -> int8 file, with the ranges and float layers that measured best."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from samespace_edge._runtimes import load_runtime
from samespace_export import _onnx, _tflite
from samespace_export._calibration import Calibration, Ranges
from samespace_export._deployed import Deployed
from samespace_export._exact import exact
from samespace_export._sensitivity import (
    LayerError,
    Quantization,
    float_ends,
    mean_error,
    refuse_large_error,
)

# Pictures that each step of the sweep is measured on: its differences are far above the noise.
_SWEEP_PICTURES = 64
# Pictures that the error of the finished file is measured on: exact arithmetic is slow.
_EXACT = 64


@dataclass(frozen=True)
class _Format:
    """What the quantisation of a format needs.

    Attributes:
        layers: what the format calls each layer with weights, by module path.
        ranges: of every tensor, by percentile.
        quantise: ranges, layers to keep in float, layer to quantise alone -> file.
        runtime: what runs the result.
    """

    layers: Mapping[str, str]
    ranges: Mapping[float, Ranges]
    quantise: Callable[[Ranges, Collection[str], str | None], bytes]
    runtime: str


def quantize(
    format_: str,
    fp32: bytes,
    deployed: Deployed,
    calibration: Calibration,
    macs: Mapping[str, int],
) -> tuple[bytes, Quantization]:
    """Return the int8 file, and how it came about.

    The sweep runs the fast kernels, which compute these files like every processor does. The error
    of the finished file is measured in exact arithmetic.

    Args:
        format_: `onnx` or `tflite`.
        fp32: the fp32 file of that format.
        macs: of every layer with weights, by module path; 0 for products of two activations.

    Raises `ConfigError` for a file whose error is above `calibration.largest_error`.
    """
    kind = _FORMATS[format_](fp32, deployed, calibration)
    judged = calibration.for_judging
    reference = load_runtime(kind.runtime, fp32, 1, ()).run(judged)

    def error(content: bytes, pictures: int = len(judged)) -> float:
        vectors = load_runtime(kind.runtime, content, 1, ()).run(judged[:pictures])
        return mean_error(vectors, reference[:pictures])

    tried = {p: error(kind.quantise(r, (), None)) for p, r in kind.ranges.items()}
    percentile = min(tried, key=lambda p: tried[p])
    ranges = kind.ranges[percentile]
    layers = [
        LayerError(path, macs.get(path, 0), error(kind.quantise(ranges, (), name), _SWEEP_PICTURES))
        for path, name in kind.layers.items()
    ]
    keep_float = float_ends(layers)
    content = kind.quantise(ranges, [kind.layers[path] for path in keep_float], None)
    found = Quantization(
        variant=f"{format_}-int8",
        pictures=len(calibration.pixels),
        percentile=percentile,
        percentile_errors=tried,
        layers=layers,
        keep_float=keep_float,
        error=mean_error(exact(format_, content)(judged[:_EXACT]), reference[:_EXACT]),
    )
    refuse_large_error(found, calibration.largest_error)
    return content, found


def _onnx_format(fp32: bytes, deployed: Deployed, calibration: Calibration) -> _Format:
    scales = _onnx.onnx_scales(fp32)
    return _Format(
        {layer: layer for layer in _onnx.onnx_layers(fp32)},
        _onnx.onnx_ranges(fp32, calibration),
        lambda ranges, keep, only: _onnx.to_int8(fp32, ranges, scales, keep, only),
        "onnxruntime",
    )


def _tflite_format(fp32: bytes, deployed: Deployed, calibration: Calibration) -> _Format:
    scales = _tflite.tflite_scales(fp32)
    return _Format(
        _tflite.tflite_layers(deployed, fp32),
        _tflite.tflite_ranges(fp32, calibration),
        lambda ranges, keep, only: _tflite.to_int8(fp32, ranges, scales, keep, only),
        "ai_edge_litert",
    )


_FORMATS: dict[str, Callable[[bytes, Deployed, Calibration], _Format]] = {
    "onnx": _onnx_format,
    "tflite": _tflite_format,
}
