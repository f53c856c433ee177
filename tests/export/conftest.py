"""A small convolutional model, exported once to every file that there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samespace_edge import Bundle, Resize
from samespace_export import TARGETS, Calibration, Exported, ExportSpec, export_bundle
from tests.conftest import picture

SIZE = 32


def colourful(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics as if they had been trained, so that folding has to work."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    return module.eval()


class SmallNet(nn.Module):
    """Stem, a block with a shortcut, pooling, embedding."""

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.block = nn.Sequential(
            nn.Conv2d(16, 32, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(),
            nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(),
            nn.Conv2d(32, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.embed = nn.Linear(16, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.stem(x))
        x = x + self.block(x)
        y: Tensor = self.embed(x.mean((2, 3)))
        return y


def net_spec(name: str = "small", size: int = SIZE) -> ExportSpec:
    resize = Resize(size, size, "crop")
    return ExportSpec(name, "edge", resize, (0.5,) * 3, (0.5,) * 3, architecture="small")


@pytest.fixture(scope="session")
def net() -> nn.Module:
    return colourful(SmallNet())


@pytest.fixture(scope="session")
def photographs() -> NDArray[np.uint8]:
    """128 pictures of 16 labels at the net's size."""
    resize = Resize(SIZE, SIZE, "crop")
    pictures = [picture(label, shot) for label in range(16) for shot in range(8)]
    return np.stack([resize(p) for p in pictures])


@pytest.fixture(scope="session")
def everything(
    net: nn.Module, photographs: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """`net` in every format and precision."""
    out = tmp_path_factory.mktemp("every") / "small.bundle"
    return export_bundle(
        net, net_spec(), out, targets=tuple(TARGETS), calibration=Calibration(photographs)
    )


@pytest.fixture(scope="session")
def every_bundle(everything: Exported) -> Bundle:
    return everything.bundle
