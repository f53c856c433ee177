"""How a tagger is trained to replace another one, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from samespace_cloud.checked import not_numbers
from samespace_cloud.tagging.methods import find_method
from samespace_edge import ConfigError

_MARGINS = {"elodi": 0.0}


@dataclass(frozen=True)
class UpdateConfig:
    """What keeps a new tagger right where the old one is.

    The training minimises cross-entropy + `weight` * term (PCT, Yan et al. 2021, section 3.2, whose
    lambda is `weight`). The authors' code minimises (1 - a) cross-entropy + a term instead, a being
    its `kd_alpha`: the same up to the factor 1 - a, with weight = a / (1 - a). Its examples' a of
    0.9, 0.8 and 0.5 are weights of 9, 4 and 1.

    Attributes:
        method: a row of `samespace_cloud.tagging.METHODS`.
        weight: of the term.
        alpha, beta: of the focal methods: a picture counts alpha + beta * 1[old right].
        temperature: of `focal-kl`. A small one does not keep answers (ibid., section 4).
        margin: of `ldi` and `elodi`: a logit may differ by so much; None is 0.5 for the first and 0
            for the second.
        power: of `ldi` and `elodi`.
        top_k: of `ldi` and `elodi`: how many classes of a picture count, those with the reference's
            largest logits.
        skip_truth: of `ldi` and `elodi`: leave the picture's own class out.
        members: of `elodi` and `ensemble`: how many taggers are trained.
    """

    method: str = "focal-logit"
    weight: float = 1.0
    alpha: float = 1.0
    beta: float = 5.0
    temperature: float = 100.0
    margin: float | None = None
    power: float = 2.0
    top_k: int = 10
    skip_truth: bool = False
    members: int = 4

    def __post_init__(self) -> None:
        find_method(self.method)
        if wrong := not_numbers(self):
            raise ConfigError(f"settings of an update that are no such numbers: {', '.join(wrong)}")
        checks = {
            "weight": self.weight >= 0,
            "alpha": self.alpha >= 0,
            "beta": self.beta >= 0,
            "temperature": self.temperature > 0,
            "margin": self.margin is None or self.margin >= 0,
            "power": self.power >= 1,
            "top_k": self.top_k >= 1,
            "members": self.members >= 2,
        }
        if wrong := [f"{name} = {getattr(self, name)!r}" for name, ok in checks.items() if not ok]:
            raise ConfigError(f"settings of an update out of range: {', '.join(wrong)}")

    @property
    def allowance(self) -> float:
        """The margin, or the method's own."""
        return _MARGINS.get(self.method, 0.5) if self.margin is None else self.margin

    def to_json(self) -> dict[str, Any]:
        """As it stands in checkpoints."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> UpdateConfig:
        """The opposite of `to_json`; raises `ConfigError` for unknown keys."""
        if unknown := sorted(set(value) - {f.name for f in fields(cls)}):
            raise ConfigError(f"unknown settings of an update: {', '.join(unknown)}")
        try:
            return cls(**value)
        except TypeError as error:
            raise ConfigError(f"settings of an update that cannot be read: {error}") from None
