"""Everything that decides over a training, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from samespace_cloud.augment import Augmentation
from samespace_cloud.model import ModelConfig
from samespace_edge import ConfigError

Init = Literal["random", "imagenet", "cloud"]


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        model: what is trained.
        losses: names from the table of losses, and their weights.
        init: where the backbone starts: `random`, `imagenet` (weights that the registry
            carries) or `cloud` (the cloud model's own weights, as far as they fit).
        epochs: passes over the pictures.
        batch_size: pictures in a step.
        lr: peak learning rate of head and losses (AdamW), reached after the warm-up and brought
            to 0 along a cosine.
        backbone_lr: the backbone's learning rate, as a share of `lr`.
        weight_decay: of weights; biases and norms have none.
        warmup: share of the steps over which the rate rises from 0.
        ema: decay of the moving average of the weights that is kept; 0 keeps the last weights.
        scale, margin: of softmax losses.
        views: how many views of every picture are made, the picture itself among them; later
            epochs see them again.
        mixed_views: how many of these are blends of two pictures; they teach without labels.
        teacher_view: what the cloud model embeds: the `same` view that the edge model sees, or the
            `clean` picture, whatever the view; a clean one teaches no blends.
        pool_views: how many views of every picture of an unlabelled pool are made.
        nested: widths below `model.dim` at which an embedding's leading coordinates have to search
            by themselves (Matryoshka, Kusupati et al. 2022); every loss is applied at each width.
        steady: weight of the label's, or the picture's, centre in what the cloud model teaches;
            see `samespace_cloud.views.steadied`.
        canvas: side at which pictures are decoded and augmented, in pixels.
        augmentation: of the views.
        int8: above 0 the model is fine-tuned for int8, and this is the weight of agreeing with the
            model that it was (see `samespace_cloud.quantized`).
        precision: `fp32`, or `bf16` for the student's forward pass. A processor without
            instructions for bf16 is about ten times slower in it, which the training says.
        val_share: share of the train labels kept out to validate on; 0 trains on all.
        val_every: epochs between validations.
        patience: validations without a better score after which to stop; 0 never stops early.
        seed: of weights, order and views.
        views_seed: of the views alone, where trainings with several seeds are to share what the
            cloud model says of one set of views; None takes `seed`.
        align: weight of the alignment term, in co-training.
        align_from: share of the training after which alignment starts to rise, in co-training.
        protect: in co-training, share of the alignment's pull that the cloud model is spared;
            1 leaves it to the edge model to move.
    """

    model: ModelConfig
    losses: tuple[tuple[str, float], ...]
    init: Init = "random"
    epochs: int = 20
    batch_size: int = 64
    lr: float = 1e-3
    backbone_lr: float = 1.0
    weight_decay: float = 1e-4
    warmup: float = 0.05
    ema: float = 0.99
    scale: float = 16.0
    margin: float = 0.0
    views: int = 6
    mixed_views: int = 0
    teacher_view: Literal["same", "clean"] = "same"
    pool_views: int = 1
    nested: tuple[int, ...] = ()
    steady: float = 0.0
    canvas: int = 96
    augmentation: Augmentation = field(default_factory=Augmentation)
    int8: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    val_share: float = 0.1
    val_every: int = 1
    patience: int = 0
    seed: int = 0
    views_seed: int | None = None
    align: float = 4.0
    align_from: float = 0.3
    protect: float = 0.9

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 2,
            "lr": self.lr > 0,
            "backbone_lr": self.backbone_lr >= 0,
            "warmup": 0 <= self.warmup < 1,
            "ema": 0 <= self.ema < 1,
            "views": self.views >= 1,
            "mixed_views": 0 <= self.mixed_views < self.views,
            "teacher_view": self.teacher_view in ("same", "clean"),
            "pool_views": self.pool_views >= 1,
            "nested": all(2 <= d < self.model.dim for d in self.nested),
            "steady": self.steady >= 0,
            "int8": self.int8 >= 0,
            "canvas": self.canvas >= 16,
            "val_share": 0 <= self.val_share < 1,
            "val_every": self.val_every >= 1,
            "losses": len(self.losses) > 0,
            "init": self.init in ("random", "imagenet", "cloud"),
            "precision": self.precision in ("fp32", "bf16"),
            "protect": 0 <= self.protect <= 1,
        }
        if wrong := [f"{name} = {getattr(self, name)!r}" for name, ok in checks.items() if not ok]:
            raise ConfigError(f"training settings out of range: {', '.join(wrong)}")
        if self.teacher_view == "clean" and self.mixed_views:
            raise ConfigError(
                "a clean-view teacher says nothing of blends: set mixed_views to 0, or "
                "teacher_view to 'same'"
            )

    @property
    def augmentation_seed(self) -> int:
        """The seed of the views."""
        return self.seed if self.views_seed is None else self.views_seed

    def to_json(self) -> dict[str, Any]:
        """As it stands in checkpoints."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainConfig:
        """The opposite of `to_json`; raises `ConfigError` for unknown keys."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise ConfigError(f"unknown training settings: {', '.join(unknown)}")
        try:
            return cls._read(value)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"training settings that cannot be read: {error}") from None

    @classmethod
    def _read(cls, value: Mapping[str, Any]) -> TrainConfig:
        given = dict(value)
        given["model"] = ModelConfig.from_json(dict(value["model"]))
        given["losses"] = tuple((str(n), float(w)) for n, w in value["losses"])
        if "nested" in value:
            given["nested"] = tuple(int(d) for d in value["nested"])
        if "augmentation" in value:
            augmentation = dict(value["augmentation"])
            if "scale" in augmentation:
                augmentation["scale"] = tuple(augmentation["scale"])
            given["augmentation"] = Augmentation(**augmentation)
        return cls(**given)
