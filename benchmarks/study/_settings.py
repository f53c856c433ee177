"""What the study trains: edge models, losses, and the recipes that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from samespace_cloud.backbones import BACKBONES, BackboneSpec
from samespace_cloud.config import TrainConfig
from samespace_cloud.model import ModelConfig


def cut(blocks: tuple[int, ...], expand: int = 6, of: str = "lite2-trunk") -> str:
    """A cloud model's network with the first blocks of every stage, as text.

    Args:
        blocks: of every stage.
        expand: channels inside the blocks, as a multiple of what enters them.
        of: a row of `BACKBONES`.
    """
    whole = BACKBONES[of]
    assert isinstance(whole, BackboneSpec)
    stages = [
        replace(s, blocks=n, expand=min(s.expand, expand))
        for s, n in zip(whole.stages, blocks, strict=True)
        if n
    ]
    return BackboneSpec(whole.stem, tuple(stages), None).text


HAND_CUT: Mapping[int, ModelConfig] = {
    80: ModelConfig(cut((1, 1, 1, 2, 1, 1)), 32),
    40: ModelConfig(cut((1, 1, 1, 1, 1, 1)), 48),
    20: ModelConfig(cut((1, 2, 2, 2, 2, 1)), 48),
    160: ModelConfig(cut((1, 1, 1, 1, 1, 1), 3), 32),
}
"""Edge models cut from the cloud's network by hand, by how many times cheaper they are."""

TABLE: Mapping[str, tuple[tuple[str, float], ...]] = {
    "vanilla": (("cosface", 1.0),),
    "logit KD": (("logit-kd", 1.0),),
    "relational KD": (("relational-kd", 10.0),),
    "frozen classifier": (("frozen-classifier", 1.0),),
    "BCT (new + frozen classifier)": (("cosface", 1.0), ("frozen-classifier", 1.0)),
    "cosine regression": (("cosine-regression", 1.0),),
    "contrastive": (("contrastive", 1.0),),
    "ranking (CSD)": (("ranking", 1.0),),
    "difference (D3still)": (("difference", 0.05),),
    "centroids (AsymVPR)": (("centroids", 1.0),),
    "codebook (SSP)": (("codebook", 10.0),),
    "regression + ranking": (("cosine-regression", 1.0), ("ranking", 1.0)),
    "regression + contrastive": (("cosine-regression", 1.0), ("contrastive", 0.2)),
    "regression + centroids": (("cosine-regression", 1.0), ("centroids", 0.1)),
}
"""Rows of the table of losses."""

UNANCHORED = ("vanilla", "logit KD", "relational KD")


def edge_config(model: ModelConfig, canvas: int, seed: int, epochs: int) -> TrainConfig:
    """Plain teaching: the cloud's vector of the same view, from the cloud's weights."""
    return TrainConfig(
        model=model,
        losses=TABLE["cosine regression"],
        init="cloud",
        epochs=epochs,
        batch_size=128,
        lr=2e-3,
        weight_decay=0.02,
        warmup=0.05,
        ema=0.0,
        views=7,
        mixed_views=1,
        canvas=canvas,
        val_share=0.0,
        seed=seed,
        views_seed=0,
    )


def best_config(model: ModelConfig, canvas: int, seed: int, epochs: int) -> TrainConfig:
    """The quick start's teaching: two losses, blends, targets drawn to what they show."""
    return replace(
        edge_config(model, canvas, seed, epochs),
        losses=TABLE["regression + ranking"],
        steady=3.0,
    )


def alone_config(model: ModelConfig, canvas: int, seed: int) -> TrainConfig:
    """The same network trained by itself, from the same ImageNet weights."""
    return replace(
        edge_config(model, canvas, seed, 12),
        losses=(("cosface", 1.0),),
        init="imagenet",
        lr=3e-3,
        backbone_lr=1 / 3,
        warmup=0.1,
        mixed_views=0,
    )
