"""Fine-tuning for int8: folding and equalising change nothing, rounding is what int8 does."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from samespace import Dataset
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.losses import LossContext
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.quantized import Int8Student, equalise, fold
from samespace_cloud.recipes import int8_recipe
from samespace_cloud.training import train_cloud, train_edge
from samespace_edge import ConfigError
from samespace_export import Calibration, export_bundle
from samespace_export._scales import LEVELS, PAIR, same_sign_sums, weight_scales
from tests.export.conftest import colourful

CONFIG = ModelConfig("lite0-edge", 32, 16)
LOSSES = (("cosine-regression", 1.0),)


@pytest.fixture
def model() -> EmbeddingModel:
    torch.manual_seed(0)
    made = colourful(EmbeddingModel(CONFIG))
    assert isinstance(made, EmbeddingModel)
    return made


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(nn.functional.cosine_similarity(a, b).min())


def student(model: EmbeddingModel) -> Int8Student:
    return Int8Student(fold(model), LOSSES, LossContext(4, 16), agree=1.0)


def test_folding_and_equalising_keep_the_function(model: EmbeddingModel, pictures: Tensor) -> None:
    with torch.no_grad():
        expected = model(pictures)
        folded = fold(model)
        assert folded.config.architecture == "lite0-edge-32px-16d-folded"
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        tolerance = 1e-4 * float(expected.abs().max())
        assert torch.allclose(folded(pictures), expected, atol=tolerance)
        assert torch.equal(fold(folded)(pictures), folded(pictures))
        even = equalise(folded, pictures)
        assert torch.allclose(even(pictures), expected, atol=tolerance)


def test_equalised_channels_have_one_range(model: EmbeddingModel, pictures: Tensor) -> None:
    def spread(m: EmbeddingModel) -> float:
        seen: list[Tensor] = []
        stage = m.backbone.stages[2][-1]
        hook = stage.register_forward_hook(lambda _module, _inputs, y: seen.append(y.abs()))
        with torch.no_grad():
            m(pictures)
        hook.remove()
        ranges = seen[0].amax((0, 2, 3))
        return float(ranges.max() / ranges.median())

    folded = fold(model)
    assert spread(equalise(folded, pictures)) < 0.7 * spread(folded)


def test_finished_weights_are_on_the_grid_and_compute_the_same(
    model: EmbeddingModel, pictures: Tensor
) -> None:
    training = student(model).eval()
    finished = training.finished()
    for layer in finished.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
            rows = layer.weight.detach().movedim(1, -1).flatten(1).numpy()
            # The exporter finds the grid, in formats that may saturate and in those that do not.
            for paired in {not depthwise, False}:
                levels = rows / weight_scales(rows, paired)[:, None]
                assert np.abs(levels - np.rint(levels)).max() < 2e-3
                assert np.abs(levels).max() < LEVELS + 0.5
            if not depthwise:
                assert same_sign_sums(np.rint(levels)).max() <= PAIR
    with torch.no_grad(), training._unrounded():
        exact = training.model("model")(pictures)
    with torch.no_grad():
        assert torch.allclose(finished(pictures), exact, atol=1e-5 * float(exact.abs().max()))


def test_activations_are_rounded_in_training_and_copies_round_by_themselves(
    model: EmbeddingModel, pictures: Tensor
) -> None:
    training = student(model).train()
    inputs = {32: torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)}
    taught = nn.functional.normalize(torch.randn(8, 16))
    labels = torch.zeros(8, dtype=torch.long)
    training.loss(inputs, labels, taught, 0.5).backward()
    for path, parameter in training.named_parameters():
        learns = not path.startswith("start.")
        assert (parameter.grad is not None) == learns == parameter.requires_grad
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    twin = copy.deepcopy(training).eval()
    with torch.no_grad():
        rounded = training.eval().model("model")(pictures)
        with training._unrounded():
            exact = training.model("model")(pictures)
        before = twin.model("model")(pictures)
        for rounding in (m for m in training.modules() if type(m).__name__ == "_Rounding"):
            rounding.high.zero_()
            rounding.low.zero_()
        assert torch.equal(twin.model("model")(pictures), before)
    assert not torch.equal(rounded, exact)
    assert cosine(rounded, exact) > 0.9


def test_the_recipe_and_what_it_needs(model: EmbeddingModel) -> None:
    base = TrainConfig(CONFIG, LOSSES, epochs=5)
    recipe = int8_recipe(base)
    assert recipe.int8 > 0
    assert recipe.epochs == 8
    with pytest.raises(ConfigError, match="int8 = -1"):
        TrainConfig(CONFIG, LOSSES, int8=-1)


@pytest.fixture(scope="module")
def settings() -> TrainConfig:
    return TrainConfig(
        ModelConfig("edge-xs", 32, 16),
        (("cosface", 1.0),),
        epochs=3,
        batch_size=16,
        views=2,
        canvas=40,
        val_share=0.0,
        ema=0.0,
    )


def test_a_fine_tuned_model_loses_less_to_int8(
    shop: Dataset, settings: TrainConfig, tmp_path: Path
) -> None:
    cloud = train_cloud(shop, settings, tmp_path / "cloud")
    edge_settings = replace(settings, losses=LOSSES, init="cloud", int8=0.0)
    edge = train_edge(shop, edge_settings, cloud, tmp_path / "edge")
    tuned_settings = replace(edge_settings, int8=10.0, lr=5e-4, epochs=10)
    tuned = train_edge(shop, tuned_settings, cloud, tmp_path / "int8", start=edge)
    assert tuned.model.config.folded
    assert tuned.space == cloud.fingerprint
    assert tuned.card["went on from"] == f"{edge.fingerprint.short}…"
    assert Checkpoint.load(tmp_path / "int8").fingerprint == tuned.fingerprint

    calibration = Calibration.of([shop.read(i) for i in shop.train], edge.model.config.resize)
    errors = {}
    for name, checkpoint in (("edge", edge), ("tuned", tuned)):
        made = export_bundle(
            checkpoint.model,
            checkpoint.export_spec(name),
            tmp_path / f"{name}.bundle",
            targets=("onnx-int8",),
            calibration=calibration,
        )
        errors[name] = made.quantizations[0].error
    assert errors["tuned"] < errors["edge"]

    stranger = replace(edge, role="cloud", space=None)
    with pytest.raises(ConfigError, match="lies in space"):
        train_edge(shop, tuned_settings, stranger, tmp_path / "x", start=edge)
    with pytest.raises(ConfigError, match="of another model; teach with that cloud model"):
        train_edge(shop, tuned_settings, edge, tmp_path / "x", start=edge)
    other = replace(tuned_settings, model=ModelConfig("edge-s", 32, 16))
    with pytest.raises(ConfigError, match="the settings are for a edge-s-32px-16d"):
        train_edge(shop, other, cloud, tmp_path / "x", start=edge)
