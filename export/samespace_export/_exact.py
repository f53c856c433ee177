"""Run a graph file in exact arithmetic: what its vectors should be, whatever the processor.

Fast kernels add int8 products in ways that depend on the processor (see `_scales`). Golden vectors
and errors of int8 files come from here, so that no kernel is compared with itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from samespace_edge._runtimes import INPUT, OUTPUT, Graph, load_runtime

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Preprocessed pixels, uint8 RGB (N, H, W, 3), to unit vectors (N, D)."""


def exact(format_: str, graph: Graph) -> Run:
    """Return a function that computes a graph file without its runtime's fast kernels.

    ONNX: onnxruntime without any fusion. Quantised values are widened to float32, multiplied and
    rounded again, one operation after the other. TFLite: LiteRT's reference kernels. Core ML: the
    interpreter of saved programs.

    Args:
        format_: `onnx`, `tflite` or `coreml`.
        graph: the file's content, or a Core ML package's folder.
    """
    return _EXACT[format_](graph)


def _onnx(graph: Graph) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        # One picture at a time: unfused graphs keep every tensor of a batch.
        parts = [session.run([OUTPUT], {INPUT: row[None]})[0] for row in batch]
        return np.concatenate(parts)

    return run


def _tflite(graph: Graph) -> Run:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=graph,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def one(row: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(source, row[None])
        interpreter.invoke()
        vector: NDArray[np.float32] = interpreter.get_tensor(target)
        return vector

    return lambda batch: np.concatenate([one(row) for row in batch])


def _coreml(graph: Graph) -> Run:
    return load_runtime("mil-interpreter", graph, 1, ()).run


_EXACT: dict[str, Callable[[Graph], Run]] = {"onnx": _onnx, "tflite": _tflite, "coreml": _coreml}
