"""What a candidate is worth: how it searches among its own vectors, and in the cloud's gallery.

With M a figure of the validation labels, q the candidate and g the cloud model:

| reward | formula | says |
| --- | --- | --- |
| r1 | M(q, q) | how good the candidate is alone |
| r2 | M(q, g) | how well it finds in the cloud's gallery |
| r3 | M(q, q) * M(q, g) | both (Duggal et al. 2021, section 4.2: the best of them) |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samespace.metrics import Ranking
from samespace_cloud.closed_form import fit_ridge
from samespace_cloud.frozen_network import embed_pictures, features
from samespace_cloud.material import Material
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.nas._supernet import Supernet, reestimate
from samespace_cloud.nas.space import Genotype
from samespace_cloud.views import Views, normalised
from samespace_edge import ConfigError

REWARDS: dict[str, Callable[[float, float], float]] = {
    "r1": lambda qq, qg: qq,
    "r2": lambda qq, qg: qg,
    "r3": lambda qq, qg: qq * qg,
}

METRICS: dict[str, Callable[[Ranking], float]] = {
    "map": lambda ranking: ranking.mean_average_precision,
    "recall_at_1": lambda ranking: ranking.recall_at(1),
}

_BATCH = 128
_FOR_STATISTICS = 1024


@dataclass(frozen=True)
class Examination:
    """What candidates are scored with.

    Attributes:
        material: its validation pictures are what is searched.
        views: train views, from which batch norms are re-estimated and the head is fitted.
        val_gallery: the cloud model's vectors (M, D) of the validation gallery.
        metric: a row of `METRICS`.
        count: how many train views the head is fitted on; batch norms take the first 1,024 of them.
        refit_head: fit every candidate's head to the cloud's vectors in closed form. All
            architectures share one head in the supernet, which suits none of them.
    """

    material: Material
    views: Views
    val_gallery: Tensor
    metric: str = "map"
    count: int = 4096
    refit_head: bool = True

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ConfigError(
                f"there is no metric {self.metric!r}; choose one of: {', '.join(METRICS)}"
            )
        if not len(self.material.holdout.queries):
            raise ConfigError(
                "candidates are scored on validation labels, and there are none; set val_share "
                "above 0"
            )
        if self.count < 2:
            raise ConfigError(f"{self.count} train views are too few to score with")

    def sample(self, size: int) -> tuple[Tensor, Tensor]:
        """Train views from all over, uint8 (N, 3, size, size), and what the cloud model says of
        them (N, D); every candidate gets the same."""
        assert self.views.taught is not None
        pictures, plain = len(self.views), self.views.plain
        count = min(self.count, pictures * plain)
        place = torch.arange(count)
        # In no order, so that every batch is a sample of everything.
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        picture, view = (place * pictures // count)[order], (place % plain)[order]
        return self.views.inputs[size][view, picture], self.views.taught[view, picture]


@torch.no_grad()
def score_candidate(
    supernet: Supernet, genotype: Genotype, examination: Examination
) -> dict[str, float]:
    """All rewards of a candidate, and M(q, q) and M(q, g) as `m_qq` and `m_qg`."""
    model = supernet.extract(genotype)
    prepare_candidate(model, examination)
    material, cpu = examination.material, torch.device("cpu")
    queries = embed_pictures(model, material.val_queries, cpu)
    gallery = embed_pictures(model, material.val_gallery, cpu)
    measure = METRICS[examination.metric]
    qq = measure(material.ranking(queries, gallery))
    qg = measure(material.ranking(queries, examination.val_gallery))
    return {name: reward(qq, qg) for name, reward in REWARDS.items()} | {"m_qq": qq, "m_qg": qg}


@torch.no_grad()
def prepare_candidate(model: EmbeddingModel, examination: Examination) -> None:
    """Give a model that was taken out of a supernet its running statistics, and its head."""
    images, taught = examination.sample(model.config.input_size)
    reestimate(model, _batches(model, images[:_FOR_STATISTICS]))
    if examination.refit_head:
        weight, bias = fit_ridge(features(model, images, torch.device("cpu")), taught)
        model.embed.weight.copy_(weight)
        model.embed.bias.copy_(bias)


def _batches(model: EmbeddingModel, images: Tensor) -> Iterator[Tensor]:
    """Normalised batches of one size; what is left over is left out."""
    size = min(_BATCH, len(images))
    for start in range(0, len(images) - size + 1, size):
        yield normalised(images[start : start + size], model, torch.device("cpu"))


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float:
    """How alike two scores rank the same candidates, -1 to 1: tau-b, which minds ties (Kendall
    1945). Not a number where one of them ranks nothing.

    Raises `ConfigError` for scores of different numbers of candidates.
    """
    if len(one) != len(other):
        raise ConfigError(f"{len(one)} and {len(other)} scores are not of the same candidates")
    agree, ranked_one, ranked_other = 0, 0, 0
    for i in range(len(one)):
        for j in range(i):
            a = (one[i] > one[j]) - (one[i] < one[j])
            b = (other[i] > other[j]) - (other[i] < other[j])
            agree += a * b
            ranked_one += a != 0
            ranked_other += b != 0
    if not ranked_one or not ranked_other:
        return math.nan
    return agree / math.sqrt(ranked_one * ranked_other)
