"""A backbone from timm, exported. `make test-timm` brings timm; elsewhere this is left out.

timm imports torchvision, whose compiled operators do not load beside a CPU build of torch. The
backbone uses none of them, so it is enough that their names are there.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from samespace_edge import Embedder
from samespace_export import TARGETS, export_bundle, torch_embedder
from tests.export.conftest import colourful, net_spec

SIZE = 64
DIM = 32


@pytest.fixture(scope="module")
def torchvision() -> Iterator[None]:
    """torchvision can be imported, with or without what is compiled in it."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("timm needs torchvision")
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        code = Path(found.origin).with_name("_meta_registrations.py").read_text()
        for name in re.findall(r'register_fake\("torchvision::(\w+)"\)', code):
            library.define(f"{name}(Tensor x) -> Tensor")
    yield
    del library


@pytest.fixture(scope="module")
def backbone(torchvision: None) -> nn.Module:
    """An untrained MobileNetV4, and a linear head."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    body = timm.create_model("mobilenetv4_conv_small", pretrained=False, num_classes=0)
    return colourful(nn.Sequential(body, nn.Linear(body.head_hidden_size, DIM)))


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Noise, each picture around a brightness of its own."""
    noise = np.random.default_rng(0).integers(0, 64, (8, SIZE, SIZE, 3))
    return (noise + np.linspace(0, 191, 8).astype(int)[:, None, None, None]).astype(np.uint8)


@pytest.mark.parametrize("name", ["onnx-fp32", "tflite-fp32"])
def test_a_backbone_of_timm_is_exported(
    name: str, backbone: nn.Module, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    spec = net_spec("timm", SIZE)
    expected = torch_embedder(backbone, spec)(pixels)
    made = export_bundle(backbone, spec, tmp_path / "timm.bundle", targets=(name,))
    embedder = Embedder(made.bundle, variant=name, runtime=TARGETS[name].runtime)
    got = embedder.embed_pixels(pixels).astype(np.float64)
    apart = np.linalg.norm(got[:, None] - expected[None], axis=2)
    own = apart.diagonal().max()
    others = apart[~np.eye(len(pixels), dtype=bool)].min()
    assert own < 0.001, "1 - cosine of 5e-7"
    assert own < others / 20, "near its own picture's vector, far from every other's"
