"""Ways to fine-tune, and what each answers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.study._finetuning_data import VIEWS, VIEWS_SEED, Drawn
from benchmarks.study._finetuning_path import PenaltyPath
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.closed_form import fit_ridge
from samespace_cloud.linear import (
    LeastSquares,
    LinearConfig,
    Linearized,
    finetune_linear,
    labelled_problem,
    linear_outputs,
    linear_start,
    recalibrate,
    rescaled_targets,
)
from samespace_cloud.linear._linearized import flatten
from samespace_cloud.pretrained import MEAN, STD
from samespace_cloud.tagging import FromPictures, TaggerConfig, train_tagger
from samespace_cloud.tagging.model import new_tagger

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where everything is tuned."""


CPU = "cpu"


def device_name() -> str:
    """What `DEVICE` is: `CPU`, or a GPU's name."""
    return torch.cuda.get_device_name(DEVICE) if DEVICE.type == "cuda" else CPU


_BATCH = 256
_MEASURED = 2048  # pictures that batch norms are measured on, at most


@dataclass(frozen=True)
class Answers:
    """What a tuned network says.

    Attributes:
        validation, test: places of the classes, int64 (N,); the latter may be left out.
        seconds: of the training; views are not in it.
        device: what trained it: `cpu`, or the name of a GPU.
    """

    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    seconds: float
    device: str


class Method(Protocol):
    """Settings of a way to fine-tune."""

    @property
    def text(self) -> str:
        """What decides over the outcome beside pictures and seed, in a few words."""

    def run(self, drawn: Drawn, seed: int, start: Checkpoint | None, folder: Path) -> Answers:
        """Train and answer.

        Args:
            seed: of all that is drawn at random: head and order.
            start: a cloud model of ours in the place of ImageNet's weights.
            folder: free for what a training writes; it is not kept.
        """


