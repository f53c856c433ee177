"""Everything that decides over a linear fine-tuning on a manifest, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from samespace_cloud.linear import LinearConfig
from samespace_cloud.tagging import FromPictures, TaggerConfig
from samespace_cloud.tagging.config import TaggerInit
from samespace_cloud.tagging.sees import sees_from
from samespace_edge import ConfigError


@dataclass(frozen=True)
class TuneConfig:
    """How a network is tuned linearly.

    Attributes:
        sees: the network, and how pictures become its input; from a base it is the base's.
        init: where the network starts: `imagenet`, `checkpoint` or `random`; see `TaggerConfig`.
        linear: how the tangent is found.
        only: which parameters get a tangent: prefixes of their names, such as `head` or
            `backbone.stages.6`; empty for all.
        partial: whether a class of the base may have no picture.
        val_share: share of every class's train pictures to validate on, where the dataset has no
            val part. By default none: pictures are few, and `influence_of` validates on each
            without leaving any out.
        split_seed: of which pictures validate.
    """

    sees: FromPictures
    init: TaggerInit = "imagenet"
    linear: LinearConfig = field(default_factory=LinearConfig)
    only: tuple[str, ...] = ()
    partial: bool = False
    val_share: float = 0.0
    split_seed: int = 0

    def __post_init__(self) -> None:
        _ = self.tagger  # has the same ranges

    @property
    def tagger(self) -> TaggerConfig:
        """The same choices of network and pictures, as an ordinary tagger has them."""
        return TaggerConfig(
            self.sees,
            self.init,
            val_share=self.val_share,
            split_seed=self.split_seed,
            seed=self.linear.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """As it stands in checkpoints."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TuneConfig:
        """The opposite of `to_json`; raises `ConfigError` for unknown keys."""
        if unknown := sorted(set(value) - {f.name for f in fields(cls)}):
            raise ConfigError(f"unknown settings of a tuning: {', '.join(unknown)}")
        try:
            sees = sees_from(value["sees"])
            if not isinstance(sees, FromPictures):
                raise ConfigError(
                    "a tuning moves the weights of a network that sees pictures; on a bundle's "
                    "vectors train a head: samespace train tagger --embeddings"
                )
            linear = LinearConfig.from_json(value.get("linear", {}))
            only = tuple(value.get("only", ()))
            return cls(**{**value, "sees": sees, "linear": linear, "only": only})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"settings of a tuning that cannot be read: {error!r}") from None
