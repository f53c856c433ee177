"""An adapter's arithmetic, behind the last node of an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge import AdapterLayers, ConfigError
from samespace_edge._runtimes import OUTPUT
from samespace_export._deployed import EPSILON

# From here on ReduceSum takes its axes as an input.
_OLDEST_OPSET = 13


def append_adapter(onnx_file: bytes, layers: AdapterLayers) -> bytes:
    """The file whose output is the adapter's, made unit, in float32 whatever the file's precision.

    Args:
        onnx_file: a bundle's ONNX file, with unit vectors (N, I) as its output.
        layers: from (I,) to (O,).

    Raises `ConfigError` for a file of an opset before 13.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(onnx_file)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < _OLDEST_OPSET:
        raise ConfigError(
            f"the graph is of ONNX opset {opset}, and an adapter needs {_OLDEST_OPSET} or later; "
            "export the bundle again"
        )
    graph = model.graph
    prefix = _unused_prefix(graph)
    source = f"{prefix}source"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == OUTPUT:
                    names[i] = source
    for value in graph.value_info:
        if value.name == OUTPUT:
            value.name = source

    def constant(name: str, values: NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values), prefix + name))
        return prefix + name

    def add(operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        full = output if output == OUTPUT else prefix + output
        node = helper.make_node(operation, inputs, [full], name=prefix + output, **attributes)
        graph.node.append(node)
        return full

    x = add("Sub", [source, constant("centre", layers.centre)], "centred")
    y = x
    for i, matrix in enumerate(layers.linear):
        y = add("MatMul", [y, constant(f"linear.{i}", matrix)], f"mapped.{i}")
    y = add("Add", [y, constant("bias", layers.bias)], "shifted")
    for i, (weight, bias) in enumerate(layers.residual):
        x = add("Relu", [x], f"relu.{i}") if i else x
        arrays = [constant(f"weight.{i}", weight), constant(f"offset.{i}", bias)]
        x = add("Gemm", [x, *arrays], f"layer.{i}")
    if layers.residual:
        y = add("Add", [y, x], "corrected")
    squares = add("Mul", [y, y], "squares")
    axes = constant("axes", np.array([1], np.int64))
    total = add("ReduceSum", [squares, axes], "sum", keepdims=1)
    shortest = constant("shortest", np.array(EPSILON, np.float32))
    norm = add("Max", [add("Sqrt", [total], "length"), shortest], "norm")
    add("Div", [y, norm], OUTPUT)

    (output,) = graph.output
    output.type.tensor_type.shape.dim[1].dim_value = layers.bias.size
    # Not checked by onnx here: it refuses quantised files for the order of their nodes, which
    # onnxruntime writes and reads. Whoever calls this runs the file.
    return bytes(model.SerializeToString())


def _unused_prefix(graph: Any) -> str:
    """One that no name in the graph begins with: a graph may have been adapted before."""
    names = {i.name for i in graph.initializer}
    count = 0
    while any(name.startswith(f"adapter.{count}.") for name in names):
        count += 1
    return f"adapter.{count}."