@dataclass(frozen=True)
class FineTuning:
    """All weights, by AdamW and cross-entropy, on another view in every epoch.

    Attributes:
        epochs: on all train pictures; on fewer as many more as keep at least `steps` steps.
        lr: peak learning rate.
        backbone_lr: of all before the head, as a share of it.
        steps: see `epochs`.
    """

    epochs: int = 8
    lr: float = 2e-3
    backbone_lr: float = 1.0
    steps: int = 120

    @property
    def text(self) -> str:
        share = "" if self.backbone_lr == 1 else f", backbone at {self.backbone_lr:g} of it"
        return f"{self.epochs} epochs or {self.steps} steps, lr {self.lr:g}{share}"

    def config(
        self, sees: FromPictures, pictures: int, seed: int, start: Checkpoint | None
    ) -> TaggerConfig:
        """For a network and so many pictures."""
        batch = min(64, max(16, pictures // 4))
        epochs = max(self.epochs, round(self.steps * batch / pictures))
        return TaggerConfig(
            sees,
            init="checkpoint" if start else "imagenet",
            epochs=epochs,
            batch_size=batch,
            lr=self.lr,
            backbone_lr=self.backbone_lr,
            views=VIEWS,
            seed=seed,
            views_seed=VIEWS_SEED,
        )

    def run(self, drawn: Drawn, seed: int, start: Checkpoint | None, folder: Path) -> Answers:
        config = self.config(drawn.material.sees, len(drawn.train), seed, start)
        _in_full_precision(False)
        drawn.views()  # not in the time
        began = time.monotonic()
        tagger = train_tagger(drawn.dataset, config, folder, start=start)
        seconds = time.monotonic() - began
        shutil.rmtree(folder)
        for member in tagger.members:
            member.to(DEVICE)
        said = [tagger.logits(drawn.material.inputs(s)).argmax(1).numpy() for s in ("val", "test")]
        return Answers(*said, seconds, device_name())


@dataclass(frozen=True)
class Linear:
    """Linearised from a stage on and tuned by `finetune_linear`; what comes before is frozen.

    Attributes:
        config: how.
        stage: the first one that has a tangent.
        views: of every picture, each a row of the problem: see `Drawn.views`.
        measured: whether batch norms have the statistics of the train pictures, in the place of
            those that the weights came with.
    """

    config: LinearConfig
    stage: int = 4
    views: int = 1
    measured: bool = False

    @property
    def text(self) -> str:
        told = asdict(self.config)
        plain = asdict(LinearConfig(slope=0.1))  # as published
        changed = [f"{k} {_short(v)}" for k, v in told.items() if v != plain[k] and k != "seed"]
        views = f", {self.views} views" if self.views > 1 else ""
        norms = ", norms measured" if self.measured else ""
        return f"from stage {self.stage}{views}{norms}, {', '.join(changed) or 'as by default'}"

    def run(self, drawn: Drawn, seed: int, start: Checkpoint | None, folder: Path) -> Answers:
        front, tail, features, labels, began = self._rows(drawn, seed, start)
        config = replace(self.config, seed=seed)
        tuned = finetune_linear(tail, features, labels, config, len(drawn.material.classes))
        vector = flatten(tuned.model.tangents()).detach()
        seconds = _since(began)
        said = []
        for split in ("val", "test"):
            seen = _through(front, drawn.material.inputs(split))
            said.append(linear_outputs(tuned.model, seen, vector, _BATCH).argmax(1).cpu().numpy())
        return Answers(*said, seconds, device_name())

    def along(
        self, drawn: Drawn, seed: int, start: Checkpoint | None, shares: Sequence[float]
    ) -> list[tuple[Linear, Answers]]:
        """The same for many weight decays, out of one solution.

        Args:
            shares: weight decays as shares of the problem's largest curvature.

        Returns these settings with each weight decay, to two digits, and what it says of the
        validation pictures; test pictures are not looked at.
        """
        front, tail, features, labels, began = self._rows(drawn, seed, start)
        config, classes = replace(self.config, seed=seed), len(drawn.material.classes)
        model = Linearized(linear_start(tail, features, labels, classes, config))
        problem = _mean(labelled_problem(features, labels, classes, config))
        path = PenaltyPath.of(model, problem, config.iterations, config.batch_size)
        seconds = _since(began)
        validation = _through(front, drawn.material.inputs("val"))
        found = []
        for share in shares:
            decay = float(f"{share * path.largest:.1e}")
            said = linear_outputs(model, validation, path.at(decay), _BATCH).argmax(1)
            own = replace(self, config=replace(self.config, weight_decay=decay))
            answers = Answers(said.cpu().numpy(), np.empty(0, np.int64), seconds, device_name())
            found.append((own, answers))
        return found

    def _rows(
        self, drawn: Drawn, seed: int, start: Checkpoint | None
    ) -> tuple[nn.Module, nn.Module, Tensor, Tensor, float]:
        """The frozen part, the other, what the first makes of all views, their labels, and when
        it began."""
        _in_full_precision()
        views = drawn.views(self.views).flatten(0, 1)
        labels = drawn.labels.repeat(self.views)
        # The seed decides over the order here too; for most solvers nothing else is random.
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        began = time.monotonic()
        front, tail = _split(
            drawn.material.sees, start, self.stage, views if self.measured else None
        )
        features = _through(front, views[order])
        return front, tail, features, labels[order].to(DEVICE), began


@dataclass(frozen=True)
class Probe:
    """Ridge regression of the classes on the pooled features; nothing else is trained.

    Attributes:
        penalty: as a share of the features' mean variance.
        views: of every picture, see `Drawn.views`.
        measured: see `Linear`.
    """

    penalty: float = 1.0
    views: int = VIEWS
    measured: bool = False

    @property
    def text(self) -> str:
        norms = ", norms measured" if self.measured else ""
        return f"penalty {self.penalty:g}, {self.views} views{norms}"

    def run(self, drawn: Drawn, seed: int, start: Checkpoint | None, folder: Path) -> Answers:
        _in_full_precision()
        views = drawn.views(self.views).flatten(0, 1)
        began = time.monotonic()
        network, _ = _split(drawn.material.sees, start, None, views if self.measured else None)
        features = _through(network, views)
        labels = drawn.labels.repeat(self.views).to(DEVICE)
        targets, _ = rescaled_targets(labels, len(drawn.material.classes))
        weight, bias = fit_ridge(features, targets, self.penalty)
        seconds = _since(began)
        said = []
        for split in ("val", "test"):
            seen = _through(network, drawn.material.inputs(split))
            said.append((seen @ weight.T + bias).argmax(1).cpu().numpy())
        return Answers(*said, seconds, device_name())


class _Front(nn.Module):
    """What is frozen: uint8 pictures to what the rest of the network takes."""

    def __init__(self, parts: nn.Module) -> None:
        super().__init__()
        self.parts = parts
        self.mean = torch.tensor(MEAN, device=DEVICE).view(1, 3, 1, 1)
        self.std = torch.tensor(STD, device=DEVICE).view(1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        pictures = (x.to(DEVICE).to(torch.float32) / 255 - self.mean) / self.std
        y: Tensor = self.parts(pictures.contiguous(memory_format=torch.channels_last))
        return y


class _Pooled(nn.Module):
    """What comes after it."""

    def __init__(self, stages: nn.Module) -> None:
        super().__init__()
        self.stages = stages

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(self.stages(x), dim=(2, 3))


def _split(
    sees: FromPictures, start: Checkpoint | None, stage: int | None, seen: Tensor | None
) -> tuple[nn.Module, nn.Module]:
    """The network before a stage, and from there on.

    Args:
        stage: None leaves all in the first part.
        seen: pictures that batch norms get the statistics of, uint8 (N, 3, S, S).
    """
    init = "checkpoint" if start else "imagenet"
    body = new_tagger(TaggerConfig(sees, init=init), ("a", "b"), start).eval().backbone  # type: ignore[arg-type]
    body = body.to(DEVICE)
    if seen is not None:
        few = seen[torch.linspace(0, len(seen) - 1, min(_MEASURED, len(seen))).round().long()]
        given = _Front(nn.Identity())
        body = recalibrate(body, (given(part) for part in few.split(_BATCH)))
    if stage is None:
        return _Front(body).eval(), nn.Identity()
    before = nn.Sequential(body.stem, *body.stages[:stage])
    return _Front(before).eval(), _Pooled(body.stages[stage:]).eval()


@torch.no_grad()
def _through(network: nn.Module, pictures: Tensor) -> Tensor:
    parts = [network(pictures[i : i + _BATCH]) for i in range(0, len(pictures), _BATCH)]
    made = torch.cat(parts)
    return made.contiguous(memory_format=torch.channels_last) if made.ndim == 4 else made


def _since(began: float) -> float:
    """Seconds, with all that was started done."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - began


def _in_full_precision(full: bool = True) -> None:
    """Convolutions of 10 bits (TF32) would leave more of an optimum to chance than seeds do."""
    torch.backends.cudnn.allow_tf32 = not full


def _mean(problem: LeastSquares) -> LeastSquares:
    """With a mean over pictures, for which weight decays are meant."""
    return replace(problem, weights=problem.weights / len(problem))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
