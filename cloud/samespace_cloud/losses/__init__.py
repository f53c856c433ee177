"""The table of losses. A new one is one row here and one file beside it.

| name | what it does | source |
| --- | --- | --- |
| cosface | classifier of its own, margin on the cosine | Wang et al. 2018 |
| arcface | classifier of its own, margin on the angle | Deng et al. 2019 |
| frozen-classifier | the cloud's classifier, frozen | BCT, Shen et al. 2020 |
| cosine-regression | the cloud's embedding of the same view | AML, Budnik & Avrithis 2021 |
| ranking | the cloud's ranking of its own anchors | CSD, Wu et al. 2022 |
"""

from samespace_cloud.losses._base import Loss, LossContext, LossInputs
from samespace_cloud.losses.cosine_regression import CosineRegression
from samespace_cloud.losses.frozen_classifier import FrozenClassifier
from samespace_cloud.losses.margin_softmax import ArcFace, CosFace, margin_logits
from samespace_cloud.losses.ranking_distillation import RankingDistillation
from samespace_edge import ConfigError

LOSSES: dict[str, type[Loss]] = {
    "arcface": ArcFace,
    "cosface": CosFace,
    "cosine-regression": CosineRegression,
    "frozen-classifier": FrozenClassifier,
    "ranking": RankingDistillation,
}


def build_loss(name: str, context: LossContext) -> Loss:
    """The loss called `name`; raises `ConfigError` with the known names."""
    if name not in LOSSES:
        raise ConfigError(f"there is no loss {name!r}; choose from: {', '.join(sorted(LOSSES))}")
    return LOSSES[name](context)


__all__ = [
    "LOSSES",
    "ArcFace",
    "CosFace",
    "CosineRegression",
    "FrozenClassifier",
    "Loss",
    "LossContext",
    "LossInputs",
    "RankingDistillation",
    "build_loss",
    "margin_logits",
]
