"""Runs of the study of fine-tuning: each is trained once, and its answers are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.study._finetuning_data import Material
from benchmarks.study._finetuning_methods import Answers, FineTuning, Linear, Method, Probe
from benchmarks.study._pool import NotTrainedError
from samespace import Dataset
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.linear import LinearConfig
from samespace_cloud.model import ModelConfig
from samespace_cloud.recipes import demo_recipe
from samespace_cloud.training import train_cloud
from samespace_edge._temporary import temporary_for

LINEAR = Linear(
    LinearConfig(
        slope=0.0,
        recalibrate=False,
        kappa=1000.0,
        head_penalty=10.0,
        iterations=60,
        batch_size=512,
    )
)

FIRST: Mapping[str, Method] = {
    "fine-tuning": FineTuning(),
    "LQF": LINEAR,
    "linear probe": Probe(),
}
"""Where the search for settings begins."""

Changes: TypeAlias = Mapping[str, Any]

SEARCH: Mapping[str, Sequence[Sequence[Changes]]] = {
    "fine-tuning": (
        ({"lr": 5e-4}, {"lr": 2e-3}, {"lr": 4e-3}),
        ({}, {"epochs": 16, "steps": 240}),
    ),
    "LQF": (
        ({"head_penalty": 0.1}, {"head_penalty": 1.0}, {}),
        ({}, {"views": 3}),
    ),
    "linear probe": (
        ({"penalty": 0.1}, {}, {"penalty": 10.0}),
        ({}, {"views": 1}),
    ),
}
"""What is tried, one step after another: each goes on from the best of the last. Of every setting
of LQF, all of `SHARES` are tried at the cost of one."""

SHARES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003, 0.00001)
"""Weight decays of LQF, as shares of its largest curvature."""

SEARCH_AT_FULL: Mapping[str, Sequence[Sequence[Changes]]] = {
    **SEARCH,
    "LQF": (({"head_penalty": 0.1}, {}), ({}, {"views": 3, "iterations": 120})),
}
"""The same where all pictures are learnt from: more of them are worth more steps."""

REGIMES = {1: 5, 5: 5, 10: 5, 20: 5, 0: 0}
"""Shots at which the settings for so many shots are searched; 0 is all pictures."""

OURS = "a cloud model of ours"


@dataclass(eq=False)
class Bench:
    """Methods on the pictures of one task, from one start.

    Attributes:
        material: the pictures.
        ours: whether the start is a cloud model of ours instead of ImageNet's weights.
        teaches: what such a cloud model is trained on.
        trains: whether what is not kept is trained.
    """

    material: Material
    ours: bool = False
    teaches: Dataset | None = None
    trains: bool = True

    @property
    def started(self) -> bool:
        """Whether the network's start is there."""
        return not self.ours or (self._cloud / "checkpoint.json").exists()

    @cached_property
    def start(self) -> Checkpoint | None:
        """The cloud model, trained by the quick start's recipe where it is not there yet."""
        if not self.ours:
            return None
        if self.started:
            return Checkpoint.load(self._cloud)
        self._may_train()
        assert self.teaches is not None
        sees = self.material.sees
        model = ModelConfig(sees.backbone, sees.input_size)
        config = replace(demo_recipe(canvas=sees.input_size).cloud, model=model)
        return train_cloud(self.teaches, config, self._cloud)

    @property
    def _cloud(self) -> Path:
        return self.material.out.parent / "cloud"

    def answers(self, method: Method, shots: int, draw: int, seed: int) -> Answers:
        """What a method says, trained where it is not kept yet.

        Raises `NotTrainedError` where it is neither kept nor to be trained.
        """
        file = self._file(f"{type(method).__name__}-{shots}-{draw}-{seed}-{_digest(method)}")
        if not file.exists():
            self._may_train()
            drawn = self.material.drawn(shots, draw)
            _write(file, [(method, method.run(drawn, seed, self.start, file.with_suffix("")))])
        return _read(file)[0][1]

    def search(self, name: str, shots: int) -> Iterator[tuple[Method, Answers]]:
        """All settings that are tried for a method, on draw and seed 0; the best one comes last."""
        tried: dict[Method, Answers] = {}
        best = FIRST[name]
        for step in _steps(name, shots):
            for changes in step:
                found = dict(self._try(_changed(best, changes), shots))
                yield from ((m, a) for m, a in found.items() if m not in tried)
                tried |= found
            best = max(tried, key=lambda m: self.validation(tried[m]))
        yield best, tried[best]

    def first_tries(self, name: str, shots: int) -> Iterator[Method]:
        """What `search` begins with: these do not depend on one another."""
        return (_changed(FIRST[name], changes) for changes in _steps(name, shots)[0])

    def try_one(self, method: Method, shots: int) -> None:
        """Have a setting of `search` tried."""
        self._try(method, shots)

    def chosen(self, name: str, shots: int) -> Method:
        """The settings of a method that validation pictures choose."""
        *_, (method, _) = self.search(name, REGIMES[shots])
        return method

    def validation(self, answers: Answers) -> float:
        """Share of the validation pictures that are answered rightly."""
        truth = self.material.codes(self.material.items("val"))
        return float((answers.validation == truth).mean())

    def _try(self, method: Method, shots: int) -> list[tuple[Method, Answers]]:
        if not isinstance(method, Linear):
            return [(method, self.answers(method, shots, 0, 0))]
        method = _changed(method, {"weight_decay": LINEAR.config.weight_decay})  # none is meant
        file = self._file(f"path-{shots}-{_digest(method)}")
        if not file.exists():
            self._may_train()
            drawn = self.material.drawn(shots, 0)
            _write(file, method.along(drawn, 0, self.start, SHARES))
        return [(_changed(method, {"weight_decay": d}), a) for d, a in _read(file)]

    def _file(self, key: str) -> Path:
        start = "-ours" if self.ours else ""
        return self.material.out / f"{key}{start}.npz"

    def _may_train(self) -> None:
        if not self.trains:
            raise NotTrainedError


