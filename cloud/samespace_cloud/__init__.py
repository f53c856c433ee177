"""Training: cloud models, and edge models that live in their space. Needs torch.

>>> from samespace_cloud import TrainConfig, train_cloud, train_edge
>>> cloud = train_cloud(dataset, TrainConfig(...), "runs/cloud")  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "BACKBONES": "backbones",
    "LOSSES": "losses",
    "Augmentation": "augment",
    "BundleTeacher": "teacher",
    "Checkpoint": "checkpoint",
    "Dataset": "pictures",
    "DemoRecipe": "recipes",
    "EmbeddingModel": "model",
    "LabelledVectors": "teacher",
    "ModelConfig": "model",
    "NasConfig": "nas.config",
    "TaggerCheckpoint": "tagging",
    "TaggerConfig": "tagging",
    "TrainConfig": "config",
    "UpdateConfig": "tagging",
    "VectorTeacher": "teacher",
    "certify_family": "family",
    "demo_recipe": "recipes",
    "run_demo": "demo",
    "search_architecture": "nas.search",
    "train_cloud": "training",
    "train_edge": "training",
    "train_family": "family",
    "train_tagger": "tagging",
    "train_together": "training",
    "train_upgrade": "upgrade",
    "update_tagger": "tagging",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    # The command line imports this package to find its sub-commands; torch can wait.
    if name in _WHERE:
        return getattr(import_module(f"samespace_cloud.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'samespace_cloud' has no attribute {name!r}")
