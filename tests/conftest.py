"""Small real things for tests: a dataset, models and bundles, made once per run."""

from __future__ import annotations

import atexit
import csv
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Verdicts on bundles of tests do not belong in the user's cache.
if "SAMESPACE_CACHE" not in os.environ:
    os.environ["SAMESPACE_CACHE"] = tempfile.mkdtemp(prefix="samespace-tests-")
    atexit.register(shutil.rmtree, os.environ["SAMESPACE_CACHE"], ignore_errors=True)

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from samespace import Dataset
from samespace_edge import Bundle, Resize
from samespace_export import ExportSpec, export_bundle, model_fingerprint

torch.set_num_threads(1)

LABELS = 16
RESIZE = Resize(16, 16, "squash")
HALF = (0.5, 0.5, 0.5)


class Colours(nn.Module):
    """Embeds the mean colours of a grid of cells through a fixed random projection."""

    def __init__(self, seed: int, grid: int = 4, dim: int = 24, noise: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.linear = nn.Linear(3 * grid * grid, dim)
        with torch.no_grad():
            weight = torch.randn(dim, 3 * grid * grid, generator=generator)
            other = torch.randn(dim, 3 * grid * grid, generator=torch.Generator().manual_seed(99))
            self.linear.weight.copy_(weight + noise * other)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.pool(x).flatten(1))
        return y


class Brightness(nn.Module):
    """Sees how bright a picture is, and nothing else: a poor model."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 24)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(24, 1, generator=generator))
            self.linear.bias.copy_(torch.randn(24, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.mean((1, 2, 3))[:, None])
        return y


def picture(label: int, shot: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A two-coloured picture of a label, with noise of its own."""
    colours = np.random.default_rng(label).integers(30, 220, (2, 3))
    noise = np.random.default_rng(1000 * label + shot)
    pixels = np.empty((size[1], size[0], 3))
    pixels[:, : size[0] // 2] = colours[0]
    pixels[:, size[0] // 2 :] = colours[1]
    pixels += noise.normal(0, 18, pixels.shape) + noise.normal(0, 12, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kill-rounds", type=int, default=20, help="how often a process is killed at random"
    )


@pytest.fixture(scope="session")
def shop_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 16 labels: half train, half test with 4 queries and 2 gallery pictures."""
    folder = tmp_path_factory.mktemp("shop")
    rows = []
    for label in range(LABELS):
        for shot in range(6):
            path = f"item{label:02}/{shot}.png"
            (folder / path).parent.mkdir(exist_ok=True)
            picture(label, shot).save(folder / path)
            test = label % 2 == 1
            role = ("gallery" if shot < 2 else "query") if test else "train"
            rows.append(
                (path, f"item{label:02}", "test" if test else "train", role, f"{label % 3}")
            )
    with (folder / "shop.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "role", "aisle"])
        writer.writerows(rows)
    return folder / "shop.csv"


@pytest.fixture(scope="session")
def shop(shop_csv: Path) -> Dataset:
    return Dataset.open(shop_csv)


def spec(name: str, role: str = "edge", **more: object) -> ExportSpec:
    return ExportSpec(
        name=name, role=role, resize=RESIZE, mean=HALF, std=HALF, architecture=name, **more
    )


@pytest.fixture(scope="session")
def golden(shop: Dataset) -> list[bytes]:
    return [shop.read(item) for item in shop.gallery[:2]]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, golden: list[bytes]) -> dict[str, Path]:
    """`cloud`; `edge`, compatible with it; `poor` and `stranger`, with spaces of their own."""
    folder = tmp_path_factory.mktemp("bundles")
    cloud = Colours(seed=1)
    anchor = model_fingerprint(cloud, spec("cloud", "cloud"), 24)
    made = {
        "cloud": (cloud, spec("cloud", "cloud", card={"started": "at random"})),
        "edge": (Colours(seed=1, noise=0.05), spec("edge", space=anchor)),
        "poor": (Brightness(), spec("poor")),
        "stranger": (Colours(seed=2), spec("stranger", "cloud")),
    }
    for name, (module, how) in made.items():
        export_bundle(module, how, folder / f"{name}.bundle", golden=golden)
    return {name: folder / f"{name}.bundle" for name in made}


@pytest.fixture
def copied(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the edge bundle that a test may spoil."""
    import shutil

    shutil.copytree(bundles["edge"], tmp_path / "edge.bundle")
    assert Bundle.open(tmp_path / "edge.bundle")
    return tmp_path / "edge.bundle"
