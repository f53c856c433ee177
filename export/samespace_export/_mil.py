"""Computes saved Core ML programs where Core ML itself does not run.

Core ML predicts on Apple's systems only, but coremltools reads a saved package back on any. What
it reads is computed here with torch, one operation after the other, so that a package can be
compared with the model it was made from before it reaches a device.

A new operation is one row of `_OPS`; its parameters are called as MIL calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samespace_edge import BundleFormatError, ConfigError, ImageError, RuntimeKind
from samespace_edge._runtimes import INPUT, OUTPUT, Graph, _names
from samespace_export._quiet import quiet


class MilProgram:
    """A saved Core ML mlprogram that makes one vector of one picture.

    Every result is rounded to the type that the program declares for it, fp16 or fp32. Within
    one operation the arithmetic is float32, in fp16 programs too: Apple's GPU and Neural Engine
    may add up in fp16 and drop subnormal numbers, so what comes out is what the program says and
    not what a device makes of it.

    Args:
        package: the `.mlpackage` folder.

    Attributes:
        inputs, outputs: names of the one input and the one output.
        height, width: size of the picture, in pixels.

    Raises `BundleFormatError` for what cannot be read or is not computed here; an unknown
    operation is named with its type and its name.
    """

    def __init__(self, package: Path) -> None:
        with quiet():
            import coremltools as ct
            from coremltools.converters.mil.frontend.milproto.load import load

            try:
                spec = ct.utils.load_spec(str(package))
                weights = package / "Data" / "com.apple.CoreML" / "weights"
                program = load(spec, spec.specificationVersion, str(weights))
                main, image = program.functions["main"], spec.description.input[0].type.imageType
            except Exception as error:  # coremltools' errors share no base class of their own
                raise BundleFormatError(
                    f"{package} cannot be read as a Core ML program: {error}"
                ) from None
        self.inputs = tuple(main.inputs)
        self.outputs = tuple(output.name for output in main.outputs)
        self.height, self.width = int(image.height), int(image.width)
        self._bgr = image.colorSpace == image.BGR
        shapes = [v.shape for v in (*main.inputs.values(), *main.outputs)]
        fixed = len(shapes) == 2 and shapes[0] == (1, 3, self.height, self.width)
        if image.colorSpace not in (image.RGB, image.BGR) or not fixed or shapes[1][:-1] != (1,):
            raise BundleFormatError(
                f"{package} does not take one picture of a fixed size to one vector (1, D)"
            )
        self._steps = _steps(main.operations)
        # What the table does not foresee is to show here rather than with the first picture.
        self.run(np.zeros((self.height, self.width, 3), np.uint8))

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (H, W, 3) to float32 (1, D).

        Raises `ImageError` for a picture of another size or type.
        """
        if image.dtype != np.uint8 or image.shape != (self.height, self.width, 3):
            raise ImageError(
                f"the program takes uint8 ({self.height}, {self.width}, 3), not {image.dtype} "
                f"{image.shape}"
            )
        channels = (image[..., ::-1] if self._bgr else image).transpose(2, 0, 1)
        values = {self.inputs[0]: torch.from_numpy(channels.astype(np.float32)[None])}
        with torch.inference_mode():
            for step in self._steps:
                step.compute(values)
        output: NDArray[np.float32] = values[self.outputs[0]].numpy()
        return output


