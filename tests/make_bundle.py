"""Write a bundle of a small model, for suites in other environments."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from samespace_edge import Resize
from samespace_export import TARGETS, Calibration, export_bundle
from tests.conftest import picture
from tests.export.conftest import SIZE, SmallNet, colourful, net_spec

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
    arguments = parser.parse_args()
    resize = Resize(SIZE, SIZE, "crop")
    pixels = np.stack([resize(picture(label, shot)) for label in range(16) for shot in range(8)])
    export_bundle(
        colourful(PlacedNet()),
        net_spec(),
        arguments.out,
        targets=arguments.targets or tuple(TARGETS),
        calibration=Calibration(pixels),
        golden=[path.read_bytes() for path in arguments.golden],
        overwrite=True,
    )


if __name__ == "__main__":
    main()
