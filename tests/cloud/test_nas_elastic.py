"""Supernets: what runs inside them is what stands alone, and a path moves its own weights only."""

from __future__ import annotations

import copy
from random import Random

import pytest
import torch
from torch import Tensor, nn

from samespace_cloud.backbones import backbone_spec
from samespace_cloud.losses import LossContext
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.nas._supernet import Supernet, reestimate
from samespace_cloud.nas.elastic import ElasticSupernet, sort_channels
from samespace_cloud.nas.shuffle import ShuffleSupernet
from samespace_cloud.nas.space import SearchSpace, elastic, shuffle
from samespace_cloud.nas.supernet import SuperStudent
from samespace_edge import ConfigError

TEXTS = [
    "ir-s8-1x8x1s1k3-4x32x2s2k5-3x64x2s2k3",  # a shortcut ties the stem to the first stage
    "ir-s16-1x16x2s1k3-6x32x2s2k5-4x32x1s1k3-f48",
]


def cloud_of(text: str) -> EmbeddingModel:
    """A model whose norms have seen something, as those of a trained one."""
    torch.manual_seed(3)
    model = EmbeddingModel(ModelConfig(text, 32, dim=8))
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, -1.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.randn(8, 3, 32, 32))
    return model.eval()


def elastic_net(text: str = TEXTS[0]) -> ElasticSupernet:
    cloud = cloud_of(text)
    space = elastic(cloud.backbone.spec, 8, (16, 24), (0.5, 1.0))
    return ElasticSupernet(space, cloud.config, cloud)


def shuffle_net() -> ShuffleSupernet:
    space = shuffle(0.1, 8, (16, 24))
    return ShuffleSupernet(space, ModelConfig("edge-xs", 32, dim=8), seed=0)


def nets() -> list[Supernet]:
    return [elastic_net(), elastic_net(TEXTS[1]), shuffle_net()]


@pytest.mark.parametrize("text", TEXTS)
def test_sorting_channels_changes_nothing_that_comes_out(text: str) -> None:
    cloud = cloud_of(text)
    ordered = sort_channels(cloud)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ordered(x), cloud(x), atol=1e-4)
    before, after = cloud.state_dict(), ordered.state_dict()
    assert not torch.equal(
        before["backbone.stages.1.0.expand.conv.weight"],
        after["backbone.stages.1.0.expand.conv.weight"],
    )


def test_important_channels_come_first() -> None:
    block = sort_channels(cloud_of(TEXTS[0])).backbone.stages[1][1]
    worth = block.depthwise.norm.weight.abs() * block.project.conv.weight.abs().sum((0, 2, 3))
    assert torch.equal(worth, worth.sort(descending=True).values)


def test_what_cannot_be_sorted_says_so() -> None:
    for config in (
        ModelConfig("shufflenetv2", 32, dim=8),
        ModelConfig("edge-xs", 32, dim=8, folded=True),
    ):
        with pytest.raises(ConfigError, match="channels can be sorted in inverted residuals"):
            sort_channels(EmbeddingModel(config))


def test_the_largest_elastic_network_is_the_cloud_itself() -> None:
    cloud = cloud_of(TEXTS[0])
    net = elastic_net()
    x = torch.randn(8, 3, 32, 32)
    cloud.train()
    with torch.no_grad():
        assert torch.allclose(net(x, net.space.largest), cloud(x), atol=1e-4)


@pytest.mark.parametrize("net", nets(), ids=["elastic", "headed", "shuffle"])
def test_what_is_taken_out_gives_what_ran_inside(net: Supernet) -> None:
    rng = Random(0)
    space = net.space
    for genotype in (space.smallest, space.largest, *(space.sample(rng) for _ in range(12))):
        model = net.extract(genotype)
        size = space.decode(genotype).input_size
        assert (model.config.input_size, model.config.dim) == (size, 8)
        x = torch.randn(64, 3, size, size)
        with torch.no_grad():
            inside = net(x, genotype)
            assert torch.allclose(model.train()(x), inside, atol=1e-4)
            reestimate(model, [x])
            assert not model.training
            # The running variance is the unbiased one, which twenty random blocks make much of.
            if isinstance(net, ElasticSupernet):
                assert (model(x) - inside).norm() < 0.2 * inside.norm()


def test_running_statistics_are_the_mean_over_batches() -> None:
    model = EmbeddingModel(ModelConfig("edge-xs", 32, dim=8))
    batches = [torch.randn(4, 3, 32, 32) * (i + 1) for i in range(3)]
    reestimate(model, batches)
    norm = model.backbone.stem.norm
    model.backbone.stem.norm = nn.Identity()
    model.backbone.stem.act = False
    with torch.no_grad():
        seen = [model.backbone.stem(b) for b in batches]
    variances = torch.stack([s.var((0, 2, 3)) for s in seen]).mean(0)
    assert torch.allclose(norm.running_var, variances, rtol=1e-4)
    assert norm.momentum == 0.1


