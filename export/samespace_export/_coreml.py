"""torch module -> Core ML packages (mlprogram), an image in and unit vectors out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from samespace_edge._runtimes import INPUT, OUTPUT
from samespace_export._deployed import Deployed
from samespace_export._quiet import quiet

# The L2 normalisation: the sum of squares of a wide embedding leaves the range of fp16.
_TAIL = {"reduce_sum", "reduce_sum_square", "reduce_l2_norm", "square", "sqrt", "real_div"}


def to_coreml(deployed: Deployed, height: int, width: int, precision: str) -> dict[str, bytes]:
    """The files of an `.mlpackage` by path, for iOS 16 and macOS 13 on.

    Args:
        deployed: with `planar=True`.
        precision: `fp32`, `fp16`, or `int8`: weights in 8 bits, arithmetic in fp16.
    """
    example = torch.zeros(1, 3, height, width)
    with quiet(), torch.no_grad():
        import coremltools as ct
        import coremltools.optimize.coreml as cto

        program = torch.export.export(deployed, (example,)).run_decompositions({})
        compute: Any = ct.precision.FLOAT32
        if precision != "fp32":
            compute = ct.transform.FP16ComputePrecision(op_selector=lambda op: not _is_tail(op))
        image = ct.ImageType(INPUT, example.shape, color_layout=ct.colorlayout.RGB)
        model = ct.convert(
            program,
            inputs=[image],
            outputs=[ct.TensorType(OUTPUT, dtype=float)],
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=compute,
            skip_model_load=True,
        )
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


def _is_tail(op: Any) -> bool:
    return op.op_type in _TAIL
