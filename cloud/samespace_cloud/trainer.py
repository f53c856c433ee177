"""One training loop for everything: cosine schedule, moving average, early stop, clean resume."""

from __future__ import annotations

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samespace_cloud._depthwise import quicken
from samespace_cloud._distributed import (
    any_of,
    average_gradients,
    from_first,
    join,
    leads,
    share,
    synchronise,
    world,
)
from samespace_cloud.checkpoint import read_tensors, write_tensors
from samespace_cloud.config import TrainConfig
from samespace_cloud.optimizers import CLIP, Optimizer, new_optimizer
from samespace_cloud.processor import LOG, is_bf16_fast, kept_memory, processor_class
from samespace_cloud.students import Students
from samespace_cloud.views import JoinedViews, Views
from samespace_edge import CheckpointError, ConfigError, canonical_json

Progress = Callable[[str, int, int], None]
Validate = Callable[[Students], Mapping[str, float]]

_STATE = "state.safetensors"
_BEST = "best.safetensors"
_SAVE_SECONDS = 60.0


def best_device() -> torch.device:
    """A GPU where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Trainer:
    """Trains students on views; started by `torchrun`, in several processes together.

    Args:
        students: what is moved.
        views: what they see.
        labels: int64 (N,), -1 for pictures without a label.
        config: everything else.
        folder: for the log `log.jsonl` and the state from which a training resumes.
        validate: measures the averaged students; its `score` decides which weights are kept.
        title: what is shown as progress.
        about: what else decides over the result, such as the data's hash and the teacher's
            fingerprint; a stopped training only goes on where it is the same.
        optimizer: what makes steps of gradients.
        clip: the norm that a gradient has at most; 0 for any.
    """

    def __init__(
        self,
        students: Students,
        views: Views | JoinedViews,
        labels: Tensor,
        config: TrainConfig,
        folder: Path,
        validate: Validate | None = None,
        title: str = "train",
        device: torch.device | None = None,
        about: Sequence[str] = (),
        optimizer: Optimizer = "adamw",
        clip: float = CLIP,
    ) -> None:
        _check_processes(config.batch_size, students)
        join()
        self._device = device or best_device()
        self.students = students.to(self._device)
        students.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share(self.students)
        self.average = copy.deepcopy(self.students).eval().requires_grad_(False)
        synchronise(self.students)
        quicken(self.students)
        self._views = views
        self._labels = labels
        self._config = config
        self._folder = folder
        self._validate = validate
        self._title = title
        self._optimizer = new_optimizer(optimizer, self._groups(), config.lr)
        self._clip = clip
        self._steps_per_epoch = max(1, len(labels) // config.batch_size)
        self._total = self._steps_per_epoch * config.epochs
        self._step = 0
        self._waited = 0
        self._in_network = 0.0
        self._stopped = False
        self._best: float | None = None
        self.metrics: dict[str, float] = {}
        self._settings = canonical_json([config.to_json(), views.describe(), *about])

    def run(self, progress: Progress = lambda stage, done, total: None) -> Students:
        """Train, or go on with a training that was stopped; returns the kept weights, on the CPU.

        On Ctrl-C the state is written before `KeyboardInterrupt` goes on its way; the next run
        with the same settings and folder goes on from there, to the same result. Call `finish`
        when what was made of the weights is stored.
        """
        if leads():
            self._folder.mkdir(parents=True, exist_ok=True)
        else:
            progress = _silent
        self._resume()
        self._say_precision()
        with kept_memory(), _interruptible() as interrupted:
            last_save = time.monotonic()
            while self._step < self._total and not self._exhausted():
                epoch = self._step // self._steps_per_epoch
                self._epoch(epoch, progress, interrupted)
                if self._stopped:
                    self._save()
                    raise KeyboardInterrupt
                if time.monotonic() - last_save > _SAVE_SECONDS:
                    self._save()
                    last_save = time.monotonic()
        progress(self._title, self._total, self._total)
        if self._best is not None:
            best = from_first(lambda: read_tensors(self._folder / _BEST)[0])
            self.average.load_state_dict(best)
        self._save()
        return self.average.cpu()

    def finish(self) -> None:
        """Remove what only a stopped training needs, once the result is safe."""
        if not leads():
            return
        (self._folder / _STATE).unlink(missing_ok=True)
        (self._folder / _BEST).unlink(missing_ok=True)

    def _say_precision(self) -> None:
        precision, kind = self._config.precision, processor_class(self._device)
        LOG.info("%s: %s on %s", self._title, precision, kind)
        if precision == "bf16" and self._device.type == "cpu" and not is_bf16_fast(self._device):
            LOG.warning(
                "%s runs in bf16, as its settings say, on a processor without instructions for "
                "it (%s): expect it to take about ten times as long as in fp32",
                self._title,
                kind,
            )

    def _exhausted(self) -> bool:
        return 0 < self._config.patience <= self._waited

    def _groups(self) -> list[dict[str, Any]]:
        config = self._config
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.students.named_parameters():
            if not parameter.requires_grad:
                continue
            rate = config.backbone_lr if ".backbone." in name else 1.0
            decay = config.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        return [
            {"params": params, "rate": rate, "weight_decay": decay}
            for (rate, decay), params in groups.items()
        ]

    def _rate(self, step: int) -> float:
        warm = self._config.warmup * self._total
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, self._total - warm)))

    def _epoch(self, epoch: int, progress: Progress, interrupted: threading.Event) -> None:
        started, self._in_network = time.monotonic(), 0.0
        shown = self._views.assign(epoch)
        labels = self._labels.where(~self._views.blended(shown), torch.tensor(-1))
        generator = torch.Generator().manual_seed(self._config.seed * 100_003 + epoch)
        order = torch.randperm(len(self._labels), generator=generator)
        self.students.train()
        total_loss, steps = 0.0, 0
        first = self._step - epoch * self._steps_per_epoch
        for i in range(first, self._steps_per_epoch):
            self._stopped = any_of(interrupted.is_set())
            if self._stopped:
                return
            index = order[i * self._config.batch_size : (i + 1) * self._config.batch_size]
            inputs, taught = self._views.take(shown, index)
            if taught is not None:
                taught = taught.to(self._device)
            total_loss += self._learn(inputs, labels[index].to(self._device), taught)
            steps += 1
            self._step += 1
            progress(self._title, self._step, self._total)
        entry = {
            "epoch": epoch,
            "step": self._step,
            "loss": round(total_loss / max(1, steps), 5),
            "rate": round(self._rate(self._step - 1), 5),
            "seconds": round(time.monotonic() - started, 2),
            "network_seconds": round(self._in_network, 2),
        }
        if self._validate and (epoch + 1) % self._config.val_every == 0:
            entry |= self._judge(self._validate)
        if leads():
            with (self._folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")

    def _learn(self, inputs: Mapping[int, Tensor], label: Tensor, taught: Tensor | None) -> float:
        rate = self._rate(self._step)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.lr * group["rate"] * rate
        bf16 = self._config.precision == "bf16"
        self._optimizer.zero_grad(set_to_none=True)
        started = time.monotonic()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            loss = self.students.loss(inputs, label, taught, self._step / self._total)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.students.parameters())
        self._in_network += time.monotonic() - started
        if self._clip:
            nn.utils.clip_grad_norm_(self.students.parameters(), self._clip)
        self._optimizer.step()
        self._follow()
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self) -> None:
        # Early on the average follows quickly: it would remember the start for too long.
        decay = min(self._config.ema, (1 + self._step) / (10 + self._step))
        if self._config.ema == 0:
            decay = 0.0
        current = self.students.state_dict()
        for name, own in self.average.state_dict().items():
            new = current[name]
            if own.dtype.is_floating_point:
                own.lerp_(new, 1 - decay)
            else:
                own.copy_(new)

    def _judge(self, validate: Validate) -> dict[str, float]:
        measured = from_first(lambda: dict(validate(self.average)))
        if self._best is None or measured["score"] > self._best:
            self._best, self._waited, self.metrics = measured["score"], 0, measured
            if leads():
                write_tensors(self._folder / _BEST, self.average.state_dict(), {})
        else:
            self._waited += 1
        return {k: round(v, 5) for k, v in measured.items()}

    def _save(self) -> None:
        if not leads():
            return
        tensors = {f"students.{k}": v for k, v in self.students.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for number, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in state.items()}
        notes = {
            "settings": self._settings,
            "step": self._step,
            "waited": self._waited,
            "best": self._best,
            "metrics": self.metrics,
        }
        write_tensors(self._folder / _STATE, tensors, {"training": json.dumps(notes)})

    def _resume(self) -> None:
        file = self._folder / _STATE
        found = from_first(lambda: read_tensors(file) if file.exists() else None)
        if found is None:
            if leads():
                (self._folder / "log.jsonl").unlink(missing_ok=True)
            return
        tensors, metadata = found
        notes = json.loads(metadata["training"])
        if notes["settings"] != self._settings:
            raise CheckpointError(
                f"{self._folder} holds a stopped training with other settings or data; "
                "repeat those, or remove the folder to start over"
            )
        self.students.load_state_dict(_part(tensors, "students."))
        self.average.load_state_dict(_part(tensors, "average."))
        state = self._optimizer.state_dict()
        for key, value in _part(tensors, "optimizer.").items():
            number, name = key.split(".", 1)
            state["state"].setdefault(int(number), {})[name] = value
        self._optimizer.load_state_dict(state)
        self._step, self._waited = notes["step"], notes["waited"]
        self._best, self.metrics = notes["best"], notes["metrics"]


def _silent(stage: str, done: int, total: int) -> None:
    return None


def _check_processes(batch_size: int, students: Students) -> None:
    if world() == 1:
        return
    if not students.in_parts:
        raise ConfigError(f"{students.about_processes}: start it without torchrun")
    if batch_size < world():
        raise ConfigError(
            f"a batch of {batch_size} has nothing for each of {world()} processes; raise "
            "batch_size, or start fewer"
        )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turns Ctrl-C into a flag that is read between two steps; a second Ctrl-C stops at once.

    `torchrun` ends its processes by SIGTERM, whatever ended it, so that counts with them.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    numbers = [signal.SIGINT] if world() == 1 else [signal.SIGINT, signal.SIGTERM]
    previous = {number: signal.getsignal(number) for number in numbers}

    def on_interrupt(number: int, frame: Any) -> None:
        flag.set()
        if world() == 1:  # of several, each may be told twice of the same Ctrl-C
            signal.signal(number, previous[signal.Signals(number)])

    for number in numbers:
        signal.signal(number, on_interrupt)
    try:
        yield flag
    finally:
        for number in numbers:
            signal.signal(number, previous[number])
