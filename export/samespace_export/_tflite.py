"""torch module -> TFLite files, uint8 pictures in and unit vectors out."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from samespace_edge._runtimes import INPUT
from samespace_export._calibration import Calibration, Ranges, measure_ranges
from samespace_export._deployed import Deployed
from samespace_export._quiet import quiet
from samespace_export._scales import LEVELS, weight_scales

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_ROOT = f"{Deployed.__module__}.{Deployed.__qualname__}"


Scales = Mapping[str, NDArray[np.float32]]
"""By the name of a weight tensor: the scale of every output channel, in a shape that multiplies the
weight, such as (O, 1, 1, 1)."""


def to_tflite(deployed: Deployed, height: int, width: int) -> bytes:
    """The TFLite file (batch of 1) of a deployed model."""
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        import litert_torch

        file = Path(folder) / "model.tflite"
        litert_torch.convert(deployed, sample_kwargs={INPUT: example}).export(str(file))
        return file.read_bytes()


def to_fp16(fp32: bytes) -> bytes:
    """The same file with weights in fp16, which runtimes widen or use as they are."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName as Op

    quantizer = _quantizer(fp32)
    quantizer.add_weight_only_config(
        ".*", Op.ALL_SUPPORTED, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
    )
    return _finish(quantizer)


def to_dynamic(fp32: bytes) -> bytes:
    """Weights in int8; activations become int8 picture by picture, while the graph runs."""
    from ai_edge_quantizer.qtyping import TFLOperationName as Op

    quantizer = _quantizer(fp32)
    quantizer.add_dynamic_config(".*", Op.ALL_SUPPORTED, num_bits=8)
    # tflite-runtime 2.14 takes the first channel's scale for all channels of a fully connected
    # layer that is computed like this, without a word; weights that are widened first are safe.
    quantizer.add_weight_only_config(".*", Op.FULLY_CONNECTED, num_bits=8)
    return _finish(quantizer)


def to_int8(
    fp32: bytes,
    ranges: Ranges,
    scales: Scales,
    keep_float: Collection[str] = (),
    only: str | None = None,
) -> bytes:
    """Return the file with weights (per channel) and activations (per tensor) in int8.

    Pixels and L2 stay in float.

    Args:
        ranges: of every tensor, from `tflite_ranges`.
        scales: of the weights, from `tflite_scales`.
        keep_float: scopes of layers (see `tflite_layers`) that stay in fp32.
        only: quantise the layer of this scope alone, for the sensitivity sweep.
    """
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName as Op

    quantizer = _quantizer(fp32)
    every = ".*" if only is None else re.escape(only)
    quantizer.add_static_config(every, Op.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    spared = [(".*", Op.INPUT), (".*", Op.OUTPUT)]
    spared += [(re.escape(scope), Op.ALL_SUPPORTED) for scope in keep_float]
    if only is None:
        outside = _outside(fp32, keep_float)
        spared += [(f"^{re.escape(name)};?$", Op.ALL_SUPPORTED) for name in outside]
    for pattern, operation in spared:
        quantizer.update_quantization_recipe(
            pattern, operation, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    shaped = {}
    for detail in _interpreter(fp32).get_tensor_details():
        if detail["name"] in ranges:
            ends = ranges[detail["name"]]
            low, high = (np.full((1,) * len(detail["shape"]), end, np.float32) for end in ends)
            shaped[detail["name"]] = {"min": low, "max": high}
    shaped |= {name: {"min": -LEVELS * s, "max": LEVELS * s} for name, s in scales.items()}
    return _finish(quantizer, shaped)


def tflite_layers(deployed: Deployed, fp32: bytes) -> dict[str, str]:
    """Layers with weights by module path, in the model's order, and the scope of each in the file:
    the part of its output tensor's name that no other layer's has."""
    outputs = [d["name"] for d in _interpreter(fp32).get_tensor_details()]
    found: dict[str, str] = {}
    for path, module in deployed.module.named_modules(prefix="module"):
        if isinstance(module, _LAYERS):
            scope = _scope(deployed, path)
            if any(scope in name for name in outputs):
                found[path.removeprefix("module").removeprefix(".")] = scope
    return found


def tflite_scales(fp32: bytes) -> Scales:
    """Return the scales of all weights: their largest value, or the grid on which they lie."""
    interpreter = _interpreter(fp32)
    names = {d["index"]: str(d["name"]) for d in interpreter.get_tensor_details()}
    found = {}
    for op in interpreter._get_ops_details():
        if op["op_name"] not in _WEIGHTED or op["op_name"] == "TRANSPOSE_CONV":
            continue
        index = int(op["inputs"][1])
        weight = interpreter.get_tensor(index)
        axis = weight.ndim - 1 if op["op_name"] == "DEPTHWISE_CONV_2D" else 0
        rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        scales = weight_scales(rows, paired=False).reshape(shape)
        found[names[index]] = scales.astype(np.float32)
    return found


def tflite_ranges(fp32: bytes, calibration: Calibration) -> dict[float, Ranges]:
    """The range of every float tensor over the calibration pictures, by percentile."""
    with quiet():
        interpreter = _interpreter(fp32, experimental_preserve_all_tensors=True)
    ((signature, _),) = interpreter.get_signature_list().items()
    run = interpreter.get_signature_runner(signature)
    # Not the weights: given a range for the whole tensor, they would not be scaled per channel.
    made = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}
    details = [
        d
        for d in interpreter.get_tensor_details()
        if d["dtype"] == np.float32 and d["index"] in made
    ]

    def values() -> Iterator[dict[str, NDArray[np.float32]]]:
        for picture in calibration.for_ranges:
            run(**{INPUT: picture[None]})
            found = {}
            for detail in details:
                # Tensors inside a delegate hold nothing that could be read.
                with contextlib.suppress(ValueError):
                    array = interpreter.get_tensor(detail["index"])
                    if array.size:
                        found[detail["name"]] = array
            yield found

    return measure_ranges(values(), calibration.percentiles)


def _outside(fp32: bytes, keep_float: Collection[str]) -> list[str]:
    """Outputs of operations before the first layer in int8 and behind the last one: at least the
    pixels and the L2 normalisation."""
    interpreter = _interpreter(fp32)
    names = {d["index"]: str(d["name"]) for d in interpreter.get_tensor_details()}
    # The last entry is the delegate that XNNPACK put in the place of the others.
    operations = [op for op in interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]
    outputs = [names[int(op["outputs"][0])] for op in operations]
    inside = [
        i
        for i, op in enumerate(operations)
        if op["op_name"] in _WEIGHTED and not any(scope in outputs[i] for scope in keep_float)
    ]
    return [*outputs[: inside[0]], *outputs[inside[-1] + 1 :]] if inside else outputs


def _scope(deployed: Deployed, path: str) -> str:
    parts, module = [_ROOT], deployed.get_submodule("")
    for name in path.split("."):
        module = module.get_submodule(name)
        parts.append(f"{type(module).__module__}.{type(module).__qualname__}_{name}")
    return "/".join(parts) + ";"


def _interpreter(content: bytes, **options: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1, **options)
    interpreter.allocate_tensors()
    return interpreter


def _quantizer(fp32: bytes) -> Any:
    with quiet():
        from ai_edge_quantizer.quantizer import Quantizer

        return Quantizer(fp32)


def _finish(quantizer: Any, ranges: Mapping[str, Any] | None = None) -> bytes:
    with quiet():
        result = quantizer.quantize(ranges, enable_progress_report=False)
    return bytes(result.quantized_model)
