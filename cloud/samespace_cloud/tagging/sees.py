"""What a tagger sees: pictures, through a backbone of its own, or a bundle's vectors of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from samespace import Dataset, Item
from samespace_cloud.backbones import backbone_spec
from samespace_cloud.model import ModelConfig
from samespace_cloud.pictures import decoded
from samespace_cloud.views import resized
from samespace_edge import ConfigError, Embedder, Fingerprint, Resize, canonical_json
from samespace_edge._temporary import temporary_for

Report: TypeAlias = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    return None


@dataclass(frozen=True)
class FromPictures:
    """Pictures, through a backbone that is trained.

    Attributes:
        backbone: a row of `samespace_cloud.backbones.BACKBONES`, or a text that says all of it.
        input_size: side of the square input, in pixels.
        policy: how a picture becomes a square: `crop`, `squash` or `pad`.
    """

    backbone: str
    input_size: int
    policy: str = "crop"

    def __post_init__(self) -> None:
        ModelConfig(self.backbone, self.input_size, policy=self.policy)

    @property
    def architecture(self) -> str:
        """The network as text."""
        return f"{self.backbone}-{self.input_size}px"

    @property
    def side(self) -> int:
        """Of the input, in pixels."""
        return self.input_size

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to a picture, as it goes into the fingerprint."""
        given = self._as_model
        return {
            "resize": given.resize.to_json(),
            "mean": list(given.mean),
            "std": list(given.std),
        }

    def build(self) -> tuple[nn.Module, int]:
        """A fresh network from inputs to the embedding, and the embedding's width."""
        backbone = backbone_spec(self.backbone).build()
        return backbone, backbone.width

    def read(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        cache: Path | None = None,
        report: Report = _silent,
    ) -> Tensor:
        """The inputs of unchanged pictures, uint8 (N, 3, S, S); kept in `cache`."""
        pixels = decoded(dataset, items, self._as_model.resize, cache, report)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def of_views(self, views: Tensor) -> Tensor:
        """The inputs uint8 (B, 3, S, S) of views, uint8 (B, 3, side, side)."""
        return resized(views, self.input_size)

    def canvas(self, side: int) -> Resize:
        """How pictures are decoded to be augmented, at `side` pixels."""
        return Resize(side, side, self.policy)  # type: ignore[arg-type]

    @property
    def _as_model(self) -> ModelConfig:
        return ModelConfig(self.backbone, self.input_size, policy=self.policy)


@dataclass(frozen=True)
class FromVectors:
    """A bundle's vectors of unchanged pictures; only what comes after them is trained.

    Attributes:
        bundle: where the bundle is. It may move: its fingerprint says whether it is the one.
        fingerprint: of the model that makes the vectors, 64 hexadecimal digits.
        dim: their width.
        hidden: width of a hidden layer (ReLU); 0 for none, which makes the tagger linear.
    """

    bundle: str = field(compare=False)
    fingerprint: str
    dim: int
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.hidden < 0 or self.dim < 1:
            raise ConfigError(f"hidden {self.hidden} and dim {self.dim} have to be 0 and 1 or more")

    @classmethod
    def of(cls, bundle: str | Path, hidden: int = 0) -> FromVectors:
        """The vectors of the bundle at this path; raises as `Embedder` does."""
        embedder = Embedder(bundle)
        return cls(str(bundle), embedder.identity.fingerprint.hex, embedder.dim, hidden)

    @property
    def architecture(self) -> str:
        """The network as text."""
        hidden = f"-{self.hidden}h" if self.hidden else ""
        return f"vectors-{self.dim}d{hidden}"

    @property
    def side(self) -> int:
        """Of the bundle's input, the longer one, in pixels."""
        resize = self._embedder.bundle.manifest.resize
        return max(resize.width, resize.height)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to a picture, as it goes into the fingerprint."""
        return {"embedded_by": self.fingerprint}

    def build(self) -> tuple[nn.Module, int]:
        """A fresh network from inputs to the embedding, and the embedding's width."""
        if not self.hidden:
            return nn.Identity(), self.dim
        return nn.Sequential(nn.Linear(self.dim, self.hidden), nn.ReLU()), self.hidden

    def read(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        cache: Path | None = None,
        report: Report = _silent,
    ) -> Tensor:
        """Unit vectors float32 (N, D) of unchanged pictures; kept in `cache`.

        Raises `ConfigError` where the bundle is another one than it was.
        """
        key = [dataset.sha256(items), [i.path for i in items], str(self._embedder.identity)]
        digest = hashlib.sha256(canonical_json(key).encode()).hexdigest()
        file = None if cache is None else cache / f"{digest[:24]}.npy"
        if file is not None and file.exists():
            return torch.from_numpy(np.load(file, allow_pickle=False))
        vectors = np.empty((len(items), self.dim), np.float32)
        for start in range(0, len(items), 32):
            rows = slice(start, start + 32)
            vectors[rows] = self._embedder.embed([dataset.read(i) for i in items[rows]])
            report(min(start + 32, len(items)), len(items))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_for(file)
            with temporary.open("wb") as stream:
                np.save(stream, vectors)
            temporary.replace(file)
        return torch.from_numpy(vectors)

    def of_views(self, views: Tensor) -> Tensor:
        """Unit vectors float32 (B, D) of views, uint8 (B, 3, side, side)."""
        pixels = np.ascontiguousarray(views.permute(0, 2, 3, 1).numpy())
        return torch.from_numpy(self._embedder.embed(pixels))

    @property
    def _embedder(self) -> Embedder:
        return _opened(self.bundle, self.fingerprint)


@lru_cache(maxsize=4)
def _opened(bundle: str, fingerprint: str) -> Embedder:
    embedder = Embedder(bundle)
    found = embedder.identity.fingerprint
    if found.hex != fingerprint:
        raise ConfigError(
            f"the tagger was trained on vectors of {Fingerprint(fingerprint).short}…; the bundle "
            f"at {bundle} is {found.short}…. Give the bundle that it was trained with"
        )
    return embedder


Sees: TypeAlias = FromPictures | FromVectors


def sees_from(value: Mapping[str, Any]) -> Sees:
    """From how it stands in checkpoints; raises `ConfigError` for unknown keys."""
    kind = FromPictures if "backbone" in value else FromVectors
    if unknown := sorted(set(value) - {f.name for f in fields(kind)}):
        raise ConfigError(f"unknown settings of what a tagger sees: {', '.join(unknown)}")
    return kind(**value)
