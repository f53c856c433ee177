"""Everything that decides over the training of a tagger, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from samespace_cloud.augment import Augmentation
from samespace_cloud.checked import not_numbers
from samespace_cloud.optimizers import CLIP, Optimizer
from samespace_cloud.tagging.sees import FromPictures, FromVectors, Sees, sees_from
from samespace_edge import ConfigError

TaggerInit = Literal["random", "imagenet", "checkpoint"]


@dataclass(frozen=True)
class TaggerConfig:
    """How a tagger is trained.

    Attributes:
        sees: what it sees, and with which network.
        init: where the network starts: `random`, `imagenet` (weights that the registry carries)
            or `checkpoint` (a checkpoint's own weights, as far as they fit).
        epochs: passes over the pictures.
        batch_size: pictures in a step.
        optimizer: `adamw`; or `sgd` with momentum, as papers on updates train, for which `lr` has
            to be chosen anew.
        lr: peak learning rate of the head, reached after the warm-up and brought to 0 along a
            cosine.
        backbone_lr: the learning rate of all before the head, as a share of `lr`.
        weight_decay: of weights; biases and norms have none.
        warmup: share of the steps over which the rate rises from 0.
        clip: the norm that a step's gradient has at most; 0 for any.
        ema: decay of the moving average of the weights that is kept; 0 keeps the last weights.
        views: how many views of every picture are made, the picture itself among them; vectors
            have one.
        canvas: side at which pictures are decoded and augmented, in pixels; 0 takes the input's,
            or that of an old tagger that teaches, where it is larger.
        augmentation: of the views.
        precision: `fp32`, or `bf16` for the forward pass; see `TrainConfig`.
        val_share: share of every class's train pictures to validate on, where the dataset has no
            val part; 0 trains on all. Nothing is chosen by them: the last weights are kept, since
            the best of many epochs on few pictures is luck, and luck turns answers over.
        split_seed: of which pictures validate: one for all runs that are to be compared.
        seed: of weights, order and views.
        views_seed: of the views alone, where trainings with several seeds are to share them, and
            what an old tagger says of them; None takes `seed`.
    """

    sees: Sees
    init: TaggerInit = "random"
    epochs: int = 20
    batch_size: int = 64
    optimizer: Optimizer = "adamw"
    lr: float = 2e-3
    backbone_lr: float = 1.0
    weight_decay: float = 0.02
    warmup: float = 0.05
    clip: float = CLIP
    ema: float = 0.99
    views: int = 6
    canvas: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Literal["fp32", "bf16"] = "fp32"
    val_share: float = 0.1
    split_seed: int = 0
    seed: int = 0
    views_seed: int | None = None

    def __post_init__(self) -> None:
        if wrong := not_numbers(self):
            raise ConfigError(f"settings of a tagger that are no such numbers: {', '.join(wrong)}")
        checks = {
            "init": self.init in ("random", "imagenet", "checkpoint"),
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 2,
            "optimizer": self.optimizer in get_args(Optimizer),
            "lr": self.lr > 0,
            "backbone_lr": self.backbone_lr >= 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "clip": self.clip >= 0,
            "ema": 0 <= self.ema < 1,
            "views": self.views >= 1,
            "canvas": self.canvas == 0 or self.canvas >= 16,
            "precision": self.precision in ("fp32", "bf16"),
            "val_share": 0 <= self.val_share < 1,
        }
        if wrong := [f"{name} = {getattr(self, name)!r}" for name, ok in checks.items() if not ok]:
            raise ConfigError(f"settings of a tagger out of range: {', '.join(wrong)}")
        if self.init == "imagenet" and isinstance(self.sees, FromVectors):
            raise ConfigError(
                "init='imagenet' is for a backbone; a tagger on a bundle's vectors starts at random"
            )

    @property
    def augmentation_seed(self) -> int:
        """The seed of the views."""
        return self.seed if self.views_seed is None else self.views_seed

    @property
    def side(self) -> int:
        """Side at which pictures are decoded and augmented, in pixels."""
        assert isinstance(self.sees, FromPictures)
        return self.canvas or self.sees.input_size

    @property
    def patience(self) -> int:
        """Training never stops early: see `val_share`."""
        return 0

    def to_json(self) -> dict[str, Any]:
        """As it stands in checkpoints."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TaggerConfig:
        """The opposite of `to_json`; raises `ConfigError` for unknown keys."""
        if unknown := sorted(set(value) - {f.name for f in fields(cls)}):
            raise ConfigError(f"unknown settings of a tagger: {', '.join(unknown)}")
        try:
            given = {**value, "sees": sees_from(value["sees"])}
            if "augmentation" in given:
                augmentation = dict(given["augmentation"])
                if "scale" in augmentation:
                    augmentation["scale"] = tuple(augmentation["scale"])
                given["augmentation"] = Augmentation(**augmentation)
                if wrong := not_numbers(given["augmentation"]):
                    raise ConfigError(f"an augmentation of no such numbers: {', '.join(wrong)}")
            return cls(**given)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"settings of a tagger that cannot be read: {error}") from None
