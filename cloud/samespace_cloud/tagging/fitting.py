"""A tagger in the repository's training loop: what it moves, and what it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace import Dataset
from samespace_cloud.config import TrainConfig
from samespace_cloud.material import _CACHE, Progress
from samespace_cloud.pictures import decoded
from samespace_cloud.students import Students
from samespace_cloud.tagging.config import TaggerConfig
from samespace_cloud.tagging.data import Labelled
from samespace_cloud.tagging.losses import Answers, Term
from samespace_cloud.tagging.model import Tagger
from samespace_cloud.tagging.reference import Reference
from samespace_cloud.tagging.sees import FromPictures
from samespace_cloud.teaching import VIEWS
from samespace_cloud.trainer import Trainer
from samespace_cloud.views import Views
from samespace_edge import ConfigError, canonical_json


class DivergedError(ConfigError):
    """A training whose logits or loss are no longer finite."""


class Tagging(Students):
    """A tagger under cross-entropy and, of an update, `weight` times a term."""

    def __init__(self, tagger: Tagger, term: Term | None, weight: float) -> None:
        super().__init__()
        self.models = nn.ModuleDict({"model": tagger})
        self.term = term
        self._weight = weight

    @property
    def tagger(self) -> Tagger:
        """What is trained."""
        found = self.models["model"]
        assert isinstance(found, Tagger)
        return found

    def loss(
        self, inputs: Mapping[int, Tensor], label: Tensor, taught: Tensor | None, done: float
    ) -> Tensor:
        """See `Students.loss`; `taught` are the old logits. Raises `DivergedError` where the
        logits are no longer finite."""
        tagger = self.tagger
        (side,) = inputs
        embedding = tagger.embed(inputs[side].to(label.device))
        logits = tagger.head(embedding).float()
        total = F.cross_entropy(logits, label)
        if self.term is not None:
            answers = Answers(logits, embedding.float(), label, taught)
            total = total + self._weight * self.term(answers)
        if not torch.isfinite(total):
            raise DivergedError(
                f"the logits or their loss are not finite after {done:.0%} of the training; lower "
                "lr or, of an update, weight"
            )
        return total


class RowViews(Views):
    """Vectors in the place of pictures: of each there is one view, the vector itself.

    Args:
        vectors: float32 (N, D).
        taught: old logits float32 (N, C_old); None where none are looked at.
        plan: what decides over them, as text.
    """

    def __init__(self, vectors: Tensor, taught: Tensor | None, plan: str) -> None:
        self._sizes, self._seed, self._plan = (0,), 0, plan
        self.count = self.plain = 1
        self.inputs = {0: vectors[None]}
        self.taught = None if taught is None else taught[None]

    def __len__(self) -> int:
        return self.inputs[0].shape[1]

    def describe(self) -> str:
        """See `Views.describe`."""
        return self._plan


def shown(
    dataset: Dataset,
    data: Labelled,
    config: TaggerConfig,
    reference: Reference | None,
    folder: Path,
    progress: Progress,
) -> Views:
    """What is learnt from, with what `reference` says of it.

    Decoded pictures, views, vectors and old logits lie beside `folder`, by what decides over them:
    the next training on the same pictures finds them.
    """
    sees = config.sees
    cache = folder.parent / _CACHE

    def report(done: int, total: int) -> None:
        progress("read the pictures", done, total)

    if reference is not None:
        reference.about_to_teach(data.train, config.views, folder.parent / VIEWS)
    if not isinstance(sees, FromPictures):
        taught, key = None, None
        if reference is not None:
            taught = reference.predict(dataset, data.train, cache, report)
            key = reference.key
        plan = canonical_json([data.digest, sees.fingerprint, key])
        return RowViews(sees.read(dataset, data.train, cache, report), taught, plan)
    pictures = decoded(dataset, data.train, sees.canvas(config.side), cache, report)
    seed = config.augmentation_seed
    views = Views(pictures, config.augmentation, [sees.input_size], config.views, seed)
    views.prepare(
        lambda done, total: progress("make views", done, total), reference, folder.parent / VIEWS
    )
    return views


def fit(
    students: Tagging,
    views: Views,
    labels: Tensor,
    config: TaggerConfig,
    folder: Path,
    about: tuple[str, ...],
    progress: Progress,
) -> tuple[Tagger, Trainer]:
    """Train, or go on with a training that was stopped; the last weights, averaged, on the CPU, in
    eval mode. Call `Trainer.finish` when they are stored.

    Args:
        labels: int64 (N,).
        about: what decides over the result beside settings and views.
    """
    trainer = Trainer(
        students,
        views,
        labels,
        # The loop reads nothing of its settings but what both kinds have.
        cast(TrainConfig, config),
        folder,
        title=f"train {folder.name}",
        about=about,
        optimizer=config.optimizer,
        clip=config.clip,
    )
    kept = trainer.run(progress)
    assert isinstance(kept, Tagging)
    if not all(torch.isfinite(w).all() for w in kept.tagger.state_dict().values()):
        raise DivergedError("the last step left weights that are not finite; lower lr")
    return kept.tagger.eval(), trainer
