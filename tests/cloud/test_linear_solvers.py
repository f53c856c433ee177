"""One optimum, and every way to it: closed form, conjugate gradients, K-FAC, gradient descent."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from samespace_cloud.linear import (
    KFAC,
    LeastSquares,
    LinearConfig,
    Linearized,
    leaky,
    linear_outputs,
    rescaled_targets,
    set_tangent,
    solve_cg,
    solve_tangent,
    square_loss,
    start_outputs,
    steepest,
    tangent_kernel,
)
from samespace_cloud.linear._descent import descend
from samespace_cloud.linear._dual import exact_jacobian, jacobian
from samespace_cloud.linear._finetune import fit_tangent
from samespace_cloud.linear._linearized import flatten, unflatten
from samespace_edge import ConfigError


def small_net() -> Linearized:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ReLU6(),
        nn.Conv2d(6, 8, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return Linearized(leaky(module.eval(), 0.1))


def pictures(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(100 * seed + count)
    return torch.randn(count, 3, 8, 8, generator=generator)


def problem_of(count: int = 48, penalty: float = 0.5, emphasis: float = 2.0) -> LeastSquares:
    labels = torch.arange(count) % 3
    x = pictures(count)
    x[:, :, :4] += 0.7 * labels[:, None, None, None]
    # One channel is louder than another, and none is centred: what K-FAC is for.
    x = (x + 1) * torch.tensor([3.0, 1.0, 0.3]).view(1, 3, 1, 1)
    return LeastSquares(x, *rescaled_targets(labels, 3, emphasis=emphasis), penalty)


def distance(model: Linearized, problem: LeastSquares, found: Tensor, best: Tensor) -> float:
    """Between two tangents, in what the network says; relative to what the tangent changes."""
    a, b = (linear_outputs(model, problem.inputs, t) for t in (found, best))
    return float((a - b).norm() / (b - start_outputs(model, problem.inputs)).norm())


def test_the_rescaled_square_loss_is_the_papers() -> None:
    labels = torch.tensor([2, 0])
    outputs = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    targets, weights = rescaled_targets(labels, 3, kappa=15, emphasis=4)
    by_hand = ((4 * (3 - 15) ** 2 + 1 + 4) / 3 + (4 * (4 - 15) ** 2 + 25 + 36) / 3) / 2
    assert float(square_loss(outputs, targets, weights)) == pytest.approx(by_hand)
    assert torch.equal(rescaled_targets(labels, 3)[0][0], torch.tensor([0, 0, 15.0]))
    with pytest.raises(ConfigError, match=r"2 labels, such as 3, are not among 0 to 2"):
        rescaled_targets(torch.tensor([3, 0, -1]), 3)
    with pytest.raises(ConfigError, match="int64"):
        rescaled_targets(torch.tensor([1.0]), 3)


def test_the_closed_form_is_where_the_gradient_is_zero() -> None:
    model, problem = small_net(), problem_of()
    solved = solve_tangent(model, problem)
    set_tangent(model, solved.tangent)
    outputs = model(problem.inputs)
    decay = problem.penalty * sum(t.square().sum() for t in model.parameters())
    loss = len(problem) * square_loss(outputs, problem.targets, problem.weights) + decay
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    set_tangent(model, 0 * solved.tangent)
    start = len(problem) * square_loss(model(problem.inputs), problem.targets, problem.weights)
    at_start = torch.autograd.grad(start, list(model.parameters()))
    assert (
        flatten(dict(enumerate(gradients))).norm()
        < 1e-4
        * flatten(  # type: ignore[arg-type]
            dict(enumerate(at_start))  # type: ignore[arg-type]
        ).norm()
    )
    assert problem.loss(outputs.detach(), solved.tangent) == pytest.approx(
        float(loss.detach()), rel=1e-4
    )


def test_outputs_without_a_common_weight_have_kernels_of_their_own() -> None:
    torch.manual_seed(1)
    model = Linearized(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    x = torch.randn(10, 3, 2, 2)
    labels = torch.arange(10) % 3
    problem = LeastSquares(x, *rescaled_targets(labels, 3, emphasis=3.0), 0.2)
    solved = solve_tangent(model, problem)
    kernel = tangent_kernel(model, x)
    alone = x.flatten(1) @ x.flatten(1).T + 1
    for i in range(3):
        assert torch.allclose(kernel[:, i, :, i].float(), alone, atol=1e-4)
        assert not kernel[:, i, :, (i + 1) % 3].any()
    roots = problem.weights.double().sqrt().reshape(-1)
    dense = roots[:, None] * kernel.view(30, 30) * roots + 0.2 * torch.eye(30)
    assert torch.allclose(solved.inverse @ dense, torch.eye(30, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("count", [3, 4, 32])
def test_pictures_that_torch_takes_wrongly_together_go_one_by_one(count: int) -> None:
    """PReLU: where as many pictures are taken as there are outputs, and an error elsewhere."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    )
    model = Linearized(module.eval())
    x = torch.randn(count, 3, 8, 8)
    some = torch.randn(len(flatten(model.weights())))
    along = model.streams(x, unflatten(some, model.tangents()))[1]
    assert torch.allclose(jacobian(model, x) @ some, along, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.3, 1e-3, 1e-6])
