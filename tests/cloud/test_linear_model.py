"""A linearised network: exact at w0, linear beyond it, and leaky where it was dead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.backbones import backbone_spec
from samespace_cloud.linear import Linearized, leaky, recalibrate, set_tangent
from samespace_cloud.linear._activations import leaky_hardswish, leaky_relu6
from samespace_cloud.linear._dual import jacobian
from samespace_cloud.linear._linearized import flatten, unflatten
from samespace_cloud.linear._problem import LeastSquares, curve, linear_outputs, pull_back
from samespace_edge import ConfigError

NETS = {
    "relu6": "ir-s4-1x4x1s1k3-2x4x2s2k3-f8",
    "hard swish and squeeze": "v3-s4-8x8s2k3q-16x8s1k3qh-f8",
    "shuffle": "sh-s4p-8:3x-f16",
}


def net(text: str, size: int = 16) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(backbone_spec(text).build(), nn.Linear(backbone_spec(text).width, 3))
    return recalibrate(module.eval(), [pictures(32, size)])


def pictures(count: int, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, size, size, generator=generator)


def direction(model: Linearized, seed: int = 1) -> Tensor:
    like = flatten(model.weights())
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("text", NETS.values(), ids=NETS.keys())
def test_it_is_the_network_at_w0_and_its_derivative_beyond(text: str) -> None:
    module = net(text).double()
    model = Linearized(module)
    x = pictures(4).double()
    assert torch.equal(model(x), module(x))

    vector = direction(model).double()
    step = 1e-7
    moved = net(text).double()
    with torch.no_grad():
        parts = unflatten(vector, model.weights())
        for name, parameter in moved.named_parameters():
            parameter.add_(step * parts[name])
        difference = (moved(x) - module(x)) / step
        _, change = model.streams(x, parts)
    assert (difference - change).abs().max() < 1e-4 * change.abs().max()


def test_derivatives_are_the_full_jacobian() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU6(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )
    model = Linearized(recalibrate(module.eval(), [pictures(8, 8)]))
    x = pictures(3, 8)
    full = jacobian(model, x)
    assert full.shape == (3, 2, len(flatten(model.weights())))
    vector = direction(model)
    _, change = model.streams(x, unflatten(vector, model.weights()))
    assert torch.allclose(full @ vector, change, atol=1e-4)

    outputs = torch.randn(3, 2, generator=torch.Generator().manual_seed(5))
    pulled = torch.einsum("nk,nkp->p", outputs, full)
    assert torch.allclose(pull_back(model, x, outputs, batch=2), pulled, atol=1e-4)

    weights = torch.rand(3, 2, generator=torch.Generator().manual_seed(6))
    problem = LeastSquares(x, outputs, weights, 0.3)
    expected = torch.einsum("nkp,nk->p", full, weights * (full @ vector)) + 0.3 * vector
    assert torch.allclose(curve(model, problem, vector, batch=2), expected, atol=1e-3, rtol=1e-4)


def test_gradients_of_the_tangent_are_those_of_the_jacobian() -> None:
    model = Linearized(net(NETS["relu6"]))
    x = pictures(4)
    model(x)[:, 0].sum().backward()
    full = jacobian(model, x)[:, 0].sum(0)
    found = torch.cat([t.grad.reshape(-1) for t in model.tangents().values() if t.grad is not None])
    assert torch.allclose(found, full, atol=1e-4)


def test_only_the_tangent_is_trained_and_norms_never_see_the_batch() -> None:
    module = net(NETS["relu6"])
    model = Linearized(module)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in module.parameters())
    assert all(not p.any() for p in model.parameters())
    before = {name: b.clone() for name, b in model.named_buffers()}
    x = pictures(4)
    expected = model(x)
    model.train()
    assert model.training
    assert torch.equal(model(x), expected)
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())
    assert next(module.parameters()).requires_grad  # what was given stays as it was


def test_only_a_part_is_linearised() -> None:
    module = net(NETS["relu6"])
    by_prefix = Linearized(module, only=["1"])
    assert by_prefix.names == ("1.weight", "1.bias")
    by_predicate = Linearized(module, only=lambda name: name.endswith("conv.weight"))
    assert len(by_predicate.names) > 3
    assert all(name.endswith("conv.weight") for name in by_predicate.names)
    with pytest.raises(ConfigError, match=r"no parameter of Sequential is left.*1\.weight"):
        Linearized(module, only=["2"])


class _Forward(torch.autograd.Function):
    """Has no forward-mode derivative."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class _Stubborn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Forward.apply(x)
        return y


