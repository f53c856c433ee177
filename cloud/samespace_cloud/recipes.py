"""Recipes: plain functions that return configurations, each with the command that runs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from samespace_cloud.config import TrainConfig
from samespace_cloud.model import ModelConfig


@dataclass(frozen=True)
class DemoRecipe:
    """Everything that `samespace demo` trains.

    Attributes:
        cloud: the cloud model's training.
        cloud_size: side of the input that the finished cloud model takes.
        edge: the edge model's training into the cloud's space.
        alone: the same edge model trained by itself, for comparison.
        gallery_aware: whether the edge model also learns from the gallery's own pictures.
        labels: how many train labels to use; None for all.
    """

    cloud: TrainConfig
    cloud_size: int
    edge: TrainConfig
    alone: TrainConfig
    gallery_aware: bool
    labels: int | None = None


def int8_recipe(edge: TrainConfig, smoke: bool = False) -> TrainConfig:
    """Fine-tuning an edge model for int8: a few epochs from where its training ended.

    Run it with `samespace train int8 DATASET --edge runs/edge --cloud runs/cloud --out runs/int8`.

    Args:
        edge: how the edge model was trained.
    """
    return replace(
        edge, epochs=1 if smoke else 8, lr=3e-4, int8=30.0, ema=0.0, patience=0, val_share=0.0
    )


def demo_recipe(seed: int = 0, smoke: bool = False, canvas: int = 80) -> DemoRecipe:
    """The quick start: ten minutes on two cores.

    Run it with `samespace demo`; with `samespace demo --smoke` everything is tried in a minute,
    on a few labels, to no useful accuracy.

    Args:
        canvas: side at which pictures are decoded, in pixels: that of the pictures themselves, as
            far as the models can use it. The quick start's pictures have 80.
    """
    cloud = TrainConfig(
        model=ModelConfig("lite0-trunk", 80),
        losses=(("cosface", 1.0),),
        init="imagenet",
        epochs=4,
        batch_size=64,
        lr=3e-3,
        backbone_lr=1 / 3,
        weight_decay=0.02,
        warmup=0.1,
        ema=0.0,
        views=6,
        canvas=canvas,
        val_share=0.0,
        seed=seed,
    )
    small = ModelConfig("lite0-edge", 48)
    edge = replace(
        cloud,
        model=small,
        losses=(("cosine-regression", 1.0), ("ranking", 1.0)),
        init="cloud",
        epochs=24,
        batch_size=128,
        lr=2e-3,
        backbone_lr=1.0,
        warmup=0.05,
        views=7,
        mixed_views=1,
        steady=3.0,
    )
    alone = replace(cloud, model=small, epochs=12, batch_size=128, warmup=0.05)
    recipe = DemoRecipe(cloud, 128, edge, alone, gallery_aware=True)
    if not smoke:
        return recipe
    quick: dict[str, Any] = {"epochs": 2, "views": 2, "mixed_views": 0, "batch_size": 16}
    return DemoRecipe(
        cloud=replace(cloud, model=ModelConfig("lite0-edge", 64), **quick),
        cloud_size=64,
        edge=replace(edge, **quick),
        alone=replace(alone, init="random", **quick),
        gallery_aware=True,
        labels=24,
    )