def _write(file: Path, found: Sequence[tuple[Method, Answers]]) -> None:
    """Answers with few bytes, and beside them in words what they are of.

    The words come first: where there are answers, there are words.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    first = found[0][1]
    told = {
        "settings": [m.text for m, _ in found],
        "weight_decays": [m.config.weight_decay if isinstance(m, Linear) else 0 for m, _ in found],
        "seconds": first.seconds,
        "device": first.device,
    }
    file.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
    temporary = temporary_for(file)
    with temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            validation=np.array([a.validation for _, a in found], np.int16),
            test=np.array([a.test for _, a in found], np.int16),
        )
    temporary.replace(file)


def _read(file: Path) -> list[tuple[float, Answers]]:
    """By weight decay, where there are several."""
    told = json.loads(file.with_suffix(".json").read_text())
    with np.load(file) as arrays:
        rows = zip(told["weight_decays"], arrays["validation"], arrays["test"], strict=True)
        return [(decay, Answers(v, t, told["seconds"], told["device"])) for decay, v, t in rows]


def _steps(name: str, shots: int) -> Sequence[Sequence[Changes]]:
    return (SEARCH if shots else SEARCH_AT_FULL)[name]


def _changed(method: Method, changes: Changes) -> Method:
    """The method with other settings; those of `LinearConfig` go there."""
    if not isinstance(method, Linear):
        return replace(method, **changes)  # type: ignore[type-var]
    own = {k: v for k, v in changes.items() if k in ("stage", "views", "measured")}
    inner = {k: v for k, v in changes.items() if k not in own}
    return replace(method, config=replace(method.config, **inner), **own)


def _digest(method: Method) -> str:
    return hashlib.sha256(repr(method).encode()).hexdigest()[:12]
