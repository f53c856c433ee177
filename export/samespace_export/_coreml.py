"""torch module -> Core ML packages (mlprogram), an image in and unit vectors out."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from samespace_edge._runtimes import INPUT, OUTPUT
from samespace_export._deployed import Deployed
from samespace_export._quiet import quiet

_WEIGHTED = {"conv", "conv_transpose", "linear", "matmul"}


def to_coreml(deployed: Deployed, height: int, width: int, precision: str) -> dict[str, bytes]:
    """The files of an `.mlpackage` by path, for iOS 16 and macOS 13 on.

    Args:
        deployed: from `Deployed.planar`.
        precision: `fp32`, `fp16`, or `int8`: weights in 8 bits, arithmetic in fp16.
    """
    example = torch.zeros(1, 3, height, width)
    with quiet(), torch.no_grad():
        import coremltools as ct
        import coremltools.optimize.coreml as cto

        program = torch.export.export(deployed, (example,)).run_decompositions({})
        compute: Any = ct.precision.FLOAT32
        if precision != "fp32":
            compute = ct.transform.FP16ComputePrecision(op_selector=_Before(_WEIGHTED))
        image = ct.ImageType(INPUT, example.shape, color_layout=ct.colorlayout.RGB)
        failure = ""
        try:
            model = ct.convert(
                program,
                inputs=[image],
                outputs=[ct.TensorType(OUTPUT, dtype=float)],
                minimum_deployment_target=ct.target.iOS16,
                compute_precision=compute,
                skip_model_load=True,
            )
        except Exception as error:
            failure = str(error) or repr(error)
        if failure:
            gc.collect()  # temporary folders that the converter leaves to it, with a warning
            raise RuntimeError(failure)
        if precision == "int8":
            config = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
            model = cto.linear_quantize_weights(model, cto.OptimizationConfig(config))
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "model.mlpackage"
            model.save(str(package))
            return {
                file.relative_to(package).as_posix(): file.read_bytes()
                for file in sorted(package.rglob("*"))
                if file.is_file()
            }


class _Before:
    """Whether an operation is one of some types, or comes before one of them.

    What comes behind the last layer with weights is the L2 normalisation, whose sum of squares
    leaves the range of fp16: a vector of length 256 would become 0.
    """

    def __init__(self, types: Collection[str]) -> None:
        self._types = types
        self._known: dict[int, bool] = {}

    def __call__(self, op: Any) -> bool:
        if id(op) not in self._known:
            following = (child for output in op.outputs for child in output.child_ops)
            self._known[id(op)] = op.op_type in self._types or any(map(self, following))
        return self._known[id(op)]
