"""Value and derivative in one plain pass: the linearised network, as any runtime can run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.linear import Linearized, TwoStream, leaky, recalibrate, set_tangent
from samespace_cloud.linear._linearized import flatten
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_edge import ConfigError, Embedder
from samespace_export import ExportSpec, count_cost, export_bundle
from tests.conftest import HALF, RESIZE


def pictures(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 3, size, size, generator=generator)


def tuned(model: Linearized, scale: float, seed: int = 0) -> Linearized:
    like = flatten(model.weights())
    generator = torch.Generator().manual_seed(seed)
    set_tangent(model, scale * torch.randn(like.shape, generator=generator))
    return model


def embedding(backbone: str, slope: float = 0.0, size: int = 32) -> nn.Module:
    torch.manual_seed(0)
    module = EmbeddingModel(ModelConfig(backbone, size, 16)).eval()
    calibrated = recalibrate(module, [pictures(32, size)])
    return leaky(calibrated, slope) if slope else calibrated


@pytest.mark.parametrize(
    ("backbone", "slope"),
    [
        ("lite0-edge", 0.0),
        ("lite0-edge", 0.1),
        ("mobilenetv3-small", 0.0),
        ("mobilenetv3-small", 0.1),
        ("shufflenetv2", 0.1),
    ],
)
@torch.no_grad()
def test_two_streams_are_the_linearised_network(backbone: str, slope: float) -> None:
    model = tuned(Linearized(embedding(backbone, slope)), 1e-3)
    x = pictures(4, 32)
    expected, plain = model(x), model.base(x)
    assert (expected - plain).abs().max() > 1e-2  # the derivative counts
    assert (TwoStream(model)(x) - expected).abs().max() < 1e-5 * max(1, expected.abs().max())


@torch.no_grad()
def test_a_part_costs_only_what_it_moves() -> None:
    module = embedding("edge-xs")
    whole = count_cost(module, 32, 32)
    head = tuned(Linearized(module, only=["embed"]), 0.1)
    x = pictures(4, 32)
    assert torch.allclose(TwoStream(head)(x), head(x), atol=1e-5)
    # What runs before the head has no derivative, so only the head runs twice.
    assert count_cost(TwoStream(head), 32, 32).macs == whole.macs + 128 * 16
    all_of_it = TwoStream(Linearized(module))
    assert 2.5 * whole.macs < count_cost(all_of_it, 32, 32).macs <= 3 * whole.macs
    biases = tuned(Linearized(module, only=lambda n: n.endswith("bias")), 0.1)
    assert torch.allclose(TwoStream(biases)(x), biases(x), atol=1e-5)


class _Everything(nn.Module):
    """Operations that the backbones here do not use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.silu, self.sigmoid = nn.SiLU(), nn.Sigmoid()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 8).view(8, 1, 1))
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.silu(self.conv(x)) - 0.5
        y = self.pool(y) * self.scale
        left, right = y[:, :4], y[:, 4:]
        y = torch.cat([left / (1 + self.sigmoid(right)), right.mul(2).add(1)], 1)
        z: Tensor = self.linear(self.drop(torch.flatten(y.mean((2, 3)), 1)))
        return z


@torch.no_grad()
def test_other_operations_have_rules_too() -> None:
    torch.manual_seed(2)
    model = tuned(Linearized(_Everything()), 0.1)
    x = pictures(3, 8)
    assert torch.allclose(TwoStream(model)(x), model(x), atol=1e-5)


