"""Side information: what is stored beside every item today, for an adapter of tomorrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from samespace import Dataset, Item
from samespace_cloud.frozen_network import features
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.pictures import decoded
from samespace_cloud.pretrained import load_pretrained

Vectors = NDArray[np.float32]

_SIZE, _DIM, _BATCH = 112, 128, 64


class SideModel:
    """Features of EfficientNet-Lite0 as ImageNet left it, in 128 numbers.

    It knows no label of the data and nothing of a later model: it could have been run when the
    gallery was indexed. The 128 directions are those of most variance on the train pictures.

    Attributes:
        train: float32 (N, 128), unit length, of the train pictures.
    """

    def __init__(self, data: Dataset, cache: Path) -> None:
        self._model = EmbeddingModel(ModelConfig("lite0-trunk", _SIZE)).eval()
        load_pretrained(self._model.backbone, "lite0-trunk")
        self._cache = cache
        seen = self._features(data, data.train, "train")
        self._mean = seen.mean(0)
        self._directions = np.linalg.svd(seen - self._mean, full_matrices=False)[2][:_DIM]
        self.train = self._reduced(seen)

    def vectors(self, data: Dataset, role: str, name: str) -> Vectors:
        """Unit vectors (M, 128) of a task's `gallery` or `query` pictures."""
        items = data.gallery if role == "gallery" else data.queries
        return self._reduced(self._features(data, items, f"{name}-{role}"))

    def _reduced(self, x: Vectors) -> Vectors:
        y: Vectors = (x - self._mean) @ self._directions.T
        return y / np.linalg.norm(y, axis=1, keepdims=True)

    def _features(self, data: Dataset, items: Sequence[Item], name: str) -> Vectors:
        file = self._cache / f"side-{name.split()[0]}.npy"
        if not file.exists():
            pixels = decoded(data, items, self._model.config.resize, self._cache / "side")
            x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
            cpu = torch.device("cpu")
            parts = [
                features(self._model, x[i : i + _BATCH], cpu) for i in range(0, len(x), _BATCH)
            ]
            np.save(file, torch.cat(parts).numpy())
        found: Vectors = np.load(file)
        return found
