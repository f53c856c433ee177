"""Quantised ONNX files computed by numpy, with sums of 16 bits that saturate or without.

Onnxruntime's kernels for x86 without VNNI multiply uint8 by int8 with `vpmaddubsw`: the products of
two neighbours along K are added in 16 bits, which saturates, and only then in 32. This is that
arithmetic for every convolution and matrix product between quantised tensors; what is left of the
graph is onnx's reference evaluator. It runs on any processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

_DOMAIN = "tests"


def vectors(content: bytes, pixels: NDArray[np.uint8], saturates: bool) -> NDArray[np.float32]:
    """Compute a QDQ file's vectors (N, D) of uint8 RGB (N, H, W, 3)."""
    model = onnx.load_from_string(content)
    made_by = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            sources = [made_by.get(name) for name in node.input[:2]]
            if all(s is not None and s.op_type == "DequantizeLinear" for s in sources):
                _replace(node, sources, saturates)
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    evaluator = ReferenceEvaluator(model, new_ops=[QuantisedProduct])
    return np.concatenate([evaluator.run(None, {"image": p[None]})[0] for p in pixels])


def _replace(node: Any, sources: list[Any], saturates: bool) -> None:
    kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kind = node.op_type
    bias = list(node.input[2:3])
    new = helper.make_node(
        "QuantisedProduct",
        [*sources[0].input[:3], *sources[1].input[:3], *bias],
        list(node.output),
        domain=_DOMAIN,
        kind=kind,
        saturates=int(saturates),
        group=kept.get("group", 1),
        pads=kept.get("pads", [0, 0, 0, 0]),
        strides=kept.get("strides", [1, 1]),
        transposed=kept.get("transB", 0),
    )
    node.CopyFrom(new)


class QuantisedProduct(OpRun):
    """A convolution or matrix product of integers."""

    op_domain = _DOMAIN

    def _run(
        self,
        x: Any,
        x_scale: Any,
        x_zero: Any,
        w: Any,
        w_scale: Any,
        w_zero: Any,
        bias: Any = None,
        kind: str = "",
        saturates: int = 0,
        group: int = 1,
        pads: Any = (),
        strides: Any = (),
        transposed: int = 0,
    ) -> tuple[Any]:
        assert not np.any(w_zero)
        wide, zero = x.astype(np.int64), int(x_zero)
        if kind != "Conv":
            rows = w.astype(np.int64) if transposed else w.astype(np.int64).T
            total = _added(wide, rows, bool(saturates)) - zero * rows.sum(1)
            result = total * (x_scale * w_scale)
            return ((result if bias is None else result + bias).astype(np.float32),)
        outputs, inputs, height, width = w.shape
        top, left, bottom, right = pads
        padded = np.pad(wide, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        windows = windows[:, :, :: strides[0], :: strides[1]]
        made = []
        # Depthwise convolutions have kernels of their own, which add in 32 bits.
        saturating = bool(saturates) and not (inputs == 1 and group == outputs)
        for g in range(group):
            part = windows[:, g * inputs : (g + 1) * inputs]
            columns = part.transpose(0, 2, 3, 4, 5, 1).reshape(*part[:, 0, :, :, 0, 0].shape, -1)
            own = w[g * outputs // group : (g + 1) * outputs // group].astype(np.int64)
            rows = own.transpose(0, 2, 3, 1).reshape(len(own), -1)
            made.append(_added(columns, rows, saturating) - zero * rows.sum(1))
        total = np.concatenate(made, -1).transpose(0, 3, 1, 2)
        scale = np.broadcast_to(x_scale * w_scale, (outputs,))[:, None, None]
        result = total * scale
        return ((result if bias is None else result + bias[:, None, None]).astype(np.float32),)


def _added(columns: Any, rows: Any, saturates: bool) -> Any:
    """Products of (..., K) with (O, K), added in pairs along K and then all: (..., O)."""
    if not saturates:
        return columns @ rows.T
    odd = columns.shape[-1] % 2
    columns = np.pad(columns, [*[(0, 0)] * (columns.ndim - 1), (0, odd)])
    rows = np.pad(rows, ((0, 0), (0, odd)))
    total = np.zeros((*columns.shape[:-1], len(rows)), np.int64)
    for k in range(0, columns.shape[-1], 2):
        pair = columns[..., k, None] * rows[:, k] + columns[..., k + 1, None] * rows[:, k + 1]
        total += np.clip(pair, -32768, 32767)
    return total
