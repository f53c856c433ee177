"""torch module -> ONNX files, uint8 pictures in and unit vectors out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samespace_edge._runtimes import INPUT, OUTPUT
from samespace_export._calibration import Calibration, Ranges, measure_ranges
from samespace_export._deployed import Deployed
from samespace_export._operators import kept_operators
from samespace_export._quiet import quiet
from samespace_export._scales import weight_scales

OPSET = 20

_LARGEST_HALF = float(np.finfo(np.float16).max)

# Layers with weights: what int8 speeds up, and what the sensitivity sweep looks at.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# These run in int8 between two int8 layers; alone they would only add conversions.
_BETWEEN = ("Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean")
# Merged into the layer before them, whose output then needs only the range that they leave.
_ACTIVATIONS = ("Clip", "Relu")


def to_onnx(deployed: Deployed, height: int, width: int) -> bytes:
    """The ONNX file (opset 20, dynamic batch) of a deployed model."""
    import onnx

    # A batch of 1 would be taken for a constant.
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with quiet(), kept_operators():
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter notes the Python source line of every node: a fifth of a small file, and
    # paths of the machine that exported it.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def to_fp16(fp32: bytes) -> bytes:
    """The same file with its weights in fp16, widened again when a runtime loads it.

    Arithmetic stays in fp32: few processors have any for fp16, and onnxruntime would convert to
    and fro around every operation, rounding each time.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(fp32)
    widening = []
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if initializer.data_type != TensorProto.FLOAT or not _halved(values):
            continue
        name = initializer.name
        half = np.clip(values, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        widening.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    nodes = [*widening, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _halved(values: NDArray[np.float32]) -> bool:
    """Whether a constant goes into fp16: weights. Not biases, which are few, and whose rounding
    moves all values of a channel the same way; not the constants of pixels and L2."""
    return values.ndim >= 2 and values.size >= 64


Scales = Mapping[str, tuple[NDArray[np.float64], int]]
"""By the name of a weight: the scale of every output channel, and the weight's axis of channels."""


def to_int8(
    fp32: bytes,
    ranges: Ranges,
    scales: Scales,
    keep_float: Collection[str] = (),
    only: str | None = None,
) -> bytes:
    """Return the QDQ int8 file: weights per channel, activations per tensor.

    Args:
        ranges: of every tensor, from `onnx_ranges`.
        scales: of the weights, from `onnx_scales`.
        keep_float: layers (as `onnx_layers` names them) that stay in fp32.
        only: quantise this layer alone, for the sensitivity sweep.
    """
    import onnx

    with quiet():
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        model = onnx.load_from_string(fp32)
        spared = set(keep_float) | (set(onnx_layers(fp32)) - {only} if only else set())
        excluded = _outside(model, spared)
        layers: dict[str, str | None] = {}  # by their outputs
        for node in model.graph.node:
            merged = node.op_type in _ACTIVATIONS and node.input[0] in layers
            layer = layers[node.input[0]] if merged else _layer(node)
            layers[node.output[0]] = layer
            if layer in spared or (only and layer is None):
                excluded.add(node.name)
        data = {
            name: (np.array(low, np.float32), np.array(high, np.float32))
            for name, (low, high) in ranges.items()
        }
        overrides = {
            name: [{"axis": axis, "scale": np.float32(s), "zero_point": np.int8(0)} for s in each]
            for name, (each, axis) in scales.items()
        }
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(excluded),
            op_types_to_quantize=[*WEIGHTED, *_BETWEEN, *_ACTIVATIONS],
            extra_options={"TensorQuantOverrides": overrides},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # the format asks for it
        return bytes(quantizer.model.model.SerializeToString())


def onnx_layers(fp32: bytes) -> list[str]:
    """The layers with weights, in the order in which they run, named by their weights."""
    import onnx

    nodes = onnx.load_from_string(fp32).graph.node
    return [layer for node in nodes if (layer := _layer(node)) is not None]


def onnx_scales(fp32: bytes) -> Scales:
    """Return the scales of all weights that onnxruntime multiplies in int8."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(fp32).graph
    stored = {i.name: i for i in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "ConvTranspose" or _layer(node) is None or node.input[1] not in stored:
            continue
        weight = numpy_helper.to_array(stored[node.input[1]])
        given = {a.name: a.i for a in node.attribute}
        if node.op_type == "Conv":
            # onnxruntime lays a window out as (rows, columns, channels). Depthwise convolutions
            # have kernels of their own, which add in 32 bits.
            depthwise = weight.shape[1] == 1 and given.get("group", 1) == len(weight)
            rows, axis = np.moveaxis(weight, 1, -1).reshape(len(weight), -1), 0
            found[node.input[1]] = (weight_scales(rows, not depthwise), axis)
        elif weight.ndim == 2:
            axis = 0 if given.get("transB") else 1
            found[node.input[1]] = (weight_scales(weight if axis == 0 else weight.T, True), axis)
    return found


def onnx_ranges(fp32: bytes, calibration: Calibration) -> dict[float, Ranges]:
    """The range of every float tensor over the calibration pictures, by percentile."""
    import onnx
    import onnxruntime as ort

    model = onnx.load_from_string(fp32)
    floats = [name for node in model.graph.node for name in node.output if name and name != OUTPUT]
    for name in floats:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # As it stands in the file: fusions would leave tensors out.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs() if o.type == "tensor(float)"]

    def values() -> Iterator[dict[str, NDArray[np.float32]]]:
        for picture in calibration.for_ranges:
            yield dict(zip(names, session.run(names, {INPUT: picture[None]}), strict=True))

    return measure_ranges(values(), calibration.percentiles)


def _layer(node: Any) -> str | None:
    """A layer's name: the module path of its weight."""
    if node.op_type not in WEIGHTED:
        return None
    return str(node.input[1]).removeprefix("module.").removesuffix(".weight")


def _outside(model: Any, spared: Collection[str]) -> set[str]:
    """Nodes before the first layer that is to be quantised and behind the last one: at least the
    pixels and the L2 normalisation."""
    nodes = list(model.graph.node)
    inside = [i for i, node in enumerate(nodes) if _layer(node) not in (None, *spared)]
    if not inside:
        return {node.name for node in nodes}
    # What is merged into the last layer still belongs to it.
    last = inside[-1] + 1
    if last < len(nodes) and nodes[last].op_type in _ACTIVATIONS:
        last += 1
    return {node.name for node in [*nodes[: inside[0]], *nodes[last:]]}
