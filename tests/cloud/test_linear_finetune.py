"""Fine-tuning a backbone with labels, from pictures to a tuned network."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samespace_cloud.linear as linear
from samespace_cloud.backbones import backbone_spec
from samespace_cloud.linear import LinearConfig, finetune_linear, leave_one_out, solve_tangent
from samespace_cloud.linear._finetune import linear_start
from samespace_edge import ConfigError

QUICK = LinearConfig(epochs=6, batch_size=16, weight_decay=0.02, iterations=200)


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return backbone_spec("ir-s4-1x4x1s1k3-2x4x1s2k3-f8").build().eval()


def task(count: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures whose label is where they are bright, in noise."""
    labels = torch.arange(count) % 4
    x = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    for i, label in enumerate(labels.tolist()):
        top, left = 8 * (label // 2), 8 * (label % 2)
        x[i, label % 3, top : top + 8, left : left + 8] += 1.0
    return x, labels


def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("solver", ["cg", "kfac", "sgd", "adam"])
def test_every_solver_learns_more_than_the_head_knew(solver: str) -> None:
    x, labels = task()
    config = replace(QUICK, solver=solver, lr=1e-2 if solver == "adam" else 0.5)  # type: ignore[arg-type]
    tuned = finetune_linear(backbone(), x, labels, config)
    assert tuned.model.names[0].startswith("backbone.")
    assert tuned.problem.penalty == pytest.approx(0.02 * 32)
    before = accuracy(tuned.model.base, x, labels)
    assert accuracy(tuned.model, x, labels) > before
    if solver == "cg":
        assert tuned.log[-1]["residual"] <= 1e-3
        assert leave_one_out(solve_tangent(tuned.model, tuned.problem)).shape == (32, 4)
    else:
        assert len(tuned.log) == 6
        assert tuned.log[-1]["loss"] < tuned.log[0]["loss"]


def test_the_same_settings_give_the_same_model() -> None:
    x, labels = task()
    given = backbone()
    state = {k: v.clone() for k, v in given.state_dict().items()}
    config = replace(QUICK, solver="kfac", epochs=2, seed=3)
    first, second = (finetune_linear(given, x, labels, config).model(x) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(v, state[k]) for k, v in given.state_dict().items())


def test_no_seed_and_no_order_moves_the_optimum() -> None:
    x, labels = task()
    config = replace(QUICK, tolerance=1e-5, slope=0.0)
    first = finetune_linear(backbone(), x, labels, config).model
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    other = finetune_linear(backbone(), x[order], labels[order], replace(config, seed=1)).model
    with torch.no_grad():
        a, b, start = first(x), other(x), first.base(x)
    assert (a - b).norm() < 1e-3 * (a - start).norm()


def test_larger_targets_at_a_dearer_weight_decay_are_the_same_but_for_the_head() -> None:
    x, labels = task()
    config = replace(QUICK, tolerance=1e-6, slope=0.0, kappa=0.1)
    ten = replace(config, kappa=1.0, weight_decay=100 * config.weight_decay)

    def apart(only: list[str] | None) -> float:
        one, other = (finetune_linear(backbone(), x, labels, c, only=only) for c in (config, ten))
        with torch.no_grad():
            said = one.model(x)
            return float((other.model(x) / 10 - said).norm() / said.norm())

    assert apart(["backbone"]) < 1e-4
    assert apart(None) > 1e-2


def test_other_starts_and_losses_run() -> None:
    x, labels = task()
    plain = replace(QUICK, slope=0.0, head="random", solver="adam", lr=1e-2)
    tuned = finetune_linear(backbone(), x, labels, replace(plain, loss="cross-entropy"))
    assert tuned.log[-1]["loss"] < tuned.log[0]["loss"]
    seen: list[dict[str, Any]] = []
    only_head = finetune_linear(
        backbone(),
        x,
        labels,
        replace(QUICK, preconditioned=True, kfac_pictures=16),
        only=["head"],
        progress=seen.append,
    )
    assert only_head.model.names == ("head.weight", "head.bias")
    assert list(only_head.log) == seen


def test_a_last_picture_by_itself_is_no_batch_of_its_own() -> None:
    """Batch norms cannot be measured on one, and all batches count alike."""
    x, labels = task(33)
    config = replace(QUICK, slope=0.1, batch_size=32)
    start = linear_start(backbone(), x, labels, 4, config)
    turned = linear_start(backbone(), x.roll(1, 0), labels.roll(1), 4, config)
    for one, other in zip(start.buffers(), turned.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.05)


def test_data_that_cannot_be_learnt_from_is_refused() -> None:
    x, labels = task()
    tune = finetune_linear
    with pytest.raises(ConfigError, match=r"classes 4, 5 have no picture among the 32"):
        tune(backbone(), x, labels, QUICK, classes=6)
    with pytest.raises(ConfigError, match=r"8 labels, such as 3, are not among 0 to 2"):
        tune(backbone(), x, labels, QUICK, classes=3)
    with pytest.raises(ConfigError, match="such as -1"):
        tune(backbone(), x, labels - 1, QUICK)
    with pytest.raises(ConfigError, match="32 pictures have 31 labels"):
        tune(backbone(), x, labels[:31], QUICK)
    spoilt = x.clone()
    spoilt[5, 0, 0, 0] = torch.inf
    with pytest.raises(ConfigError, match="not finite"):
        tune(backbone(), spoilt, labels, replace(QUICK, recalibrate=False))


@pytest.mark.parametrize(
    "wrong",
    [
        {"solver": "newton"},
        {"loss": "hinge"},
        {"kappa": 0.0},
        {"slope": 1.0},
        {"weight_decay": 0.0},
        {"weight_decay": float("nan")},
        {"damping": -1.0},
        {"epochs": 0},
        {"iterations": 8.5},
        {"seed": -1},
        {"batch_size": 0},
        {"momentum": 1.0},
        {"tolerance": 1.0},
        {"head": "zero"},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"out of range: {name} = "):
        LinearConfig(**wrong)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for solver in ("cg", "kfac"):
        with pytest.raises(ConfigError, match=f"{solver} needs a curvature that is constant"):
            LinearConfig(solver=solver, loss="cross-entropy")  # type: ignore[arg-type]
    assert LinearConfig.from_json(QUICK.to_json()) == QUICK
    with pytest.raises(ConfigError, match="unknown settings of a linear fine-tuning: rank"):
        LinearConfig.from_json({"rank": 4})


def test_the_door_is_sorted_documented_and_light() -> None:
    public = linear.__all__
    assert public == sorted(public, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    for name in public:
        assert getattr(linear, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = linear.nothing
    code = "import samespace_cloud.linear, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
