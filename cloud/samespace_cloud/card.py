"""How a checkpoint was made, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samespace_cloud.config import TrainConfig
from samespace_cloud.material import Material

_STARTED = {
    "random": "from scratch",
    "imagenet": "from ImageNet weights (EfficientNet-Lite, Apache-2.0)",
    "cloud": "from the cloud model's own weights",
}


def card_of(config: TrainConfig, material: Material, notes: Mapping[str, Any]) -> dict[str, Any]:
    """What every training says of itself, and `notes`, which win."""
    return {
        "started": _STARTED[config.init],
        "trained on": f"{len(material.holdout.train)} labelled pictures of "
        f"{len(material.names)} labels, {config.epochs} epochs",
        "losses": " + ".join(f"{w:g} {n}" for n, w in config.losses),
        **notes,
    }
