"""A small TFLite file written by hand: converting one takes ten seconds, this takes none."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from samespace_edge import Bundle
from tests.conftest import Colours

Array = NDArray[Any]


class _Graph:
    """Tensors and operations, one after the other."""

    def __init__(self) -> None:
        self.buffers = [schema.BufferT()]  # the first one is empty, by convention
        self.tensors: list[Any] = []
        self.codes: list[Any] = []
        self.operators: list[Any] = []

    def tensor(
        self, name: str, shape: Sequence[int], kind: int, content: Array | None = None
    ) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), kind, 0
        if content is not None:
            buffer = schema.BufferT()
            buffer.data = list(content.tobytes())
            self.buffers.append(buffer)
            made.buffer = len(self.buffers) - 1
        self.tensors.append(made)
        return len(self.tensors) - 1

    def run(
        self, code: int, inputs: Sequence[int], output: int, kind: int = 0, options: Any = None
    ) -> int:
        operator_code, operator = schema.OperatorCodeT(), schema.OperatorT()
        operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
        self.codes.append(operator_code)
        operator.opcodeIndex = len(self.codes) - 1
        operator.inputs, operator.outputs = list(inputs), [output]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self.operators.append(operator)
        return output


def tflite_of(model: Colours, size: int) -> bytes:
    """The file of a model that takes pictures of `size` x `size` at mean and deviation 0.5."""
    op, options, types = schema.BuiltinOperator, schema.BuiltinOptions, schema.TensorType
    weight = model.linear.weight.detach().numpy()
    dim, cells = weight.shape[0], int((weight.shape[1] // 3) ** 0.5)
    # The pixels' scale goes into the weights, and their planes to the end.
    scaled = weight.reshape(dim, 3, cells, cells).transpose(0, 2, 3, 1).reshape(dim, -1) * (2 / 255)
    bias = model.linear.bias.detach().numpy() - weight.sum(1)
    graph = _Graph()
    image = graph.tensor("image", (1, size, size, 3), types.UINT8)
    floats = graph.tensor("floats", (1, size, size, 3), types.FLOAT32)
    pooled = graph.tensor("pooled", (1, cells, cells, 3), types.FLOAT32)
    flat = graph.tensor("flat", (1, weight.shape[1]), types.FLOAT32)
    raw = graph.tensor("raw", (1, dim), types.FLOAT32)
    embedding = graph.tensor("embedding", (1, dim), types.FLOAT32)
    shape = graph.tensor("shape", (2,), types.INT32, np.array([1, weight.shape[1]], np.int32))
    matrix = graph.tensor("matrix", scaled.shape, types.FLOAT32, scaled.astype(np.float32))
    offset = graph.tensor("bias", (dim,), types.FLOAT32, bias.astype(np.float32))
    pool = schema.Pool2DOptionsT()
    pool.padding = schema.Padding.VALID
    pool.strideW = pool.strideH = pool.filterWidth = pool.filterHeight = size // cells
    graph.run(op.CAST, [image], floats)
    graph.run(op.AVERAGE_POOL_2D, [floats], pooled, options.Pool2DOptions, pool)
    graph.run(op.RESHAPE, [pooled, shape], flat)
    full = schema.FullyConnectedOptionsT()
    graph.run(op.FULLY_CONNECTED, [flat, matrix, offset], raw, options.FullyConnectedOptions, full)
    graph.run(op.L2_NORMALIZATION, [raw], embedding, options.L2NormOptions, schema.L2NormOptionsT())
    return _packed(graph, image, embedding)


def _packed(graph: _Graph, image: int, embedding: int) -> bytes:
    subgraph, signature, model = schema.SubGraphT(), schema.SignatureDefT(), schema.ModelT()
    subgraph.tensors, subgraph.operators = graph.tensors, graph.operators
    subgraph.inputs, subgraph.outputs = [image], [embedding]
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_named("image", image)], [_named("embedding", embedding)]
    model.version, model.description = 3, "by hand"
    model.operatorCodes, model.buffers = graph.codes, graph.buffers
    model.subgraphs, model.signatureDefs = [subgraph], [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _named(name: str, tensor: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, tensor
    return made


def only_tflite(bundle: Path, model: Colours, out: Path) -> Path:
    """The bundle of `model` with a TFLite file where it has an ONNX file."""
    shutil.copytree(bundle, out)
    manifest = json.loads((out / "manifest.json").read_text())
    (old,) = manifest["variants"]
    (out / old["file"]).unlink()
    content = tflite_of(model, manifest["resize"]["width"])
    (out / "model.tflite").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    new = {"name": "tflite-fp32", "format": "tflite", "file": "model.tflite", "sha256": sha256}
    manifest["variants"] = [{**old, **new, "bytes": len(content)}]
    golden = json.loads((out / "golden/golden.json").read_text())
    for image in golden["images"]:
        image["embedded"] = {"tflite-fp32": image["embedded"][old["name"]]}
    golden["tolerance"]["embed"] = {"tflite-fp32": golden["tolerance"]["embed"][old["name"]]}
    text = json.dumps(golden)
    (out / "golden/golden.json").write_text(text)
    del manifest["files"][old["file"]]
    manifest["files"]["model.tflite"] = sha256
    manifest["files"]["golden/golden.json"] = hashlib.sha256(text.encode()).hexdigest()
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert Bundle.open(out)
    return out