def test_an_operation_without_a_forward_derivative_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), _Stubborn(), nn.Flatten(), nn.Linear(144, 2))
    model = Linearized(module)
    with pytest.raises(
        ConfigError, match=r"operation of 1 \(_Stubborn\) has no forward-mode.*only"
    ):
        model(pictures(2, 8))
    Linearized(module, only=["3"])(pictures(2, 8))  # behind it there is nothing to miss
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(pictures(2, 9))


def test_a_part_that_is_misspelt_is_named() -> None:
    module = net(NETS["relu6"])
    with pytest.raises(
        ConfigError, match=r"no parameter's name begins with '0\.stages\.9' \(only\)"
    ):
        Linearized(module, only=["0.stages.0", "0.stages.9"])


def test_a_norm_that_looks_at_the_batch_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ConfigError, match=r"1 \(BatchNorm2d\) keeps no statistics"):
        Linearized(module)


def test_the_fingerprint_is_of_w0_not_of_the_tangent() -> None:
    module = net(NETS["relu6"])
    model = Linearized(module)
    before = model.fingerprint
    set_tangent(model, direction(model))
    assert model.fingerprint == before == Linearized(module).fingerprint
    assert Linearized(leaky(module, 0.1)).fingerprint != Linearized(leaky(module, 0.2)).fingerprint
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1e-5
    assert Linearized(module).fingerprint != before


def test_leaky_activations_are_continuous_with_a_slope_outside() -> None:
    x = torch.tensor([-4.0, 0.0, 3.0, 6.0, 8.0])
    assert torch.allclose(leaky_relu6(x, 0.1), torch.tensor([-0.4, 0, 3, 6, 6.2]), atol=1e-6)
    y = torch.linspace(-8, 8, 20_001, dtype=torch.float64, requires_grad=True)
    for function in (leaky_relu6, leaky_hardswish):
        made = function(y, 0.1)
        (slope,) = torch.autograd.grad(made.sum(), y)
        assert made.diff().abs().max() < 2 * 16 / 20_000  # no jump
        assert torch.allclose(slope[y < -3.1], torch.tensor(0.1, dtype=torch.float64))
    assert torch.equal(leaky_hardswish(x, 0.0), x * F.relu6(x + 3) / 6)


@pytest.mark.parametrize("text", NETS.values(), ids=NETS.keys())
def test_leaky_networks_keep_their_weights(text: str) -> None:
    module = net(text)
    x = pictures(4)
    assert torch.equal(leaky(module, 0.0)(x), module(x))
    changed = leaky(module, 0.1)
    state = changed.state_dict()
    assert state.pop("leak") == pytest.approx(0.1)
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    small = (leaky(module, 1e-3)(x) - module(x)).abs().max()
    assert 0 < small < (changed(x) - module(x)).abs().max()
    with pytest.raises(ConfigError, match="leaky already"):
        leaky(changed, 0.1)
    with pytest.raises(ConfigError, match="below 1, not 1"):
        leaky(module, 1.0)


def test_a_gate_stays_a_gate() -> None:
    module = net(NETS["hard swish and squeeze"])
    graph = str(leaky(module, 0.1).graph)
    assert graph.count("target=torch.nn.functional.relu6") == 2  # one for each squeeze
    assert "leaky_relu" in graph


def test_leaky_units_have_a_derivative_where_dead_ones_had_none() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        module[0].bias.fill_(-100.0)
    x = pictures(4, 1)
    for slope, alive in ((0.0, False), (0.1, True)):
        model = Linearized(leaky(module, slope), only=["0"])
        assert bool(jacobian(model, x).any()) == alive


def test_a_network_that_cannot_be_traced_says_so() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match=r"Branch cannot be traced.*branches"):
        leaky(Branch(), 0.1)


def test_recalibration_gives_norms_what_they_see() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    x = pictures(64, 4)
    fresh = recalibrate(module, x.split(16))
    seen = module[0](x)
    assert torch.allclose(fresh[1].running_mean, seen.mean((0, 2, 3)), atol=1e-5)
    assert not fresh.training
    assert fresh[1].momentum == module[1].momentum
    assert (module[1].running_mean == 0).all()
    with pytest.raises(ConfigError, match="at least one batch"):
        recalibrate(module, [])


def test_outputs_that_are_not_finite_are_refused() -> None:
    model = Linearized(net(NETS["relu6"]))
    x = pictures(4)
    x[2] = float("nan")
    with pytest.raises(ConfigError, match="1 pictures, the first at place 2, are not finite"):
        linear_outputs(model, x, flatten(model.weights()) * 0, batch=2)
