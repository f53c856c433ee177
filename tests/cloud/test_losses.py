"""Losses against their formulas, worked out apart from the code."""

from __future__ import annotations

import math
from dataclasses import replace

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
    return LossContext(
        C,
        D,
        cloud_classifier=classifier,
        anchors=classifier,
        centroids=0.8 * classifier,
        variances=0.01 * torch.rand(C, D, generator=generator),
        codebook=torch.randn(2, 6, D // 2, generator=generator),
        **more,
    )


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


def test_labels_that_the_frozen_classifier_lacks_are_left_out() -> None:
    """Neither pictures nor alternatives; rows of labels that are not trained on are the latter."""
    inputs, how = batch(), context(margin=0.2)
    others = F.normalize(torch.randn(2, D, generator=torch.Generator().manual_seed(4)))
    rows = how.cloud_classifier.clone()
    rows[1] = 0
    loss = build_loss(
        "frozen-classifier", replace(how, cloud_classifier=rows, other_classes=others)
    )
    kept = inputs.label != 1
    assert 0 < kept.sum() < N
    known = torch.cat([rows[[0, 2, 3, 4]], others])
    cosine = F.normalize(inputs.embedding[kept]) @ known.T
    place = torch.tensor([0, -1, 1, 2, 3])[inputs.label[kept]]
    expected = F.cross_entropy(16 * (cosine - 0.2 * F.one_hot(place, len(known))), place)
    assert loss(inputs).item() == pytest.approx(expected.item(), rel=1e-5)
    assert list(loss.state_dict()) == ["classifier"]
    half = build_loss("frozen-classifier", replace(how, other_classes=others).prefix(D // 2))
    assert half.classifier.shape == (C + 2, D // 2)


def test_regression_alleviating_by_hand() -> None:
    """Three pictures, the first two of one label: only the third one is against them."""
    student = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    taught = torch.tensor([[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]])
    label = torch.tensor([4, 4, 2])
    loss = build_loss("regression-alleviating", LossContext(5, 2, temperature=0.5))
    # Own old vector; then the others' old ones and new ones.
    cosines = [[0.8, 1.0, 0.6], [1.0, 0.0, 0.8], [0.6, 0.96, 0.8, 0.6, 0.8]]
    expected = sum(math.log(sum(math.exp(c / 0.5) for c in row)) - row[0] / 0.5 for row in cosines)
    found = loss(LossInputs(student, label, taught)).item()
    assert found == pytest.approx(expected / 3, rel=1e-5)
    # Without labels, everything else is against every picture.
    bare = loss(LossInputs(student, torch.full((3,), -1), taught)).item()
    assert bare > found


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


def test_contrastive_by_hand() -> None:
    inputs = batch()
    e = F.normalize(inputs.embedding).detach().numpy()
    logits = e @ inputs.taught.numpy().T / 0.05
    total = 0.0
    for i in range(N):
        right = [j for j in range(N) if inputs.label[j] == inputs.label[i]]
        log_all = math.log(np.exp(logits[i]).sum())
        total += sum(log_all - logits[i, j] for j in right) / len(right)
    found = build_loss("contrastive", context())(inputs).item()
    assert found == pytest.approx(total / N, rel=1e-5)


def test_contrastive_without_labels_has_the_picture_itself_as_the_right_one() -> None:
    inputs = batch()
    bare = LossInputs(inputs.embedding, torch.full((N,), -1), inputs.taught)
    logits = F.normalize(inputs.embedding) @ inputs.taught.T / 0.05
    expected = F.cross_entropy(logits, torch.arange(N)).item()
    assert build_loss("contrastive", context())(bare).item() == pytest.approx(expected, rel=1e-5)


def test_differences_by_hand() -> None:
    """Three pictures at 0, 60 and 90 degrees; the student has the second one 90 degrees off."""
    taught = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)], [0.0, 1.0]])
    student = taught.clone()
    student[0] = taught[2]
    loss = build_loss("difference", LossContext(3, 2))
    # Row 0, by the cloud: itself 1, then .5, then 0. The student says 0, sqrt(.75) and 1.
    itself = 100 * 1.0 / 3
    dt, dx = 0.5, math.sqrt(0.75) - 1  # swapped: the student has the other one nearer
    hard = 5 * math.sqrt(2) * abs(dx - dt) / (0.1 + dt) / 3 / 2
    expected = itself + hard
    found = loss(LossInputs(student, torch.zeros(3, dtype=torch.long), taught)).item()
    assert found == pytest.approx(expected, rel=1e-5)
    same = loss(LossInputs(taught * 2, torch.zeros(3, dtype=torch.long), taught))
    assert same.item() == pytest.approx(0, abs=1e-4)


def test_differences_have_a_gradient_where_the_student_is_right() -> None:
    inputs = batch()
    exact = inputs.taught.clone().requires_grad_()
    build_loss("difference", context())(LossInputs(exact, inputs.label, inputs.taught)).backward()
    assert torch.isfinite(exact.grad).all()


def test_centroids_are_what_a_cloud_of_vectors_around_them_would_be() -> None:
    inputs, how = batch(), context()
    found = build_loss("centroids", how)(inputs).item()
    q = F.normalize(inputs.embedding).detach().double()
    t = 0.05
    total = 0.0
    for i in range(N):
        own = float(q[i] @ inputs.taught[i].double()) / t
        others = [
            float(q[i] @ how.centroids[j].double()) / t
            + 15 / (2 * t * t) * float((q[i].square() * how.variances[j].double()).sum())
            for j in range(C)
            if j != inputs.label[i]
        ]
        total += math.log(sum(map(math.exp, [own, *others]))) - own
    assert found == pytest.approx(total / N, rel=1e-4)