class _Doing(nn.Module):
    """A convolution, something, and a linear layer on its mean."""

    def __init__(self, do: Callable[[_Doing, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.do = do
        self.conv = nn.Conv2d(3, 4, 1)
        self.shift = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.out = nn.Linear(4, 2)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.do(self, self.conv(x)))
        return y


def _mean(y: Tensor) -> Tensor:
    return y.mean((2, 3))


SOUND: dict[str, _Doing] = {
    "padded by a constant": _Doing(lambda m, y: _mean(F.pad(y, (1, 1, 1, 1), value=1.0))),
    "a weight for every channel": _Doing(lambda m, y: (y - m.shift).sum((2, 3))),
    "one that is pooled": _Doing(lambda m, y: _mean(F.avg_pool2d(y + m.shift, 3, padding=1))),
    "alpha": _Doing(lambda m, y: _mean(torch.add(y, y.sub(m.shift, alpha=3), alpha=2))),
    "pairs": _Doing(lambda m, y: _mean(m.pool(y)), pool=nn.MaxPool2d((2, 2), (2, 2))),
    "in place": _Doing(lambda m, y: _mean(m.relu(y)), relu=nn.ReLU(inplace=True)),
    "joined": _Doing(lambda m, y: _mean(torch.cat(tensors=[y[:, :2], y[:, 2:]], dim=1))),
}


@pytest.mark.parametrize("module", SOUND.values(), ids=SOUND.keys())
@torch.no_grad()
def test_what_is_easily_overlooked(module: _Doing) -> None:
    model = tuned(Linearized(module), 0.1)
    x = pictures(3, 9)
    value, change = model.streams(x)
    assert change.abs().max() > 1e-2
    assert (TwoStream(model)(x) - value - change).abs().max() < 1e-5 * (1 + change.abs().max())


@torch.no_grad()
def test_layers_may_share_a_weight() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.SiLU(), nn.Conv2d(3, 3, 1), nn.Flatten())
    module[2].weight = module[0].weight
    model = tuned(Linearized(module), 0.1)
    x = pictures(3, 4)
    assert torch.allclose(TwoStream(model)(x), model(x), atol=1e-6)


REFUSED: dict[str, tuple[_Doing, str]] = {
    "rounded up": (
        _Doing(lambda m, y: _mean(m.pool(y)), pool=nn.MaxPool2d(2, 2, ceil_mode=True)),
        "max pooling has a rule",
    ),
    "dilated": (
        _Doing(lambda m, y: _mean(m.pool(y)), pool=nn.MaxPool2d(2, 2, dilation=2)),
        "max pooling has a rule",
    ),
    "used again": (
        _Doing(lambda m, y: _mean(m.relu(y) + y), relu=nn.ReLU(inplace=True)),
        "relu overwrites a tensor that is used again",
    ),
    "not looked at": (
        _Doing(lambda m, y: _mean((F.relu(y, inplace=True), y)[1])),
        "overwrites a tensor that is used again",
    ),
    "rounded": (
        _Doing(lambda m, y: _mean(y.div(2.0, rounding_mode="floor"))),
        "where it is not rounded",
    ),
}


@pytest.mark.parametrize(("module", "message"), REFUSED.values(), ids=REFUSED.keys())
@torch.no_grad()
def test_what_two_streams_would_get_wrong_is_refused(module: _Doing, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TwoStream(Linearized(module))(pictures(2, 9))


def test_an_operation_without_a_rule_is_named() -> None:
    class Sine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(x)

    def made(*layers: nn.Module) -> Linearized:
        return Linearized(nn.Sequential(nn.Conv2d(3, 4, 1), *layers))

    with pytest.raises(ConfigError, match="the function 'sin' has no rule"):
        TwoStream(made(Sine()))
    with pytest.raises(ConfigError, match=r"the layer '1' \(Softplus\) has no rule"):
        TwoStream(made(nn.Softplus()))


@torch.no_grad()
def test_it_holds_the_tangent_of_its_making() -> None:
    model = tuned(Linearized(embedding("edge-xs")), 1e-2)
    made = TwoStream(model)
    x = pictures(2, 32)
    before = made(x)
    set_tangent(model, 0 * flatten(model.weights()))
    assert torch.equal(made(x), before)
    assert not any(p.requires_grad for p in made.parameters())


def _difference(folder: Path, target: str) -> float:
    """Between what the exported file says of some pixels and what the linearised network does."""
    module = embedding("ir-s4-1x4x1s1k3-2x8x1s2k3", 0.1, 16)
    model = tuned(Linearized(module), 1e-2)
    spec = ExportSpec("two", "edge", RESIZE, HALF, HALF, "two-stream")
    made = export_bundle(TwoStream(model), spec, folder / "two.bundle", targets=[target]).bundle
    assert made.manifest.macs > 2 * count_cost(module, 16, 16).macs
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = nn.functional.normalize(model(x)).numpy()
        plain = nn.functional.normalize(model.base(x)).numpy()
    assert np.abs(expected - plain).max() > 1e-2
    return float(np.abs(Embedder(made.path).embed_pixels(pixels) - expected).max())


def test_it_exports_to_onnx_as_any_model_does(tmp_path: Path) -> None:
    assert _difference(tmp_path, "onnx-fp32") < 1e-4


@pytest.mark.slow
def test_it_exports_to_tflite(tmp_path: Path) -> None:
    assert _difference(tmp_path, "tflite-fp32") < 1e-4
