"""The table of losses. A new one is one row here and one file beside it.

| name | what it does | anchored | labels | source |
| --- | --- | --- | --- | --- |
| cosface | classifier of its own, margin on the cosine | no | yes | Wang et al. 2018 |
| arcface | classifier of its own, margin on the angle | no | yes | Deng et al. 2019 |
| frozen-classifier | the cloud's classifier, frozen | yes | yes | BCT, Shen et al. 2020 |
| regression-alleviating | the cloud's vector before other labels' | yes | no | RACT, 2022 |
| cosine-regression | the cloud's embedding of the same view | yes | no | AML, 2021 |
| contrastive | the cloud's vectors of the batch | yes | no | Khosla et al. 2020; openBCT |
| ranking | the cloud's ranking of its own anchors | yes | no | CSD, Wu et al. 2022 |
| difference | how much nearer one picture is than another | yes | no | D3still, 2024 |
| centroids | the cloud's class centroids, with their spread | yes | yes | AsymVPR, 2025 |
| codebook | the cloud's product quantiser | yes | no | SSP, Wu et al. 2024 |
| logit-kd | the cloud's class probabilities | no | no | Hinton et al. 2015 |
| relational-kd | distances between the batch's pictures | no | no | RKD, Park et al. 2019 |

A loss that is not anchored leaves the student in a space of its own: alone it makes no compatible
model, and training warns. `labels` says whether pictures without a label teach nothing.
"""

from samespace_cloud.losses._base import Loss, LossContext, LossInputs
from samespace_cloud.losses.centroids import Centroids
from samespace_cloud.losses.codebook import Codebook
from samespace_cloud.losses.contrastive import Contrastive
from samespace_cloud.losses.cosine_regression import CosineRegression
from samespace_cloud.losses.difference import DifferenceDistillation
from samespace_cloud.losses.frozen_classifier import FrozenClassifier
from samespace_cloud.losses.logit_distillation import LogitDistillation
from samespace_cloud.losses.margin_softmax import ArcFace, CosFace, margin_logits
from samespace_cloud.losses.ranking_distillation import RankingDistillation
from samespace_cloud.losses.regression_alleviating import RegressionAlleviating
from samespace_cloud.losses.relational_distillation import RelationalDistillation
from samespace_edge import ConfigError

LOSSES: dict[str, type[Loss]] = {
    "arcface": ArcFace,
    "centroids": Centroids,
    "codebook": Codebook,
    "contrastive": Contrastive,
    "cosface": CosFace,
    "cosine-regression": CosineRegression,
    "difference": DifferenceDistillation,
    "frozen-classifier": FrozenClassifier,
    "logit-kd": LogitDistillation,
    "ranking": RankingDistillation,
    "regression-alleviating": RegressionAlleviating,
    "relational-kd": RelationalDistillation,
}


def loss_class(name: str) -> type[Loss]:
    """The row called `name`; raises `ConfigError` with the known names."""
    if name not in LOSSES:
        raise ConfigError(f"there is no loss {name!r}; choose from: {', '.join(sorted(LOSSES))}")
    return LOSSES[name]


def build_loss(name: str, context: LossContext) -> Loss:
    """The loss called `name`; raises `ConfigError` with the known names."""
    return loss_class(name)(context)


__all__ = [
    "LOSSES",
    "ArcFace",
    "Centroids",
    "Codebook",
    "Contrastive",
    "CosFace",
    "CosineRegression",
    "DifferenceDistillation",
    "FrozenClassifier",
    "LogitDistillation",
    "Loss",
    "LossContext",
    "LossInputs",
    "RankingDistillation",
    "RegressionAlleviating",
    "RelationalDistillation",
    "build_loss",
    "loss_class",
    "margin_logits",
]