def test_codebook_is_the_divergence_of_the_assignments() -> None:
    inputs, how = batch(), context()
    loss = build_loss("codebook", how)
    assert loss(LossInputs(inputs.taught * 2, inputs.label, inputs.taught)).item() < 1e-6
    total = torch.zeros(())
    for m in range(2):
        words = F.normalize(how.codebook[m], dim=-1)
        part = slice(m * D // 2, (m + 1) * D // 2)
        told = torch.softmax(10 * F.normalize(inputs.taught[:, part]) @ words.T, 1)
        own = torch.softmax(10 * F.normalize(inputs.embedding[:, part]) @ words.T, 1)
        total = total + (told * (told / own).log()).sum(1).mean() / 2
    assert loss(inputs).item() == pytest.approx(total.item(), rel=1e-4)


def test_logit_distillation_teaches_a_classifier_of_its_own() -> None:
    inputs = batch()
    loss = build_loss("logit-kd", context())
    loss(inputs).backward()
    assert loss.classifier.grad.abs().sum() > 0
    assert [n for n, _ in loss.named_parameters()] == ["classifier"]


def test_relational_distillation_is_blind_to_a_rotation() -> None:
    """What an unanchored loss is: zero in a space that has nothing to do with the cloud's."""
    inputs = batch()
    rotation = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(3)))[0]
    turned = LossInputs(inputs.taught @ rotation, inputs.label, inputs.taught)
    assert build_loss("relational-kd", context())(turned).item() == pytest.approx(0, abs=1e-6)
    assert build_loss("cosine-regression", context())(turned).item() > 0.5


def test_relational_distillation_by_hand() -> None:
    taught = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    root = math.sqrt(2)
    mean = (2 * root + 2) / 3
    told, own = [root, 2, root], [2, root, root]
    expected = sum(0.5 * ((a - b) / mean) ** 2 for a, b in zip(told, own, strict=True)) / 3
    loss = build_loss("relational-kd", LossContext(1, 2))
    found = loss(LossInputs(student, torch.zeros(3, dtype=torch.long), taught)).item()
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_order_of_a_batch_does_not_count(name: str) -> None:
    inputs, loss = batch(), build_loss(name, context(margin=0.1))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(5))
    mixed = LossInputs(inputs.embedding[order], inputs.label[order], inputs.taught[order])
    assert loss(mixed).item() == pytest.approx(loss(inputs).item(), rel=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_teacher_is_not_taught(name: str) -> None:
    inputs = batch()
    taught = inputs.taught.clone().requires_grad_()
    how = context()
    loss = build_loss(name, how)
    loss(LossInputs(inputs.embedding, inputs.label, taught.detach())).backward()
    assert taught.grad is None
    held = (how.cloud_classifier, how.anchors, how.centroids, how.codebook)
    assert not any(t.requires_grad for t in held)
    assert all(p.shape == (C, D) for p in loss.parameters())  # at most a classifier of its own


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_an_anchored_loss_knows_a_rotated_space_from_the_clouds(name: str) -> None:
    """Anchored means: no rotation of the student's space is as good as the cloud's own."""
    inputs, loss = batch(), build_loss(name, context())
    rotation = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(3)))[0]
    taught = inputs.taught
    here = loss(LossInputs(taught, inputs.label, taught)).item()
    there = loss(LossInputs(taught @ rotation, inputs.label, taught)).item()
    if loss.anchored and name != "frozen-classifier":
        assert there > here + 1e-3


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_takes_a_prefix(name: str) -> None:
    inputs, how = batch(), context().prefix(D // 2)
    assert how.dim == D // 2
    assert torch.allclose(how.anchors.norm(dim=1), torch.ones(C))
    told = F.normalize(inputs.taught[:, : D // 2])
    seen = LossInputs(inputs.embedding[:, : D // 2], inputs.label, told)
    assert torch.isfinite(build_loss(name, how)(seen))


@pytest.mark.parametrize("name", ["cosface", "arcface", "frozen-classifier", "centroids"])
def test_pictures_without_a_label_do_not_count(name: str) -> None:
    inputs = batch()
    loss = build_loss(name, context())
    some = inputs.label.clone()
    some[6:] = -1
    half = LossInputs(inputs.embedding[:6], inputs.label[:6], inputs.taught[:6])
    assert loss(LossInputs(inputs.embedding, some, inputs.taught)).item() == pytest.approx(
        loss(half).item(), rel=1e-5
    )
    none = LossInputs(inputs.embedding, torch.full((N,), -1), inputs.taught)
    assert loss(none).item() == 0


def test_missing_material_is_named() -> None:
    bare = LossContext(C, D)
    with pytest.raises(ConfigError, match="use cosine regression"):
        build_loss("frozen-classifier", bare)
    with pytest.raises(ConfigError, match="needs a cloud model's anchors"):
        build_loss("ranking", bare)
    with pytest.raises(ConfigError, match="needs labelled pictures"):
        build_loss("centroids", bare)
    with pytest.raises(ConfigError, match="needs a cloud model's vectors"):
        build_loss("codebook", bare)
    with pytest.raises(ConfigError, match="needs the cloud model's classifier"):
        build_loss("logit-kd", bare)
    with pytest.raises(ConfigError, match="choose from: arcface"):
        build_loss("hope", bare)
    alone = LossInputs(batch().embedding, batch().label)
    taught = {name for name in LOSSES if LOSSES[name].taught}
    assert set(LOSSES) - taught == {"arcface", "cosface", "frozen-classifier"}
    for name in sorted(taught):
        with pytest.raises(ConfigError, match="cloud model to learn from"):
            build_loss(name, context())(alone)
    for name in sorted(set(LOSSES) - taught):
        assert torch.isfinite(build_loss(name, context())(alone))
