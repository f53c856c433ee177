"""A linearly tuned network as a folder of safetensors and JSON: w0, tangent, and of whom it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from samespace import Dataset, Item
from samespace_cloud.checkpoint import _replace_text, read_tensors, write_tensors
from samespace_cloud.linear import (
    Classifier,
    Linearized,
    MergedTangents,
    TangentVector,
    leaky,
    linear_outputs,
)
from samespace_cloud.linear._linearized import flatten
from samespace_cloud.tagging.sees import FromPictures, Report
from samespace_cloud.tuning.pictures import Picture, normalised, select
from samespace_edge import CheckpointError, ConfigError, Fingerprint
from samespace_edge._temporary import temporary_for
from samespace_export._export import _move_into_place

SCHEMA = 1
_CONFIG, _START, _TANGENT = "tuned.json", "start.safetensors", "tangent.safetensors"
_LOG = "log.jsonl"
_TARGETS = "targets"
_BATCH = 64


@dataclass(repr=False, eq=False)
class TunedCheckpoint:
    """A network that was tuned linearly, or the base that others are tuned from (tangent 0).

    Attributes:
        model: linearised at w0, with its tangent; normalised pictures to outputs (N, K).
        sees: the network, and how pictures become its input.
        classes: what the outputs stand for; empty for an embedding.
        pictures: what the tangent was fitted to, whose they are among it.
        start_pictures: sha256 of the pictures that w0 was made of: its head and its statistics.
        settings: how it was tuned: `tune` (`TuneConfig.to_json`), `penalty`, `slope`.
        members: of a merged one: the tangents that were merged, by name.
        how: of a merged one: `average` or `sum`.
        targets: of an embedding, float32 (N, K): where its pictures were to lie.
        space: of an embedding: the fingerprint of the model whose space that is.
        metrics: what the tuning measured.
        log: an entry for every iteration or epoch.
        card: how it was made, for people.
    """

    model: Linearized
    sees: FromPictures
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()
    start_pictures: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)
    members: Mapping[str, TangentVector] = field(default_factory=dict)
    how: Literal["average", "sum"] = "average"
    targets: Tensor | None = None
    space: Fingerprint | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    card: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        what = (
            f"merged from {len(self.members)}" if self.members else f"{len(self.pictures)} pictures"
        )
        made = f"{len(self.classes)} classes" if self.classes else "an embedding"
        return f"TunedCheckpoint({self.architecture}, {made}, {what}, {self.fingerprint.short}…)"

    @property
    def vector(self) -> TangentVector:
        """A copy of its tangent."""
        return TangentVector.of(self.model)

    @property
    def penalty(self) -> float:
        """Of |w - w0|^2; raises `ConfigError` as `need_pictures` does."""
        self.need_pictures()
        return float(self.settings["penalty"])

    def need_pictures(self) -> None:
        """Raises `ConfigError` for a base and for what was merged."""
        if not self.pictures:
            what = "merged from others" if self.members else "a base"
            raise ConfigError(
                f"{self.fingerprint.short}… is {what}: it was fitted to no pictures itself. Name a "
                "tuning that was"
            )

    @property
    def fingerprint(self) -> Fingerprint:
        """Its identity: w0, tangent, preprocessing, architecture and classes."""
        digest = hashlib.sha256(self.model.fingerprint.hex.encode())
        for name, tensor in self.model.tangents().items():
            digest.update(f"{name} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
        output = {"architecture": self.architecture, "classes": list(self.classes)}
        return Fingerprint.of(digest.hexdigest(), self.sees.preprocessing, output)

    @property
    def slope(self) -> float:
        """Of its leaky activations."""
        return float(self.settings["slope"])

    @property
    def architecture(self) -> str:
        """The network as text."""
        return f"linear-{self.sees.architecture}{f'-{self.slope:g}leaky' if self.slope else ''}"

    def start(self) -> nn.Module:
        """w0 as a network of its own, whose weights require a gradient."""
        return network(
            self.sees, _outputs(self.model.base), self.slope, self.model.base.state_dict()
        )

    def chosen(
        self, where: Mapping[str, str] | None = None, ids: Collection[str] = ()
    ) -> tuple[Picture, ...]:
        """The pictures it was tuned on that have these ids, or whose columns have these values;
        raises `ConfigError` for a column, value or id that none of them has."""
        self.need_pictures()
        return select(self.pictures, where or {}, ids, f"{self.fingerprint.short}…")

    def logits(self, inputs: Tensor) -> Tensor:
        """Outputs float32 (N, K) of normalised pictures; raises `ConfigError` where one is not
        finite."""
        tangent = flatten(self.model.tangents()).detach()
        made: Tensor = linear_outputs(self.model, inputs, tangent, _BATCH)
        return made

    def predict(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        cache: Path | None = None,
        report: Report = lambda done, total: None,
    ) -> Tensor:
        """Outputs float32 (N, K) of unchanged pictures.

        Args:
            cache: a folder where decoded pictures are kept and found again.
            report: is told how many of how many are read.
        """
        return self.logits(normalised(self.sees.read(dataset, items, cache, report)))

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint; a reader sees the old folder or the new one.

        Raises `ConfigError` rather than replace what is no tuning.
        """
        folder = Path(folder)
        need_free(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_for(folder)
        temporary.mkdir()
        try:
            start = self.model.base.state_dict()
            if self.targets is not None:
                write_tensors(temporary / f"{_TARGETS}.safetensors", {_TARGETS: self.targets}, {})
            write_tensors(temporary / _START, start, {})
            self.vector.save(temporary / _TANGENT)
            for i, name in enumerate(sorted(self.members)):
                self.members[name].save(temporary / f"member-{i}.safetensors")
            lines = "".join(json.dumps(dict(entry)) + "\n" for entry in self.log)
            _replace_text(temporary / _LOG, lines)
            _replace_text(temporary / _CONFIG, json.dumps(self._to_json(), indent=1))
            _move_into_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "sees": asdict(self.sees),
            "outputs": _outputs(self.model.base),
            "classes": list(self.classes),
            "start": self.model.fingerprint.hex,
            "fingerprint": self.fingerprint.hex,
            "space": self.space and self.space.hex,
            "settings": dict(self.settings),
            "members": sorted(self.members),
            "how": self.how,
            "metrics": dict(self.metrics),
            "card": dict(self.card),
            "pictures": [p.to_json() for p in self.pictures],
            "start_pictures": sorted(self.start_pictures),
        }

    @classmethod
    def load(cls, folder: str | Path) -> TunedCheckpoint:
        """Read a checkpoint; raises `CheckpointError`."""
        folder = Path(folder)
        if not is_tuned(folder):
            raise CheckpointError(
                f"{folder} is not a tuning: it has no {_CONFIG} and {_START}. A tuning is the "
                "folder that 'samespace tune' writes."
            )
        try:
            value = json.loads((folder / _CONFIG).read_text())
            if value["schema"] != SCHEMA:
                raise CheckpointError(
                    f"{folder} has schema {value['schema']}; this version reads {SCHEMA}"
                )
            found = cls._read(folder, value)
            if found.fingerprint.hex != value["fingerprint"]:
                raise CheckpointError(f"{folder}: its weights are not those of its fingerprint")
            return found
        except (KeyError, ValueError, TypeError, RuntimeError, OSError, ConfigError) as error:
            raise CheckpointError(f"{folder} cannot be read: {error}") from None

    @classmethod
    def _read(cls, folder: Path, value: Mapping[str, Any]) -> TunedCheckpoint:
        sees = FromPictures(**value["sees"])
        slope = float(value["settings"]["slope"])
        start = network(sees, value["outputs"], slope, read_tensors(folder / _START)[0])
        vector = TangentVector.load(folder / _TANGENT)
        model = Linearized(start, lambda name: name in vector.tensors)
        vector.apply(model)
        targets = folder / f"{_TARGETS}.safetensors"
        return cls(
            model,
            sees,
            tuple(str(c) for c in value["classes"]),
            tuple(Picture(*row) for row in value["pictures"]),
            frozenset(value["start_pictures"]),
            value["settings"],
            {
                name: TangentVector.load(folder / f"member-{i}.safetensors")
                for i, name in enumerate(value["members"])
            },
            value["how"],
            read_tensors(targets)[0][_TARGETS] if targets.exists() else None,
            Fingerprint(value["space"]) if value["space"] else None,
            value["metrics"],
            [json.loads(line) for line in (folder / _LOG).read_text().splitlines()],
            value["card"],
        )