def test_the_distance_is_a_bound_whatever_the_penalty(penalty: float) -> None:
    """The truth is the same problem's optimum, of the primal form, all of it in float64."""
    model, problem = small_net(), replace(problem_of(), penalty=penalty)
    rows = exact_jacobian(model, problem.inputs)
    whole = (problem.weights.double()[..., None] * rows).flatten(0, 1)
    flat = rows.flatten(0, 1)
    with torch.no_grad():
        base = copy.deepcopy(model).double().base(problem.inputs.double())
    right = whole.T @ (problem.targets.double() - base).flatten()
    hessian = flat.T @ whole + penalty * torch.eye(flat.shape[1], dtype=torch.float64)
    truth = torch.linalg.solve(hessian, right)
    solved = solve_tangent(model, problem)
    assert (solved.tangent - truth).norm() <= 1.001 * solved.off(solved.tangent)[1]
    for tolerance in (1e-3, 1e-9):
        found = solve_cg(model, problem, tolerance, 100)
        assert (found.tangent - truth).norm() <= found.distance


def test_what_the_solvers_cannot_do_is_named() -> None:
    torch.manual_seed(0)
    gated = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Hardsigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    problem = LeastSquares(torch.randn(4, 3, 8, 8), torch.eye(4), torch.ones(4, 4), 0.1)
    named = r"an operation of 1 \(Hardsigmoid\) has a forward-mode derivative that cannot be trans"
    for solver in ("cg", "sgd"):
        with pytest.raises(ConfigError, match=named):
            fit_tangent(Linearized(gated), problem, LinearConfig(solver=solver))  # type: ignore[arg-type]
    assert fit_tangent(Linearized(gated), problem, LinearConfig(solver="exact"))[1].residual < 1e-4

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(x.mean((2, 3)))
            return y

    with pytest.raises(ConfigError, match=r"do not depend on unused\.weight, unused\.bias"):
        fit_tangent(Linearized(Idle(), only=["unused"]), problem, LinearConfig())
    with pytest.raises(ConfigError, match="layer 'unused' does not run, so K-FAC has no factors"):
        fit_tangent(Linearized(Idle()), problem, LinearConfig(solver="kfac"))
    broad = replace(problem, targets=torch.ones(4, 1), weights=torch.ones(4, 1))
    for solve in (solve_cg, solve_tangent):
        with pytest.raises(ConfigError, match=r"makes outputs \(4, 4\), the targets are \(4, 1\)"):
            solve(Linearized(Idle()), broad)  # type: ignore[operator]


def test_conjugate_gradients_find_the_closed_form() -> None:
    model, problem = small_net(), problem_of()
    best = solve_tangent(model, problem).tangent
    found = solve_cg(model, problem, tolerance=1e-5)
    assert found.residual < 2e-5
    assert found.residuals[-1] <= 1e-5
    assert len(found.residuals) == found.iterations + 1
    assert distance(model, problem, found.tangent, best) < 1e-3
    helped = solve_cg(model, problem, tolerance=1e-5, precondition=KFAC(model, problem))
    assert distance(model, problem, helped.tangent, best) < 1e-3
    stopped = solve_cg(model, problem, tolerance=1e-9, iterations=3)
    assert stopped.iterations == 3
    assert stopped.residual > 1e-5
    assert "iterations=3" in repr(stopped)


