"""Modules that people bring: any scale of embedding, any mode; what cannot be exported is named."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samespace_edge import ConfigError, Embedder
from samespace_export import TARGETS, Calibration, export_bundle, torch_embedder
from tests.export.conftest import SmallNet, colourful, net_spec


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.net, self.factor = colourful(SmallNet()), factor

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x) * self.factor
        return y


@pytest.mark.parametrize("factor", [1e-18, 1e-6, 1e-3, 1e3, 1e15])
@pytest.mark.parametrize("name", [n for n in TARGETS if TARGETS[n].precision != "fp16"])
def test_the_length_of_embeddings_changes_no_vector(
    name: str, factor: float, tmp_path: Path, photographs: NDArray[np.uint8]
) -> None:
    expected = torch_embedder(Scaled(1.0), net_spec())(photographs)
    calibration = Calibration(photographs)
    export_bundle(
        Scaled(factor), net_spec(), tmp_path / "b", targets=[name], calibration=calibration
    )
    vectors = Embedder(tmp_path / "b", runtime=TARGETS[name].runtime).embed_pixels(photographs)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    bound = 1e-6 if TARGETS[name].precision == "fp32" else 1e-2
    assert (1 - (vectors.astype(np.float64) * expected).sum(1)).max() < bound


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e2, 1e9])
def test_half_precision_holds_within_its_range(
    factor: float, tmp_path: Path, photographs: NDArray[np.uint8]
) -> None:
    export_bundle(Scaled(factor), net_spec(), tmp_path / "b", targets=["onnx-fp16"])
    vectors = Embedder(tmp_path / "b").embed_pixels(photographs)
    expected = torch_embedder(Scaled(1.0), net_spec())(photographs)
    assert (1 - (vectors.astype(np.float64) * expected).sum(1)).max() < 1e-3


@pytest.mark.parametrize("factor", [1e-12, 1e7])
def test_weights_that_half_precision_cannot_hold_are_refused(factor: float, tmp_path: Path) -> None:
    net = colourful(SmallNet())
    assert isinstance(net, SmallNet)
    with torch.no_grad():
        net.embed.weight *= factor
        net.embed.bias *= factor
    with pytest.raises(ConfigError, match="too small or too large for fp16"):
        export_bundle(net, net_spec(), tmp_path / "b", targets=["onnx-fp16"])
    assert not (tmp_path / "b").exists()


@dataclass
class Output:
    hidden: Tensor
    pooled: Tensor


Pair = namedtuple("Pair", ["logits", "features"])


class Returning(nn.Module):
    def __init__(self, how: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.how = colourful(SmallNet()), how

    def forward(self, x: Tensor) -> Any:
        return self.how(self.net(x))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            lambda y: (y[..., None], y),
            r"returns a tuple with \[0\] \(2, 24, 1\), \[1\].*result\[1\]",
        ),
        (lambda y: [y], r"returns a list with \[0\] \(2, 24\).*its result\[0\]"),
        (
            lambda y: {"pooler_output": y},
            r"a dict with \['pooler_output'\].*result\['pooler_output'\]",
        ),
        (lambda y: Output(y[..., None], y), r"an? Output with .hidden \(2, 24, 1\).*result.pooled"),
        (lambda y: Pair(y, y), r"a Pair with .logits \(2, 24\).*its result.logits"),
        (lambda y: None, "returns a NoneType.*the pooled features alone"),
        (lambda y: y.half(), "returns float16.*its result.float()"),
        (lambda y: y[..., None], "makes .2, 24, 1. of 2 pictures"),
        (lambda y: y @ y, "fails on float32 pictures .2, 3, 32, 32..*RuntimeError"),
    ],
)
def test_what_a_module_returns_is_named(
    how: Callable[[Tensor], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_bundle(Returning(how), net_spec(), tmp_path / "b")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_named(dtype: torch.dtype, tmp_path: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ConfigError, match=f"stem.0.weight of the module is {name}.*float()"):
        export_bundle(SmallNet().to(dtype), net_spec(), tmp_path / "b")


@pytest.mark.parametrize("is_good", [True, False])
def test_a_module_keeps_its_mode(is_good: bool, tmp_path: Path) -> None:
    net = Returning((lambda y: y) if is_good else (lambda y: (y,)))
    net.train()
    net.net.block[1].eval()  # as a frozen batch norm is
    before = {name: part.training for name, part in net.named_modules()}
    values = copy.deepcopy(net.state_dict())
    try:
        export_bundle(net, net_spec(), tmp_path / "b")
    except ConfigError:
        assert not is_good
    assert {name: part.training for name, part in net.named_modules()} == before
    assert all(torch.equal(values[k], v) for k, v in net.state_dict().items())