class MilInterpreter:
    """`MilProgram` as a runtime of bundles. Pictures go through it one by one.

    torch's own number of threads applies: it belongs to the process, not to one graph.
    """

    def __init__(self, graph: Graph, threads: int, providers: Sequence[str]) -> None:
        if providers:
            raise ConfigError(f"interpreting takes no providers; it has {', '.join(providers)}")
        if not isinstance(graph, Path):
            raise ConfigError("a Core ML graph is a folder, not the content of a file")
        self._program = MilProgram(graph)
        _names(self._program.inputs, INPUT, "input")
        _names(self._program.outputs, OUTPUT, "output")

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, H, W, 3) to float32 (N, D)."""
        return np.concatenate([self._program.run(image) for image in batch])


_PROVES = "the exported Core ML program, not Apple's kernels"
RUNTIME = RuntimeKind("coreml", "coremltools", "coreml", MilInterpreter, proves=_PROVES)


@dataclass(frozen=True)
class _Value:
    """A result, as the program declares it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class _Step:
    """One operation. An argument is a `_Value` or a constant: a tensor, numbers or text."""

    label: str
    function: Callable[..., Tensor | tuple[Tensor, ...]]
    arguments: dict[str, Any]
    results: list[_Value]

    def compute(self, values: dict[str, Tensor]) -> None:
        """Add the results to `values`, which holds those of all operations before."""

        def look_up(argument: Any) -> Any:
            if isinstance(argument, list):
                return [look_up(a) for a in argument]
            return values[argument.name] if isinstance(argument, _Value) else argument

        try:
            computed = self.function(**{k: look_up(a) for k, a in self.arguments.items()})
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise BundleFormatError(f"{self.label} is not computed here: {error}") from None
        results = (computed,) if isinstance(computed, Tensor) else computed
        for declared, result in zip(self.results, results, strict=True):
            if result.shape != declared.shape:
                raise BundleFormatError(
                    f"{self.label} came to {tuple(result.shape)}; the program says {declared.shape}"
                )
            values[declared.name] = result.to(declared.dtype).to(torch.float32)