def touched(net: Supernet, genotype: tuple[int, ...]) -> dict[str, Tensor]:
    net.zero_grad(set_to_none=True)
    size = net.space.decode(genotype).input_size
    net(torch.randn(6, 3, size, size), genotype).square().sum().backward()
    return {k: p.grad for k, p in net.named_parameters() if p.grad is not None}


def test_an_elastic_path_moves_its_own_weights_only() -> None:
    net = elastic_net()
    grads = touched(net, net.space.smallest)  # ir-s8-1x8x1s1k3-2x16x1s2k3
    assert not [k for k in grads if ".stages.2." in k or ".stages.1.1." in k]
    depthwise = grads["backbone.whole.stages.1.0.depthwise.conv.weight"]
    inside = torch.zeros_like(depthwise, dtype=torch.bool)
    inside[:16, :, 1:4, 1:4] = True
    assert (depthwise[~inside] == 0).all()
    assert (depthwise[inside] != 0).any()
    project = grads["backbone.whole.stages.1.0.project.conv.weight"]
    assert (project[16:] == 0).all()
    assert (project[:, 16:] == 0).all()
    # The last stage was dropped, so the head is the one for the stage before.
    assert (grads["embed.2.weight"][:, 16:] == 0).all()
    assert "embed.3.weight" not in grads


def test_a_shuffle_path_moves_its_own_blocks_only() -> None:
    net = shuffle_net()
    grads = touched(net, net.space.largest)  # all blocks x
    blocks = {k.split(".")[4] for k in grads if k.startswith("backbone.stages.")}
    assert len(blocks) == 2  # x, and 7 in the narrowest
    assert "backbone.stem.conv.weight" in grads


CONTEXT = LossContext(classes=2, dim=8)
TAUGHT = nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)))


def step(student: SuperStudent, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        s: torch.randint(0, 256, (6, 3, s, s), dtype=torch.uint8, generator=generator)
        for s in student.sizes
    }
    return student.loss(inputs, torch.full((6,), -1), TAUGHT, 0.0)


def student_of(space_net: Supernet, rule: str = "sandwich", seed: int = 0) -> SuperStudent:
    return SuperStudent(
        space_net, (("cosine-regression", 1.0),), CONTEXT, rule=rule, random_paths=2, seed=seed
    )


def test_paths_depend_on_seed_and_step_alone() -> None:
    net = elastic_net()
    space: SearchSpace = net.space
    student, same, other = student_of(net), student_of(net), student_of(net, seed=1)
    assert [student.paths(s) for s in range(5)] == [same.paths(s) for s in range(5)]
    assert student.paths(3) != other.paths(3)
    assert student.paths(0)[:2] == [space.largest, space.smallest]
    assert len(student.paths(0)) == 4
    assert len(student_of(net, "uniform").paths(0)) == 1
    with pytest.raises(ConfigError, match="no rule 'fair'; choose one of: uniform, sandwich"):
        student_of(net, "fair")


def test_the_step_is_part_of_the_state() -> None:
    student = student_of(elastic_net(), "uniform").train()
    for _ in range(3):
        step(student)
    assert int(student.step) == 3
    resumed = student_of(elastic_net(), "uniform")
    resumed.load_state_dict(student.state_dict())
    assert torch.equal(step(resumed.train()), step(student))
    before = int(student.step)
    step(student.eval())
    assert int(student.step) == before


def test_a_supernet_learns() -> None:
    for net in (elastic_net(), shuffle_net()):
        student = student_of(net).train()
        twin = copy.deepcopy(student)
        optimizer = torch.optim.Adam(student.parameters(), lr=5e-3)
        losses = []
        for _ in range(15):
            optimizer.zero_grad()
            loss = step(student)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
        assert int(twin.step) == 0


def test_drawn_paths_are_made_to_fit() -> None:
    net = elastic_net()
    limit = 1.5 * net.space.decode(net.space.smallest).mmacs
    student = SuperStudent(
        net,
        (("cosine-regression", 1.0),),
        CONTEXT,
        rule="uniform",
        fits=lambda g: net.space.decode(g).mmacs <= limit,
    )
    drawn = [student.paths(s)[0] for s in range(30)]
    assert all(net.space.decode(g).mmacs <= limit for g in drawn)


def test_a_space_of_another_network_is_refused() -> None:
    cloud = cloud_of(TEXTS[0])
    space = elastic(backbone_spec("edge-s"))
    with pytest.raises(ConfigError, match="not carved out of"):
        ElasticSupernet(space, cloud.config, cloud)