def is_tuned(folder: Path) -> bool:
    """Whether the folder holds a tuning."""
    return (folder / _CONFIG).exists() and (folder / _START).exists()


def need_free(folder: Path) -> None:
    """Raises `ConfigError` where something else than a tuning is at `folder`."""
    if folder.exists() and not is_tuned(folder) and (folder.is_file() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is there and is no tuning, so it is not replaced; name another folder"
        )


def network(
    sees: FromPictures, outputs: int, slope: float, state: Mapping[str, Tensor]
) -> nn.Module:
    """The network of a w0, with the weights and statistics `state`."""
    with torch.random.fork_rng(devices=[]):  # random weights are overwritten
        backbone, width = sees.build()
        body = leaky(backbone.eval(), slope) if slope else backbone
        start: nn.Module = Classifier(body, nn.Linear(width, outputs)).eval()
    start.load_state_dict(state)
    return start


def need_labels(checkpoint: TunedCheckpoint) -> None:
    """Raises `ConfigError` for a tuned embedding."""
    if not checkpoint.classes:
        raise ConfigError(
            f"{checkpoint.fingerprint.short}… is a tuned embedding, and this is for classifiers"
        )


def merged(checkpoint: TunedCheckpoint) -> MergedTangents:
    """What a merged tuning was merged from; raises `ConfigError` for another."""
    if not checkpoint.members:
        raise ConfigError(
            f"{checkpoint.fingerprint.short}… was not merged from others, so there is nothing to "
            "remove; pictures are forgotten by 'samespace tune forget'"
        )
    return MergedTangents(checkpoint.members, checkpoint.how)


def _outputs(base: nn.Module) -> int:
    head = base.get_submodule("head")
    return len(head.get_buffer("weight"))
