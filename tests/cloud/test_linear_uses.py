"""What linearity buys: influence, forgetting, uncertainty, and tangents as values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from samespace_cloud.checkpoint import write_tensors
from samespace_cloud.linear import (
    LeastSquares,
    Linearized,
    MergedTangents,
    TangentVector,
    forget,
    influence,
    jacobian,
    leaky,
    leave_one_out,
    linear_outputs,
    posterior_variance,
    rescaled_targets,
    set_tangent,
    solve_cg,
    solve_tangent,
)
from samespace_edge import CheckpointError, ConfigError


def small_net(seed: int = 0) -> Linearized:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    return Linearized(leaky(module.eval(), 0.1))


def pictures(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))


def problem_of(count: int = 24, penalty: float = 0.3) -> LeastSquares:
    labels = torch.arange(count) % 3
    x = pictures(count)
    x[:, :, :4] += 0.7 * labels[:, None, None, None]
    return LeastSquares(x, *rescaled_targets(labels, 3, emphasis=2.0), penalty)


def without(problem: LeastSquares, *rows: int) -> LeastSquares:
    return problem.without(torch.tensor(rows))


def test_influence_is_what_training_without_a_picture_changes() -> None:
    model, problem = small_net(), problem_of()
    solved = solve_tangent(model, problem)
    x = pictures(5)
    told = influence(model, solved, x)
    assert told.shape == (24, 5, 3)
    now = linear_outputs(model, x, solved.tangent)
    retrained = torch.stack(
        [
            linear_outputs(model, x, solve_tangent(model, without(problem, i)).tangent) - now
            for i in range(24)
        ]
    )
    both = torch.stack([told.flatten(), retrained.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9999
    assert (told - retrained).abs().max() < 1e-2 * retrained.abs().max()


def test_leaving_one_out_is_an_honest_validation() -> None:
    model, problem = small_net(), problem_of()
    told = leave_one_out(solve_tangent(model, problem))
    for i in (0, 7, 23):
        alone = solve_tangent(model, without(problem, i)).tangent
        assert torch.allclose(
            told[i], linear_outputs(model, problem.inputs[[i]], alone)[0], atol=1e-3
        )
    weights = problem.weights.clone()
    weights[3, 1] = 0
    partly = LeastSquares(problem.inputs, problem.targets, weights, problem.penalty)
    said = leave_one_out(solve_tangent(model, partly))
    assert said.isnan().nonzero().tolist() == [[3, 1]]


def test_forgotten_pictures_leave_nothing_behind() -> None:
    model, problem = small_net(), problem_of()
    solved = solve_tangent(model, problem)
    gone = (2, 11, 12)
    retrained = solve_tangent(model, without(problem, *gone)).tangent
    forgotten = forget(solved, torch.tensor(gone))
    moved = (solved.tangent - retrained).norm()
    assert (forgotten - retrained).norm() < 1e-4 * moved
    again = solve_cg(model, without(problem, *gone), tolerance=1e-6, start=solved.tangent)
    assert (again.tangent - retrained).norm() < 1e-2 * moved
    with pytest.raises(ConfigError, match="24 pictures, counted from 0"):
        forget(solved, torch.tensor([24]))
    with pytest.raises(ConfigError, match="the answer is w0"):
        forget(solved, torch.arange(24))


def test_uncertainty_is_the_gaussian_posteriors() -> None:
    model, problem = small_net(), problem_of()
    solved = solve_tangent(model, problem)
    x = torch.cat([problem.inputs[:2], 10 * pictures(3)])
    told = posterior_variance(model, solved, x, noise=2.0)
    rows = solved.jacobian
    covariance = 2 * torch.linalg.inv(
        rows.T @ rows + problem.penalty * torch.eye(rows.shape[1], dtype=torch.float64)
    )
    j = jacobian(model, x).double()
    expected = torch.einsum("nkp,pq,nkq->nk", j, covariance, j)
    assert torch.allclose(told.double(), expected, rtol=1e-3)
    assert told[2:].mean() > 5 * told[:2].mean()  # far from what was seen
    estimated = posterior_variance(model, solved, x)
    assert (estimated / told).std() < 1e-4 * (estimated / told).mean()
    with pytest.raises(ConfigError, match="above 0, not 0"):
        posterior_variance(model, solved, x, noise=0.0)
    # Pictures that count for nothing say nothing, of the noise either.
    more = LeastSquares(
        torch.cat([problem.inputs, pictures(24)]),
        torch.cat([problem.targets, problem.targets]),
        torch.cat([problem.weights, 0 * problem.weights]),
        problem.penalty,
    )
    torch.testing.assert_close(
        posterior_variance(model, solve_tangent(model, more), x), estimated, rtol=1e-4, atol=0
    )


def customers(model: Linearized) -> dict[str, TangentVector]:
    found = {}
    for n, name in enumerate(("ann", "bob", "eve")):
        set_tangent(model, solve_tangent(model, problem_of(9 + 3 * n)).tangent)
        found[name] = TangentVector.of(model)
    return found


def test_tangents_add_as_their_outputs_do() -> None:
    model = small_net()
    of = customers(model)
    x = pictures(4)
    base = model.base(x)

    def change(vector: TangentVector) -> Tensor:
        vector.apply(model)
        return (model(x) - base).detach()

    both = change(of["ann"].scaled(0.5) + of["bob"])
    expected = 0.5 * change(of["ann"]) + change(of["bob"])
    assert torch.allclose(both, expected, atol=1e-4)
    assert not change(of["ann"] - of["ann"]).any()
    assert of["ann"].scaled(-2.0).norm == pytest.approx(2 * of["ann"].norm)


@pytest.mark.parametrize("how", ["average", "sum"])
def test_a_customer_can_be_taken_away_again(how: Literal["average", "sum"]) -> None:
    of = customers(small_net())
    merged = MergedTangents(of, how)
    without_bob = merged.without("bob").vector
    never_had = MergedTangents({n: of[n] for n in ("eve", "ann")}, how).vector
    for name, tensor in without_bob.tensors.items():
        assert torch.equal(tensor, never_had.tensors[name])
    divisor = 3 if how == "average" else 1
    by_hand = (of["ann"] + of["bob"] + of["eve"]).scaled(1 / divisor)
    assert (merged.vector - by_hand).norm < 1e-6 * by_hand.norm
    with pytest.raises(ConfigError, match="no tangent 'mia' to remove; there are ann, bob, eve"):
        merged.without("mia")
    with pytest.raises(ConfigError, match="no tangent to merge"):
        MergedTangents({})
    with pytest.raises(ConfigError, match="not 'median'"):
        MergedTangents(of, "median")


def test_tangents_of_other_weights_are_refused_by_name() -> None:
    model, other = small_net(), small_net(seed=1)
    mine, theirs = TangentVector.of(model), TangentVector.of(other)
    both = rf"{mine.start.short}….*{theirs.start.short}…"
    with pytest.raises(ConfigError, match=both):
        mine + theirs
    with pytest.raises(ConfigError, match=rf"'ann'.*{both[:12]}.*'bob'"):
        MergedTangents({"ann": mine, "bob": theirs})
    with pytest.raises(ConfigError, match=rf"belongs to the weights {both}"):
        mine.apply(other)


def test_tangents_of_other_parameters_are_refused() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    whole = TangentVector.of(Linearized(module))
    part = TangentVector.of(Linearized(module, only=["1.bias"]))
    with pytest.raises(ConfigError, match=r"not of the same parameters: 1\.weight.*'only'"):
        whole + part


def test_tangents_are_saved_without_pickle(tmp_path: Path) -> None:
    vector = customers(small_net())["ann"]
    file = tmp_path / "ann.safetensors"
    vector.save(file)
    found = TangentVector.load(file)
    assert found.start == vector.start
    assert all(torch.equal(found.tensors[n], t) for n, t in vector.tensors.items())
    assert "numbers, norm=" in repr(found)
    with pytest.raises(CheckpointError, match="is not there"):
        TangentVector.load(tmp_path / "bob.safetensors")
    write_tensors(file, dict(vector.tensors), {})
    with pytest.raises(CheckpointError, match="holds no tangent"):
        TangentVector.load(file)
    later = {"schema": 2, "start": vector.start.hex}
    write_tensors(file, dict(vector.tensors), {"tangent": json.dumps(later)})
    with pytest.raises(CheckpointError, match="schema 2; this version reads 1"):
        TangentVector.load(file)