def test_the_order_of_pictures_and_of_updates_does_not_matter() -> None:
    model, problem = small_net(), problem_of()
    first = solve_cg(model, problem, tolerance=1e-6).tangent
    order = torch.randperm(len(problem), generator=torch.Generator().manual_seed(4))
    shuffled = solve_cg(model, problem.part(order), tolerance=1e-6, batch=7).tangent
    assert distance(model, problem, shuffled, first) < 1e-4
    for half in (slice(0, 24), slice(24, 48)):  # one customer's pictures first, or the other's
        begun = solve_cg(model, problem.part(half), tolerance=1e-6).tangent
        went_on = solve_cg(model, problem, tolerance=1e-6, start=begun)
        assert distance(model, problem, went_on.tangent, first) < 1e-4
    again = solve_cg(model, problem, tolerance=1e-6, start=first)
    assert again.iterations <= 2


def test_a_linear_layer_gets_newtons_step() -> None:
    torch.manual_seed(1)
    model = Linearized(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    x = torch.randn(40, 3, 2, 2) * torch.logspace(-1, 1, 12).view(1, 3, 2, 2)
    labels = torch.arange(40) % 3
    problem = LeastSquares(x, *rescaled_targets(labels, 3), 0.7)
    best = solve_tangent(model, problem).tangent
    gradient = _gradient(model, problem)
    step = KFAC(model, problem, damping=0.0, correction="exact")(gradient)
    assert torch.allclose(-step, best, atol=1e-4)
    sampled = KFAC(model, problem, damping=0.0, correction="exact", draws=64)(gradient)
    assert torch.nn.functional.cosine_similarity(sampled, step, dim=0) > 0.98
    # With the damping split, the step is Newton's as far as the penalty is small.
    little = replace(problem, penalty=1e-7)
    split = -KFAC(model, little, damping=0.0)(_gradient(model, little))
    newton = solve_tangent(model, little).tangent
    assert torch.nn.functional.cosine_similarity(split, newton, dim=0) > 0.999


def test_every_group_of_a_convolution_is_a_linear_layer_of_its_own() -> None:
    torch.manual_seed(1)
    # A kernel as large as the picture: one position, so a linear layer for each group.
    model = Linearized(nn.Sequential(nn.Conv2d(4, 4, 2, groups=2), nn.Flatten()))
    x = torch.randn(40, 4, 2, 2)
    targets = torch.randn(40, 4)
    problem = LeastSquares(x, targets, torch.ones(40, 4) / 4, 0.3)
    best = solve_tangent(model, problem).tangent
    for spatial in ("expand", "reduce"):
        kfac = KFAC(model, problem, damping=0.0, correction="exact", spatial=spatial)
        assert torch.allclose(-kfac(_gradient(model, problem)), best, atol=1e-4)


def test_norms_have_the_exact_diagonal() -> None:
    model, problem = small_net(), problem_of()
    kfac = KFAC(model, problem, damping=0.0)
    full = jacobian(model, problem.inputs)
    diagonal = torch.einsum("nkp,nk->p", full.square(), problem.weights) + problem.penalty
    parts = unflatten(kfac(torch.ones_like(diagonal)), model.weights())
    expected = unflatten(0.5 / diagonal, model.weights())
    for name in ("1.weight", "1.bias"):
        assert torch.allclose(parts[name], expected[name], rtol=1e-3)


def test_factors_can_be_estimated_from_some_pictures_and_directions() -> None:
    model, problem = small_net(), problem_of()
    gradient = _gradient(model, problem)
    whole = KFAC(model, problem)(gradient)
    some = KFAC(model, problem, pictures=16, draws=2)
    assert torch.equal(some(gradient), KFAC(model, problem, pictures=16, draws=2)(gradient))
    assert torch.nn.functional.cosine_similarity(some(gradient), whole, dim=0) > 0.8


def test_kfac_is_symmetric_and_positive() -> None:
    model, problem = small_net(), problem_of()
    kfac = KFAC(model, problem)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, len(flatten(model.weights())), generator=generator)
    assert torch.dot(a, kfac(b)) == pytest.approx(float(torch.dot(b, kfac(a))), rel=1e-3)
    assert torch.dot(a, kfac(a)) > 0


