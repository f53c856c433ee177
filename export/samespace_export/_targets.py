"""The files that a bundle can hold: one row each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from samespace_edge import ConfigError


@dataclass(frozen=True)
class Target:
    """One kind of graph file.

    Attributes:
        format: `onnx`, `tflite` or `coreml`.
        precision: `fp32`, `fp16`, `int8` or `dynamic`.
        file: its path in the bundle; a Core ML package is a folder.
        extra: what installs its converter, as in `pip install "samespace[extra]"`.
        runtime: which runtime runs it here right after it was written.
        arithmetic: what is computed in which precision.
        calibrated: whether it needs a `Calibration`.
    """

    format: str
    precision: str
    file: str
    extra: str
    runtime: str
    arithmetic: str
    calibrated: bool = False

    @property
    def name(self) -> str:
        """As variants are called: `onnx-fp32`."""
        return f"{self.format}-{self.precision}"


_ORT, _LITE, _MIL = "onnxruntime", "ai_edge_litert", "mil-interpreter"
_INT8 = "weights int8 per channel, activations int8 per tensor; pixels, L2 and the ends fp32"

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("onnx", "fp32", "model.onnx", "export", _ORT, "all fp32"),
        Target("onnx", "fp16", "model.fp16.onnx", "export", _ORT, "weights fp16, rest fp32"),
        Target("onnx", "int8", "model.int8.onnx", "export", _ORT, _INT8, calibrated=True),
        Target("tflite", "fp32", "model.tflite", "tflite", _LITE, "all fp32"),
        Target("tflite", "fp16", "model.fp16.tflite", "tflite", _LITE, "weights fp16, rest fp32"),
        Target(
            "tflite",
            "dynamic",
            "model.dynamic.tflite",
            "tflite",
            _LITE,
            "weights int8; activations of convolutions int8, scaled picture by picture",
        ),
        Target("tflite", "int8", "model.int8.tflite", "tflite", _LITE, _INT8, calibrated=True),
        Target("coreml", "fp32", "model.mlpackage", "coreml", _MIL, "all fp32"),
        Target("coreml", "fp16", "model.fp16.mlpackage", "coreml", _MIL, "all fp16; L2 fp32"),
        Target(
            "coreml", "int8", "model.int8.mlpackage", "coreml", _MIL, "weights int8, rest as fp16"
        ),
    )
}


def select_targets(formats: Iterable[str], precisions: Iterable[str]) -> tuple[str, ...]:
    """Names of the targets of these formats and precisions, in the table's order.

    A precision that one of the formats does not come in is left out of that format.
    Raises `ConfigError` for what is in none, and where nothing is left.
    """
    formats, precisions = set(formats), set(precisions)
    for asked, known in (
        (formats, {t.format for t in TARGETS.values()}),
        (precisions, {t.precision for t in TARGETS.values()}),
    ):
        if unknown := sorted(asked - known):
            raise ConfigError(f"no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    chosen = tuple(
        name for name, t in TARGETS.items() if t.format in formats and t.precision in precisions
    )
    if not chosen:
        raise ConfigError(
            f"there is no {'/'.join(sorted(formats))} file in {'/'.join(sorted(precisions))}; "
            f"there are {', '.join(TARGETS)}"
        )
    return chosen
