"""Taggers and their updates: each is trained once and kept, with what it says of the test part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.study._pool import NotTrainedError
from samespace import Dataset
from samespace.regressions import Predictions
from samespace_cloud.tagging import (
    DivergedError,
    FromPictures,
    TaggerCheckpoint,
    TaggerConfig,
    UpdateConfig,
    ensemble_of,
    open_labelled,
    predictions_of,
    train_tagger,
    update_tagger,
)

SMALL, LARGE = FromPictures("lite0-edge", 64), FromPictures("lite0-trunk", 64)


@dataclass(frozen=True)
class Setup:
    """What a generation of taggers is trained as.

    Attributes:
        name: of its folder.
        sees: its network.
        pictures: share of every class's train pictures that it learns from.
        classes: share of the classes that it knows.
        sgd: learning rate of SGD as the papers train, with little weight decay and no gradient
            clipped; 0 for AdamW.
    """

    name: str
    sees: FromPictures = SMALL
    pictures: float = 1.0
    classes: float = 1.0
    sgd: float = 0.0


PLAIN = Setup("plain")


@dataclass(frozen=True)
class Scenario:
    """An update: what changes from the old generation to the new one."""

    name: str
    old: Setup
    new: Setup = PLAIN


SCENARIOS = (
    Scenario("retrained", PLAIN),
    Scenario("small to large", PLAIN, Setup("large", LARGE)),
    Scenario("half of the pictures to all", Setup("half-pictures", pictures=0.5)),
    Scenario("half of the classes to all", Setup("half-classes", classes=0.5)),
)


SGD_RATES = (0.003, 0.01, 0.03, 0.1)
"""Learning rates to choose from."""


def by_sgd(rate: float) -> Scenario:
    """Retrained, both times by SGD."""
    setup = Setup(f"sgd-{rate:g}", sgd=rate)
    return Scenario(f"retrained by SGD at {rate:g}", setup, setup)


@dataclass(eq=False)
class Shelf:
    """The taggers of one data set; each is trained when it is first asked for.

    Attributes:
        name: of the data set.
        manifest: its CSV.
        out: where trainings are kept.
        epochs: of every training.
        trains: whether what is not kept is trained; else `NotTrainedError` is raised.

    A training that diverges raises `DivergedError`, and is not tried again.
    """

    name: str
    manifest: Path
    out: Path
    epochs: int = 8
    trains: bool = True
    _said: dict[str, Predictions] = field(default_factory=dict)

    @cached_property
    def data(self) -> Dataset:
        return open_labelled(self.manifest)

    def part(self, setup: Setup) -> Dataset:
        """What a setup learns from; test pictures stay all. Shares are nested."""
        generator = np.random.default_rng(0)
        names = sorted({i.label for i in self.data.train})
        known = set(generator.permutation(names)[: round(setup.classes * len(names))].tolist())
        kept = []
        for name in sorted(known):
            own = [i for i in self.data.train if i.label == name]
            count = max(1, round(setup.pictures * len(own)))
            kept += [own[i] for i in generator.permutation(len(own))[:count].tolist()]
        train = {i.path for i in kept}
        return self.data.subset(
            [
                i
                for i in self.data.items
                if i.path in train or (i.split != "train" and i.label in known) or i.split == "test"
            ]
        )

    def config(self, setup: Setup, seed: int) -> TaggerConfig:
        """Settings of a training; odd and even seeds see other views."""
        config = TaggerConfig(
            setup.sees, init="imagenet", epochs=self.epochs, seed=seed, views_seed=seed % 2
        )
        if setup.sgd:
            config = replace(config, optimizer="sgd", lr=setup.sgd, clip=0.0, weight_decay=1e-4)
        return config

    def tagger(self, setup: Setup, seed: int) -> TaggerCheckpoint:
        """One that was trained without regard to any other."""
        folder = self.out / self.name / f"{setup.name}-{seed}"
        return self._kept(
            folder, lambda: train_tagger(self.part(setup), self.config(setup, seed), folder)
        )

    def ensemble(self, setup: Setup, seeds: Sequence[int]) -> TaggerCheckpoint:
        """Several of these, averaged."""
        return ensemble_of([self.tagger(setup, seed) for seed in seeds])

    def updated(
        self,
        setup: Setup,
        seed: int,
        update: UpdateConfig,
        old: TaggerCheckpoint,
        name: str,
        members: Sequence[TaggerCheckpoint] | None = None,
        start: TaggerCheckpoint | None = None,
    ) -> TaggerCheckpoint:
        """One that was trained to replace `old`, from the weights of `start` where given."""
        folder = self.out / self.name / name
        config = self.config(setup, seed)
        if start is not None:
            config = replace(config, init="checkpoint")
        return self._kept(
            folder,
            lambda: update_tagger(
                self.part(setup), config, update, old, folder, members=members, start=start
            ),
        )

    def says(self, tagger: TaggerCheckpoint) -> Predictions:
        """Its answers to the test pictures."""
        return self._answers(tagger, "test")

    def says_of_validation(self, tagger: TaggerCheckpoint) -> Predictions:
        """Its answers to the val pictures, by which nothing was trained."""
        return self._answers(tagger, "val")

    def _kept(self, folder: Path, train: Callable[[], TaggerCheckpoint]) -> TaggerCheckpoint:
        """What lies in a folder; trained where nothing does yet."""
        if (folder / "tagger.json").exists():
            return TaggerCheckpoint.load(folder)
        mark = folder / "diverged"
        if mark.exists():
            raise DivergedError(mark.read_text())
        if not self.trains:
            raise NotTrainedError
        try:
            return train()
        except DivergedError as error:
            mark.write_text(str(error))
            raise

    def _answers(self, tagger: TaggerCheckpoint, split: str) -> Predictions:
        key = f"{tagger.fingerprint.hex}-{len(tagger.members)}-{split}"
        if key not in self._said:
            cache = self.out / self.name / "decoded"
            self._said[key] = predictions_of(tagger, self.data, split, cache=cache)
        return self._said[key]
