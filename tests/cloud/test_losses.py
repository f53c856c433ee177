"""Losses against their formulas, worked out apart from the code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samespace_cloud.losses import LOSSES, LossContext, LossInputs, build_loss, margin_logits
from samespace_edge import ConfigError

N, D, C = 12, 8, 5


def batch(seed: int = 0) -> LossInputs:
    generator = torch.Generator().manual_seed(seed)
    return LossInputs(
        torch.randn(N, D, generator=generator, requires_grad=True),
        torch.randint(C, (N,), generator=generator),
        F.normalize(torch.randn(N, D, generator=generator)),
    )


def context(**more: object) -> LossContext:
    generator = torch.Generator().manual_seed(9)
    classifier = F.normalize(torch.randn(C, D, generator=generator))
    return LossContext(C, D, cloud_classifier=classifier, anchors=classifier, **more)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_finite_and_has_a_gradient(name: str) -> None:
    inputs = batch()
    loss = build_loss(name, context(margin=0.2))(inputs)
    assert loss.dim() == 0
    loss.backward()
    assert torch.isfinite(inputs.embedding.grad).all()
    assert inputs.embedding.grad.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_length_of_an_embedding_does_not_count(name: str) -> None:
    inputs = batch()
    loss = build_loss(name, context())
    longer = LossInputs(inputs.embedding * 7.0, inputs.label, inputs.taught)
    assert loss(longer).item() == pytest.approx(loss(inputs).item(), rel=1e-4)


def test_cosface_by_hand() -> None:
    inputs, how = batch(), context(scale=10.0, margin=0.3)
    loss = build_loss("cosface", how)
    e = F.normalize(inputs.embedding).detach().numpy()
    w = F.normalize(loss.classifier).detach().numpy()
    total = 0.0
    for row, label in zip(e @ w.T, inputs.label.tolist(), strict=True):
        logits = 10.0 * row
        logits[label] = 10.0 * (row[label] - 0.3)
        total += math.log(np.exp(logits).sum()) - logits[label]
    assert loss(inputs).item() == pytest.approx(total / N, rel=1e-5)


def test_arcface_margin_is_on_the_angle() -> None:
    angles = torch.tensor([0.3, 1.2, 3.0])
    cosine = torch.cos(angles)[:, None].repeat(1, 2)
    logits = margin_logits(cosine, torch.zeros(3, dtype=torch.long), 5.0, 0.4, arc=True)
    assert logits[0, 0].item() == pytest.approx(5 * math.cos(0.7), abs=1e-4)
    assert logits[1, 0].item() == pytest.approx(5 * math.cos(1.6), abs=1e-4)
    # Beyond pi the cosine would rise again; the paper's fallback does not.
    assert logits[2, 0].item() == pytest.approx(5 * (math.cos(3.0) - 0.4 * math.sin(0.4)), abs=1e-4)
    assert torch.allclose(logits[:, 1], 5 * cosine[:, 1])


def test_frozen_classifier_learns_nothing_itself() -> None:
    loss = build_loss("frozen-classifier", context())
    assert list(loss.parameters()) == []
    inputs = batch()
    cosine = F.normalize(inputs.embedding) @ context().cloud_classifier.T
    expected = F.cross_entropy(16.0 * cosine, inputs.label)
    assert loss(inputs).item() == pytest.approx(expected.item(), rel=1e-5)


def test_cosine_regression_is_zero_at_the_teacher() -> None:
    inputs = batch()
    loss = build_loss("cosine-regression", context())
    assert loss(LossInputs(inputs.taught * 3, inputs.label, inputs.taught)).item() < 1e-6
    assert loss(LossInputs(-inputs.taught, inputs.label, inputs.taught)).item() == pytest.approx(2)


def test_ranking_is_the_divergence_of_the_two_rankings() -> None:
    inputs, how = batch(), context()
    loss = build_loss("ranking", how)
    assert loss(LossInputs(inputs.taught * 2, inputs.label, inputs.taught)).item() < 1e-6
    told = torch.softmax(20 * inputs.taught @ how.anchors.T, 1)
    own = torch.softmax(20 * F.normalize(inputs.embedding) @ how.anchors.T, 1)
    expected = (told * (told / own).log()).sum(1).mean()
    assert loss(inputs).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["cosface", "arcface", "frozen-classifier"])
def test_pictures_without_a_label_do_not_count(name: str) -> None:
    inputs = batch()
    loss = build_loss(name, context())
    some = inputs.label.clone()
    some[6:] = -1
    half = LossInputs(inputs.embedding[:6], inputs.label[:6])
    assert loss(LossInputs(inputs.embedding, some)).item() == pytest.approx(
        loss(half).item(), rel=1e-5
    )
    assert loss(LossInputs(inputs.embedding, torch.full((N,), -1))).item() == 0


def test_missing_material_is_named() -> None:
    bare = LossContext(C, D)
    with pytest.raises(ConfigError, match="use cosine regression"):
        build_loss("frozen-classifier", bare)
    with pytest.raises(ConfigError, match="needs a cloud model's anchors"):
        build_loss("ranking", bare)
    with pytest.raises(ConfigError, match="choose from: arcface"):
        build_loss("hope", bare)
    alone = LossInputs(batch().embedding, batch().label)
    for name in ("cosine-regression", "ranking"):
        with pytest.raises(ConfigError, match="cloud model to learn from"):
            build_loss(name, context())(alone)
