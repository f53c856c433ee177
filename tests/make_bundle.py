"""Write a bundle of a small model, for suites in other environments."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from samespace_edge import Resize
from samespace_export import TARGETS, Calibration, export_bundle
from samespace_export._deployed import Deployed
from samespace_export._onnx import onnx_ranges, onnx_scales, to_int8, to_onnx
from tests.conftest import picture
from tests.export.conftest import SIZE, SmallNet, colourful, net_spec
from tests.export.test_processors import naive

CELLS = 4


class PlacedNet(SmallNet):
    """The net of the export tests, but one that sees where something is: a picture that lies on
    its side has another vector."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(CELLS)
        self.embed = nn.Linear(16 * CELLS * CELLS, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.stem(x))
        y: Tensor = self.embed(self.pool(x + self.block(x)).flatten(1))
        return y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the bundle; one that is there is replaced")
    parser.add_argument("targets", nargs="*", metavar="target", help="by default all")
    parser.add_argument("--golden", nargs="+", type=Path, default=[], help="pictures")
    parser.add_argument(
        "--usual", type=Path, help="also write the int8 ONNX file that usual scales make"
    )
    arguments = parser.parse_args()
    net = colourful(PlacedNet())
    resize = Resize(SIZE, SIZE, "crop")
    pixels = np.stack([resize(picture(label, shot)) for label in range(16) for shot in range(8)])
    export_bundle(
        net,
        net_spec(),
        arguments.out,
        targets=arguments.targets or tuple(TARGETS),
        calibration=Calibration(pixels),
        golden=[path.read_bytes() for path in arguments.golden],
        overwrite=True,
    )
    if arguments.usual:
        fp32 = to_onnx(Deployed(net, (0.5,) * 3, (0.5,) * 3), SIZE, SIZE)
        ranges = onnx_ranges(fp32, Calibration(pixels, percentile=100))[100]
        scales = naive(onnx_scales(fp32), fp32)
        arguments.usual.write_bytes(to_int8(fp32, ranges, scales))


if __name__ == "__main__":
    main()
