"""Heads in closed form: optimal where the optimum is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samespace_cloud.closed_form import class_centres, fit_lda, fit_ridge
from samespace_cloud.views import steadied
from samespace_edge import ConfigError


def test_lda_finds_the_direction_that_tells_classes_apart() -> None:
    rng = np.random.default_rng(0)
    labels = torch.tensor(np.repeat(np.arange(10), 40))
    x = rng.standard_normal((400, 6))
    x[:, 0] *= 30  # loud, and tells nothing
    x[:, 3] = 0.5 * x[:, 3] + np.repeat(rng.standard_normal(10) * 5, 40)
    weight, bias = fit_lda(torch.tensor(x).float(), labels, 4, shrinkage=1e-3)
    first = weight[0].abs()
    assert first.argmax().item() == 3
    assert first[0] < 0.05 * first[3]
    projected = torch.tensor(x).float() @ weight.T + bias
    assert projected.mean(0).abs().max() < 1e-3


def test_lda_whitens_the_spread_within_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat_interleave(500)
    centres = torch.randn(6, 5, generator=generator) * 4
    mixing = torch.randn(5, 5, generator=generator)
    x = centres[labels] + torch.randn(3000, 5, generator=generator) @ mixing
    weight, bias = fit_lda(x, labels, 5, shrinkage=0.0)
    y = x @ weight.T + bias
    means = torch.stack([y[labels == c].mean(0) for c in range(6)])
    within = (y - means[labels]).T @ (y - means[labels]) / len(y)
    between = torch.linalg.eigvalsh(torch.cov(means.T, correction=0))
    assert (within - torch.diag(within.diagonal())).abs().max() < 1e-3
    # Each direction's spread is e / (1 + e), with e its ratio of between to within.
    assert ((within.diagonal() > 0) & (within.diagonal() < 1)).all()
    assert between.max() > 1


def test_a_prior_keeps_what_the_classes_seen_do_not_differ_in() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat_interleave(200)
    x = torch.randn(400, 6, generator=generator)
    x[:, 0] += 5 * labels
    plain, _ = fit_lda(x, labels, 6)
    some, bias = fit_lda(x, labels, 6, prior=0.1)
    assert torch.linalg.matrix_rank(plain) == 1
    assert torch.linalg.matrix_rank(some) == 6
    # What tells the classes apart still comes first, by far.
    lengths = some.norm(dim=1)
    assert lengths[0] > 1.5 * lengths[1]
    assert F.cosine_similarity(some[0], plain[0], dim=0).abs() > 0.999
    assert torch.allclose((x @ some.T + bias).mean(0), torch.zeros(6), atol=1e-4)


def test_lda_ignores_unlabelled_rows_and_needs_two_classes() -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(4).repeat(10)
    more = torch.cat([x, torch.full((5, 6), 1e4)])
    with_unlabelled = torch.cat([labels, torch.full((5,), -1)])
    assert torch.allclose(fit_lda(x, labels, 8)[0], fit_lda(more, with_unlabelled, 8)[0])
    weight, _ = fit_lda(x, labels, 8)
    assert weight.shape == (8, 6)
    assert (weight[3:] == 0).all()  # four classes span three directions
    with pytest.raises(ConfigError, match="at least two classes"):
        fit_lda(x, torch.zeros(40, dtype=torch.long), 4)


def test_ridge_recovers_a_linear_map() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(500, 10, generator=generator) + 3
    truth = torch.randn(4, 10, generator=generator)
    weight, bias = fit_ridge(x, x @ truth.T + 7, penalty=1e-9)
    assert torch.allclose(weight, truth, atol=1e-4)
    assert torch.allclose(bias, torch.full((4,), 7.0), atol=1e-2)


def test_class_centres() -> None:
    vectors = F.normalize(torch.tensor([[1.0, 0], [0, 1.0], [0, 1.0], [1.0, 1.0]]))
    centres = class_centres(vectors, torch.tensor([0, 0, 1, -1]), 2)
    assert torch.allclose(centres, torch.tensor([[0.7071, 0.7071], [0, 1.0]]), atol=1e-4)


def test_steadied_teaching_draws_views_together_but_not_blends() -> None:
    taught = F.normalize(torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(3)), dim=-1)
    labels = torch.tensor([0, 0, 1, 1, -1, -1])
    assert torch.equal(steadied(taught, labels, 3, 0.0), taught)
    drawn = steadied(taught, labels, 3, 2.0)
    assert torch.equal(drawn[3], taught[3])
    assert torch.allclose(drawn.norm(dim=-1), torch.ones(4, 6), atol=1e-5)

    def spread(v: torch.Tensor) -> float:
        return float(1 - (v[0] * v[1]).sum(-1).mean())

    assert spread(drawn[:3]) < 0.5 * spread(taught[:3])
    far = steadied(taught, labels, 3, 1e6)
    assert torch.allclose(far[0, 0], far[1, 1], atol=1e-3)  # one label, one place
    assert torch.allclose(far[0, 4], F.normalize(taught[:3, 4].mean(0), dim=0), atol=1e-3)


def test_features_that_are_all_alike_are_not_magnified_beyond_float32() -> None:
    """Of a barely trained network: what differs between pictures is near float32's rounding."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 8
    features = 0.5 + 1e-4 * (torch.randn(8, 32)[labels] + torch.randn(64, 32))
    targets = F.normalize(torch.randn(64, 8))
    for weight, bias in (fit_lda(features, labels, 8), fit_ridge(features, targets)):
        exact = features.double() @ weight.double().T + bias.double()
        rounded = F.linear(features, weight, bias)
        assert (rounded - exact).abs().max() < 2e-5
