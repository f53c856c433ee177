"""Terms of a tagger's update against their formulas, worked out apart from the code."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from samespace_cloud.tagging.classes import SharedClasses
from samespace_cloud.tagging.losses import Answers, TermContext
from samespace_cloud.tagging.methods import METHODS
from samespace_cloud.tagging.update_config import UpdateConfig
from samespace_edge import ConfigError

TERMS = sorted(name for name, method in METHODS.items() if method.term)
NEW = ("ant", "bee", "cat", "dog")
OLD = ("dog", "bee", "ant")
"""In another order, and without the cat."""

# Two pictures: a bee that the old tagger has right, and a dog that it takes for an ant.
LOGITS = torch.tensor([[1.0, 2.0, 0.5, -1.0], [0.0, 1.0, 3.0, 2.0]])
LABEL = torch.tensor([1, 3])
SAID = torch.tensor([[0.0, 3.0, 1.0], [1.0, 0.0, 2.0]])
# The same logits in the new tagger's order, without the cat.
NEW_OF_SHARED = [[1.0, 2.0, -1.0], [0.0, 1.0, 2.0]]
OLD_OF_SHARED = [[1.0, 3.0, 0.0], [2.0, 0.0, 1.0]]


def head(width: int = 2) -> nn.Linear:
    made = nn.Linear(width, len(OLD))
    with torch.no_grad():
        made.weight.copy_(torch.arange(3.0 * width).view(3, width) / 5)
        made.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
    return made


def term(method: str, width: int = 2, old: tuple[str, ...] = OLD, **settings: object) -> nn.Module:
    found = METHODS[method].term
    assert found is not None
    shared = SharedClasses.between(old, NEW)
    return found(TermContext(UpdateConfig(method, **settings), shared, width, head()))


def answers(logits: torch.Tensor = LOGITS, label: torch.Tensor = LABEL) -> Answers:
    return Answers(logits, torch.tensor([[1.0, -1.0], [0.5, 2.0]]), label, SAID)


def softmax(values: list[float], tau: float = 1.0) -> list[float]:
    raised = [math.exp(v / tau) for v in values]
    return [x / sum(raised) for x in raised]


def test_focal_logit_by_hand() -> None:
    # 6 * 1/2 (0 + 1 + 1) for the bee, 1 * 1/2 (4 + 1 + 1) for the dog.
    assert term("focal-logit")(answers()).item() == pytest.approx((6 * 1.0 + 1 * 3.0) / 2)
    found = term("focal-logit", alpha=0.5, beta=2.0)(answers()).item()
    assert found == pytest.approx((2.5 * 1.0 + 0.5 * 3.0) / 2)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_focal_kl_by_hand_from_new_to_old(tau: float) -> None:
    expected = []
    for new, old in zip(NEW_OF_SHARED, OLD_OF_SHARED, strict=True):
        p, q = softmax(new, tau), softmax(old, tau)
        expected.append(tau**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    found = term("focal-kl", temperature=tau)(answers()).item()
    assert found == pytest.approx((6 * expected[0] + 1 * expected[1]) / 2, rel=1e-5)


def test_a_hot_focal_kl_is_a_distance_of_centred_logits() -> None:
    new, old = torch.tensor(NEW_OF_SHARED), torch.tensor(OLD_OF_SHARED)
    difference = new - old
    centred = difference - difference.mean(1, keepdim=True)
    expected = centred.square().sum(1) / (2 * 3)
    found = term("focal-kl", alpha=1.0, beta=0.0, temperature=100.0)(answers()).item()
    assert found == pytest.approx(expected.mean().item(), rel=0.02)


def test_alpha_alone_is_plain_distillation() -> None:
    new, old = torch.tensor(NEW_OF_SHARED), torch.tensor(OLD_OF_SHARED)
    plain = F.kl_div(
        F.log_softmax(old, 1), F.log_softmax(new, 1), log_target=True, reduction="batchmean"
    )
    found = term("focal-kl", alpha=1.0, beta=0.0, temperature=1.0)(answers())
    assert found.item() == pytest.approx(plain.item(), rel=1e-5)
    logits = term("focal-logit", alpha=1.0, beta=0.0)(answers())
    assert logits.item() == pytest.approx(((new - old).square().sum(1) / 2).mean().item())


def test_beta_alone_looks_at_what_the_old_tagger_has_right() -> None:
    assert term("focal-logit", alpha=0.0, beta=1.0)(answers()).item() == pytest.approx(1.0 / 2)


def test_naive_by_hand() -> None:
    bee = -math.log(softmax(LOGITS[0].tolist())[1])
    assert term("naive")(answers()).item() == pytest.approx(bee / 2, rel=1e-5)


def test_difference_inhibition_by_hand() -> None:
    # All classes: |0|, |-1|, |-1| of the bee and |-2|, |1|, |1| of the dog, less the margin.
    expected = (0 + 0.25 + 0.25 + 2.25 + 0.25 + 0.25) / 6
    assert term("ldi")(answers()).item() == pytest.approx(expected)
    assert term("elodi")(answers()).item() == pytest.approx((0 + 1 + 1 + 4 + 1 + 1) / 6)
    cubed = term("ldi", power=3.0, margin=0.0)(answers()).item()
    assert cubed == pytest.approx((0 + 1 + 1 + 8 + 1 + 1) / 6)


def test_difference_inhibition_counts_classes_and_not_pictures() -> None:
    # The old tagger's first: bee (3) of the bee, ant (2) of the dog; then ant (1) and dog (1).
    one = term("ldi", margin=0.0, top_k=1)(answers()).item()
    assert one == pytest.approx((1 + 4) / 2)
    two = term("ldi", margin=0.0, top_k=2)(answers()).item()
    assert two == pytest.approx((1 + 0 + 4 + 1) / 4)
    many = term("ldi", margin=0.0, top_k=50)(answers()).item()
    assert many == pytest.approx((0 + 1 + 1 + 4 + 1 + 1) / 6)
    # Whatever is in the batch besides, a picture's classes are its own.
    alone = [
        term("ldi", margin=0.0, top_k=1)(
            Answers(LOGITS[[i]], torch.zeros(1, 2), LABEL[[i]], SAID[[i]])
        ).item()
        for i in range(2)
    ]
    assert sum(alone) / 2 == pytest.approx(one)


def test_difference_inhibition_can_leave_the_truth_out() -> None:
    # The first besides the truth: ant (1) of the bee, ant (2) of the dog.
    found = term("ldi", margin=0.0, top_k=1, skip_truth=True)(answers()).item()
    assert found == pytest.approx((0 + 4) / 2)
    # A cat has no shared class to leave out: its first is the dog of the first picture's logits.
    cat = Answers(LOGITS[:1], torch.zeros(1, 2), torch.tensor([2]), SAID[:1])
    assert term("ldi", margin=0.0, top_k=1, skip_truth=True)(cat).item() == pytest.approx(1.0)


def test_the_old_head_on_the_new_embedding_by_hand() -> None:
    old = head()
    seen = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    logits = seen @ old.weight.T + old.bias
    expected = F.cross_entropy(logits, torch.tensor([1, 0]))  # bee and dog, where the old has them
    assert term("bct")(answers()).item() == pytest.approx(expected.item(), rel=1e-6)
    # A cat is left out, as if it were not there.
    some = term("bct")(answers(label=torch.tensor([1, 2]))).item()
    bee = F.cross_entropy(logits[:1], torch.tensor([1]))
    assert some == pytest.approx(bee.item(), rel=1e-6)


def test_the_old_head_sees_a_prefix_or_a_learnt_map() -> None:
    wide = torch.cat([answers().embedding, torch.full((2, 3), 9.0)], 1)
    found = term("bct", width=5)(Answers(LOGITS, wide, LABEL, None))
    assert found.item() == pytest.approx(term("bct")(answers()).item())
    narrow = term("bct", width=1)
    loss = narrow(Answers(LOGITS, torch.ones(2, 1, requires_grad=True), LABEL, None))
    loss.backward()
    learnt = dict(narrow.named_parameters())
    assert set(learnt) == {"widen.weight", "widen.bias"}
    assert learnt["widen.weight"].grad.abs().sum() > 0


@pytest.mark.parametrize("method", TERMS)
def test_gradients_go_into_the_new_tagger_only(method: str) -> None:
    logits = LOGITS.clone().requires_grad_()
    embedding = torch.ones(2, 2, requires_grad=True)
    said = SAID.clone().requires_grad_()
    made = term(method)
    made(Answers(logits, embedding, LABEL, said)).backward()
    assert said.grad is None
    assert not list(made.parameters())
    moved = embedding if method == "bct" else logits
    assert moved.grad.abs().sum() > 0
    assert torch.isfinite(moved.grad).all()
    if method not in ("naive", "bct"):
        assert (logits.grad[:, 2] == 0).all()  # nobody says anything of the cat


@pytest.mark.parametrize("method", TERMS)
def test_the_order_of_a_batch_does_not_count(method: str) -> None:
    generator = torch.Generator().manual_seed(3)
    given = Answers(
        torch.randn(9, 4, generator=generator),
        torch.randn(9, 2, generator=generator),
        torch.randint(4, (9,), generator=generator),
        torch.randn(9, 3, generator=generator),
    )
    order = torch.randperm(9, generator=generator)
    assert given.old is not None
    turned = Answers(
        given.logits[order], given.embedding[order], given.label[order], given.old[order]
    )
    made = term(method)
    assert made(turned).item() == pytest.approx(made(given).item(), rel=1e-5)


@pytest.mark.parametrize("method", [m for m in TERMS if m != "bct"])
def test_classes_are_matched_by_name(method: str) -> None:
    order = [2, 0, 1]
    renamed = tuple(OLD[i] for i in order)
    given = answers()
    turned = replace(given, old=SAID[:, order])
    expected = term(method)(given).item()
    assert term(method, old=renamed)(turned).item() == pytest.approx(expected, rel=1e-6)


def test_a_class_that_was_given_up_still_says_what_is_right() -> None:
    # The old tagger takes the bee for a fly, which the new one does not have.
    old = (*OLD, "fly")
    said = torch.cat([SAID, torch.tensor([[9.0], [0.0]])], 1)
    given = replace(answers(), old=said)
    assert term("naive", old=old)(given).item() == 0
    assert term("focal-logit", old=old)(given).item() == pytest.approx((1.0 + 3.0) / 2)


def test_a_new_class_is_held_by_alpha_only() -> None:
    cats = answers(label=torch.tensor([2, 2]))
    assert term("focal-logit", alpha=0.0)(cats).item() == 0
    assert term("focal-kl", alpha=0.0)(cats).item() == 0
    assert term("naive")(cats).item() == 0
    assert term("focal-logit", alpha=1.0)(cats).item() == pytest.approx((1.0 + 3.0) / 2)
    assert term("ldi")(cats).item() == term("ldi")(answers()).item()


def test_taggers_need_classes_in_common() -> None:
    with pytest.raises(ConfigError, match=r"old tagger's 2 classes, such as 'x', .* have 1 in com"):
        SharedClasses.between(("x", "bee"), NEW)


def test_terms_say_what_they_lack() -> None:
    with pytest.raises(ConfigError, match="FocalKL needs the old tagger's logits"):
        term("focal-kl")(replace(answers(), old=None))
    lacking = TermContext(UpdateConfig("bct"), SharedClasses.between(OLD, NEW), 2, None)
    with pytest.raises(ConfigError, match="needs the old tagger's last layer"):
        METHODS["bct"].term(lacking)


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no such numbers: beta = inf, members = 2\.5"):
        UpdateConfig(beta=float("inf"), members=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no method 'nothing' to update a tagger; choose from"):
        UpdateConfig("nothing")
    with pytest.raises(ConfigError, match=r"out of range: alpha = -1, temperature = 0"):
        UpdateConfig("focal-kl", alpha=-1, temperature=0)
    with pytest.raises(ConfigError, match="unknown settings of an update: kd_alpha"):
        UpdateConfig.from_json({"kd_alpha": 0.9})
    given = UpdateConfig("ldi", margin=0.25)
    assert UpdateConfig.from_json(given.to_json()) == given
    assert UpdateConfig("elodi").allowance == 0
    assert UpdateConfig("ldi").allowance == 0.5