def _steps(operations: Any) -> list[_Step]:
    from coremltools.converters.mil.mil import types

    dtypes = {types.fp16: torch.float16, types.fp32: torch.float32}
    computed = [op for op in operations if not _constant(op)]
    refused = [
        _label(op)
        for op in computed
        if op.op_type not in _OPS or any(v.dtype not in dtypes for v in op.outputs)
    ]
    if refused:
        raise BundleFormatError(f"not computed here: {', '.join(refused)}")

    def bind(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [bind(v) for v in value]
        op = value.op
        if op is None or not _constant(op):
            return _Value(value.name, tuple(value.shape), dtypes[value.dtype])
        array = np.asarray(value.val if op.op_type == "const" else op.materialized_val_inference())
        floats = array.dtype.kind == "f"
        return torch.from_numpy(array.astype(np.float32)) if floats else array.tolist()

    return [
        _Step(
            _label(op),
            _OPS[op.op_type],
            {name: bind(value) for name, value in op.inputs.items() if value is not None},
            bind(op.outputs),
        )
        for op in computed
    ]


def _label(op: Any) -> str:
    return f"operation {op.op_type} ({op.name})"


def _constant(op: Any) -> bool:
    # constexpr_*: weights that are stored in fewer bits.
    return bool(op.op_type == "const" or op.op_type.startswith("constexpr_"))


def _pad(x: Tensor, pad: list[int], mode: str, constant_val: float | Tensor) -> Tensor:
    if mode != "constant":
        raise ValueError(f"padding by {mode}")
    # MIL goes from the first axis to the last, torch from the last to the first.
    reverse = [n for i in range(len(pad) - 2, -1, -2) for n in pad[i : i + 2]]
    return F.pad(x, reverse, value=float(constant_val))


def _padding(
    kernel: Sequence[int],
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: Sequence[int] = (1, 1),
) -> list[int]:
    """Pixels on either side of each axis, for a kernel that moves over it."""
    if pad_type == "valid":
        return [0] * len(strides)
    if pad_type == "same":
        spans = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        # In other cases MIL's description leaves open which side gets the odd pixel.
        if all(s == 1 for s in strides) and not any(span % 2 for span in spans):
            return [span // 2 for span in spans]
    if pad_type != "custom" or pad[::2] != pad[1::2]:
        raise ValueError(f"padding {pad_type} {pad} of kernel {list(kernel)}, strides {strides}")
    return pad[::2]


def _conv(
    x: Tensor,
    weight: Tensor,
    strides: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
    **pad: Any,
) -> Tensor:
    padding = _padding(weight.shape[2:], strides, dilations=dilations, **pad)
    return F.conv2d(x, weight, bias, strides, padding, dilations, groups)


def _concat(values: list[Tensor], axis: int, interleave: bool) -> Tensor:
    if not interleave:
        return torch.cat(values, axis)
    axis %= values[0].dim()
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def _expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(a % (x.dim() + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def _slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: Sequence[int] = (),
    begin_mask: Sequence[bool] = (),
    end_mask: Sequence[bool] = (),
    squeeze_mask: Sequence[bool] = (),
) -> Tensor:
    index: list[int | slice] = []
    for axis in range(x.dim()):
        first = 0 if begin_mask and begin_mask[axis] else begin[axis]
        last = None if end_mask and end_mask[axis] else end[axis]
        whole = slice(first, last, stride[axis] if stride else 1)
        index.append(first if squeeze_mask and squeeze_mask[axis] else whole)
    return x[tuple(index)]


_GELU = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}

_OPS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "abs": lambda x: x.abs(),
    "add": lambda x, y: x + y,
    "avg_pool": lambda x, kernel_sizes, strides, ceil_mode, exclude_padding_from_average, **pad: (
        F.avg_pool2d(
            x,
            kernel_sizes,
            strides,
            _padding(kernel_sizes, strides, **pad),
            ceil_mode,
            count_include_pad=not exclude_padding_from_average,
        )
    ),
    "batch_norm": lambda x, mean, variance, epsilon, gamma=None, beta=None: F.batch_norm(
        x, mean, variance, gamma, beta, eps=float(epsilon)
    ),
    "cast": lambda x, dtype: x,  # every result is rounded to its declared type anyway
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "concat": _concat,
    "conv": _conv,
    "erf": lambda x: x.erf(),
    "exp": lambda x: x.exp(),
    "expand_dims": _expand_dims,
    "gelu": lambda x, mode: F.gelu(x, approximate=_GELU[mode]),
    "layer_norm": lambda x, axes, epsilon, gamma=None, beta=None: F.layer_norm(
        x, [x.shape[a] for a in axes], gamma, beta, float(epsilon)
    ),
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, float(alpha)),
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": lambda x, y, transpose_x, transpose_y: (
        (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)
    ),
    "max_pool": lambda x, kernel_sizes, strides, ceil_mode, **pad: F.max_pool2d(
        x, kernel_sizes, strides, _padding(kernel_sizes, strides, **pad), ceil_mode=ceil_mode
    ),
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y),
    "mul": lambda x, y: x * y,
    "pad": _pad,
    "pow": lambda x, y: torch.pow(x, y),
    "real_div": lambda x, y: x / y,
    "reduce_l2_norm": lambda x, keep_dims, axes=None: torch.linalg.vector_norm(
        x, dim=axes, keepdim=keep_dims
    ),
    "reduce_max": lambda x, keep_dims, axes=(): x.amax(axes, keep_dims),
    "reduce_mean": lambda x, keep_dims, axes=None: x.mean(axes, keep_dims),
    "reduce_sum": lambda x, keep_dims, axes=None: x.sum(axes, keep_dims),
    "relu": lambda x: x.relu(),
    "relu6": lambda x: x.clamp(0, 6),
    "reshape": lambda x, shape: x.reshape(shape),
    "rsqrt": lambda x, epsilon: (x + epsilon).rsqrt(),
    "sigmoid": lambda x: x.sigmoid(),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "silu": lambda x: F.silu(x),
    "slice_by_index": _slice_by_index,
    "softmax": lambda x, axis: x.softmax(axis),
    "split": lambda x, axis, num_splits=1, split_sizes=None: torch.split(
        x, split_sizes or x.shape[axis] // num_splits, axis
    ),
    "sqrt": lambda x: x.sqrt(),
    "square": lambda x: x.square(),
    "squeeze": lambda x, axes: x.squeeze(axes),
    "sub": lambda x, y: x - y,
    "tanh": lambda x: x.tanh(),
    "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, 0.0),
    "tile": lambda x, reps: x.tile(reps),
    "transpose": lambda x, perm: x.permute(perm),
}
