"""A backbone with an embedding head, and what has to be known to build it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor, nn

from samespace_cloud.backbones import backbone_spec
from samespace_cloud.pretrained import MEAN, STD
from samespace_edge import ConfigError, Resize


@dataclass(frozen=True)
class ModelConfig:
    """An embedding model as data.

    Attributes:
        backbone: a row of `samespace_cloud.backbones.BACKBONES`, or a text that says all of it.
        input_size: side of the square input, in pixels.
        dim: width of the embedding.
        policy: how a picture becomes a square: `crop`, `squash` or `pad`.
        folded: whether the batch norms are merged into the convolutions.
    """

    backbone: str
    input_size: int
    dim: int = 128
    policy: str = "crop"
    folded: bool = False

    def __post_init__(self) -> None:
        backbone_spec(self.backbone)
        if self.input_size < 16 or self.dim < 2:
            raise ConfigError(
                f"input_size {self.input_size} and dim {self.dim} have to be at least 16 and 2"
            )

    @property
    def architecture(self) -> str:
        """The network as text; part of the fingerprint."""
        folded = "-folded" if self.folded else ""
        return f"{self.backbone}-{self.input_size}px-{self.dim}d{folded}"

    @property
    def resize(self) -> Resize:
        """How a decoded picture becomes the input."""
        return Resize(self.input_size, self.input_size, self.policy)  # type: ignore[arg-type]

    @property
    def mean(self) -> tuple[float, float, float]:
        """Subtracted from the pixels as fractions."""
        return MEAN

    @property
    def std(self) -> tuple[float, float, float]:
        """What the pixels are divided by then."""
        return STD

    def to_json(self) -> dict[str, Any]:
        """As it stands in checkpoints."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelConfig:
        """The opposite of `to_json`; raises `ConfigError` for unknown keys."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise ConfigError(f"unknown settings of a model: {', '.join(unknown)}")
        return cls(**value)


class EmbeddingModel(nn.Module):
    """Normalised float pictures (N, 3, H, W) to embeddings (N, D), not normalised to length 1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone_spec(config.backbone).build(config.folded)
        self.embed = nn.Linear(self.backbone.width, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.embed(self.backbone(x))
        return y