def test_kfac_names_what_it_has_no_factors_for() -> None:
    class Scaled(nn.Linear):
        pass

    module = nn.Sequential(nn.Flatten(), nn.LayerNorm(12), Scaled(12, 2))
    problem = LeastSquares(torch.randn(4, 3, 2, 2), torch.zeros(4, 2), torch.ones(4, 2), 1.0)
    with pytest.raises(ConfigError, match=r"no factors for '1\.weight' of LayerNorm.*only"):
        KFAC(Linearized(module), problem)
    twice = nn.Linear(12, 12)
    module = nn.Sequential(nn.Flatten(), twice, twice, nn.Linear(12, 2))
    with pytest.raises(ConfigError, match="runs twice"):
        KFAC(Linearized(module), problem)


def _descended(model: Linearized, problem: LeastSquares, solver: str, steps: int) -> Tensor:
    """The tangent after so many full steps from w0."""
    set_tangent(model, 0 * flatten(model.weights()))
    config = LinearConfig(solver=solver, epochs=steps, batch_size=len(problem), lr=1.0)  # type: ignore[arg-type]
    kfac = KFAC(model, problem, damping=1e-3) if solver == "kfac" else None
    descend(model, problem, config, kfac)
    return flatten(model.tangents()).detach()


@pytest.mark.parametrize("solver", ["kfac", "sgd"])
def test_descent_converges_to_the_closed_form(solver: str) -> None:
    model, problem = small_net(), problem_of(24, penalty=1.0)
    best = solve_tangent(model, problem).tangent
    assert distance(model, problem, _descended(model, problem, solver, 130), best) < 1e-3


def test_kfac_needs_far_fewer_steps_than_plain_descent() -> None:
    model, problem = small_net(), problem_of(160, penalty=0.02)
    best = solve_tangent(model, problem).tangent

    def loss(tangent: Tensor) -> float:
        return problem.loss(linear_outputs(model, problem.inputs, tangent), tangent)

    start, least = loss(0 * best), loss(best)
    by_kfac = (loss(_descended(model, problem, "kfac", 50)) - least) / (start - least)
    by_sgd = (loss(_descended(model, problem, "sgd", 150)) - least) / (start - least)
    assert by_kfac < 0.02
    assert by_sgd > 2 * by_kfac


def test_the_steepest_curvature_is_the_hessians_largest_eigenvalue() -> None:
    model, problem = small_net(), problem_of()
    full = jacobian(model, problem.inputs)
    rows = (problem.weights.sqrt()[:, :, None] * full).flatten(0, 1)
    largest = 2 * (torch.linalg.matrix_norm(rows, 2).square() + problem.penalty)
    assert steepest(model, problem, iterations=30) == pytest.approx(float(largest), rel=1e-2)


def test_problems_that_make_no_sense_are_refused() -> None:
    x, t, w = torch.zeros(4, 3, 8, 8), torch.zeros(4, 3), torch.ones(4, 3)
    with pytest.raises(ConfigError, match=r"4 inputs, targets \(3, 3\)"):
        LeastSquares(x, t[:3], w, 1.0)
    with pytest.raises(ConfigError, match="targets are not finite"):
        LeastSquares(x, t + torch.inf, w, 1.0)
    with pytest.raises(ConfigError, match="finite and at least 0"):
        LeastSquares(x, t, -w, 1.0)
    with pytest.raises(ConfigError, match="penalty has to be above 0"):
        LeastSquares(x, t, w, 0.0)
    model = small_net()
    with pytest.raises(ConfigError, match=r"kernel would have .* million numbers.*solve_cg"):
        solve_tangent(model, problem_of(9000))


def _gradient(model: Linearized, problem: LeastSquares) -> Tensor:
    """Of the objective, at w0."""
    rows = jacobian(model, problem.inputs)
    off = problem.weights * (start_outputs(model, problem.inputs) - problem.targets)
    return 2 * torch.einsum("nkp,nk->p", rows, off)
