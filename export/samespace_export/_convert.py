"""One model -> the content of every file that is asked for; what files share is made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import nn

from samespace_edge import ConfigError
from samespace_export import _coreml, _onnx, _tflite
from samespace_export._calibration import Calibration
from samespace_export._cost import layer_macs
from samespace_export._deployed import Deployed
from samespace_export._explain import unsupported
from samespace_export._quantize import quantize
from samespace_export._sensitivity import Quantization
from samespace_export._targets import Target


class Converter:
    """Converts one model.

    Args:
        module: as `export_bundle` takes it, in eval mode on the CPU.
        mean, std: normalisation of the pixels as fractions, R, G, B.
        height, width: of the input, in pixels.
        calibration: has to be there for the targets that are `calibrated`.
    """

    def __init__(
        self,
        module: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        height: int,
        width: int,
        calibration: Calibration | None = None,
    ) -> None:
        self.deployed = Deployed(module, mean, std)
        self.size = (height, width)
        self.calibration = calibration
        self.quantizations: list[Quantization] = []

    def convert(self, target: Target) -> dict[str, bytes]:
        """The files of `target`, by path in the bundle.

        Raises `ConfigError` where a converter is not installed and where the module holds an
        operation that the format has not.
        """
        try:
            content = _CONVERSIONS[target.name](self)
        except ImportError as error:
            raise ConfigError(
                f"{target.name} needs {error.name}: pip install "
                f'"samespace[{target.extra}]", under this version\'s constraints.txt'
            ) from None
        except ConfigError:
            raise
        except Exception as error:  # every converter has errors of its own
            example = torch.zeros(1, *self.size, 3, dtype=torch.uint8)
            culprit = unsupported(self.deployed, example, error)
            raise ConfigError(f"{target.name}: {culprit}") from error
        if isinstance(content, bytes):
            return {target.file: content}
        return {f"{target.file}/{member}": data for member, data in content.items()}

    @cached_property
    def onnx(self) -> bytes:
        """The ONNX file in fp32."""
        return _onnx.to_onnx(self.deployed, *self.size)

    @cached_property
    def tflite(self) -> bytes:
        """The TFLite file in fp32."""
        return _tflite.to_tflite(self.deployed, *self.size)

    def int8(self, format_: str) -> bytes:
        """The int8 file of a format."""
        assert self.calibration is not None
        macs = layer_macs(self.deployed.module, *self.size)
        fp32 = self.onnx if format_ == "onnx" else self.tflite
        content, quantization = quantize(format_, fp32, self.deployed, self.calibration, macs)
        self.quantizations.append(quantization)
        return content

    def coreml(self, precision: str) -> dict[str, bytes]:
        """The files of a Core ML package."""
        return _coreml.to_coreml(self.deployed.planar(), *self.size, precision)


_CONVERSIONS: dict[str, Callable[[Converter], bytes | dict[str, bytes]]] = {
    "onnx-fp32": lambda c: c.onnx,
    "onnx-fp16": lambda c: _onnx.to_fp16(c.onnx),
    "onnx-int8": lambda c: c.int8("onnx"),
    "tflite-fp32": lambda c: c.tflite,
    "tflite-fp16": lambda c: _tflite.to_fp16(c.tflite),
    "tflite-dynamic": lambda c: _tflite.to_dynamic(c.tflite),
    "tflite-int8": lambda c: c.int8("tflite"),
    "coreml-fp32": lambda c: c.coreml("fp32"),
    "coreml-fp16": lambda c: c.coreml("fp16"),
    "coreml-int8": lambda c: c.coreml("int8"),
}
