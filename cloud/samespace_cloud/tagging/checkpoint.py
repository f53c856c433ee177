"""Trained taggers as a folder of safetensors and JSON, and what they say of pictures."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from samespace import Dataset, Item
from samespace_cloud.backbones import Backbone
from samespace_cloud.checkpoint import _replace_text, read_tensors, write_tensors
from samespace_cloud.frozen_network import FrozenNetwork
from samespace_cloud.tagging.classes import need_same_classes
from samespace_cloud.tagging.model import Tagger
from samespace_cloud.tagging.sees import FromPictures, Report, Sees, sees_from
from samespace_cloud.trainer import best_device
from samespace_edge import CheckpointError, ConfigError, Fingerprint

SCHEMA = 1
_CONFIG, _WEIGHTS = "tagger.json", "weights.safetensors"
_BATCH = 128


@dataclass
class TaggerCheckpoint:
    """A trained tagger, or an ensemble of some that see the same and have the same classes.

    Attributes:
        members: in eval mode, on the CPU; their logits are averaged.
        classes: what the logits stand for.
        settings: how it was trained: `tagger` (`TaggerConfig.to_json`) and, of an update, `update`.
        metrics: what the training measured on its validation pictures.
        card: how it was made, for people.
    """

    members: tuple[Tagger, ...]
    classes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sees(self) -> Sees:
        """What it sees."""
        return self.members[0].sees

    @property
    def tagger(self) -> Tagger:
        """The only member; raises `ConfigError` for an ensemble."""
        if len(self.members) > 1:
            raise ConfigError(
                f"{self.fingerprint.short}… is an ensemble of {len(self.members)} taggers; this "
                "needs a single one"
            )
        return self.members[0]

    @property
    def fingerprint(self) -> Fingerprint:
        """Its identity: weights, preprocessing, architecture and classes. Names, settings and
        metrics change nothing."""
        digest = hashlib.sha256()
        for name, tensor in sorted(_tensors(self.members).items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        output = {"architecture": self.sees.architecture, "classes": list(self.classes)}
        return Fingerprint.of(digest.hexdigest(), self.sees.preprocessing, output)

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits float32 (N, C), on the CPU, of what `sees` gives."""
        return FrozenTaggers(self.members).logits(inputs)

    def predict(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        cache: Path | None = None,
        report: Report = lambda done, total: None,
    ) -> Tensor:
        """Logits float32 (N, C), on the CPU, of unchanged pictures.

        Args:
            cache: a folder where decoded pictures, or vectors, are kept and found again.
            report: is told how many of how many are read.
        """
        return self.logits(self.sees.read(dataset, items, cache, report))

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint; a reader sees the old one or the new one, never a mixture."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        value = {
            "schema": SCHEMA,
            "sees": asdict(self.sees),
            "members": len(self.members),
            "classes": list(self.classes),
            "preprocessing": self.sees.preprocessing,
            "fingerprint": self.fingerprint.hex,
            "settings": dict(self.settings),
            "metrics": dict(self.metrics),
            "card": dict(self.card),
        }
        write_tensors(folder / _WEIGHTS, _tensors(self.members), {"tagger": json.dumps(value)})
        _replace_text(folder / _CONFIG, json.dumps(value, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> TaggerCheckpoint:
        """Read a checkpoint; raises `CheckpointError`."""
        folder = Path(folder)
        if not is_tagger(folder):
            raise CheckpointError(
                f"{folder} is not a tagger: it has no {_CONFIG} and {_WEIGHTS}. A tagger is the "
                "folder that 'samespace train tagger' writes."
            )
        tensors, metadata = read_tensors(folder / _WEIGHTS)
        try:
            value = json.loads(metadata["tagger"])
            if value["schema"] != SCHEMA:
                raise CheckpointError(
                    f"{folder} has schema {value['schema']}; this version reads {SCHEMA}"
                )
            sees = sees_from(value["sees"])
            classes = tuple(str(c) for c in value["classes"])
            with torch.random.fork_rng(devices=[]):  # random weights are overwritten
                members = nn.ModuleList(Tagger(sees, len(classes)) for _ in range(value["members"]))
            members.load_state_dict(tensors)
            found = cls(
                tuple(m for m in members.eval() if isinstance(m, Tagger)),
                classes,
                value["settings"],
                value["metrics"],
                value["card"],
            )
            if found.fingerprint.hex != value["fingerprint"]:
                raise CheckpointError(f"{folder}: its weights are not those of its fingerprint")
            return found
        except (KeyError, ValueError, TypeError, RuntimeError, ConfigError) as error:
            raise CheckpointError(f"{folder} cannot be read: {error}") from None


class FrozenTaggers:
    """Members of a checkpoint, copied, run without gradients; their logits are averaged.

    All that a tagger says after its training comes from here, so that a saved answer and a new one
    are equal.
    """

    def __init__(self, members: Sequence[Tagger]) -> None:
        self._members = [copy.deepcopy(m).cpu().eval() for m in members]
        self._networks = [
            FrozenNetwork(
                cast(Backbone, m.backbone), m.sees.input_size, best_device(), is_exact=True
            )
            for m in self._members
            if isinstance(m.sees, FromPictures)
        ]

    def keep_in(self, cache: Path) -> None:
        """Keep exported networks in this folder."""
        for network in self._networks:
            network.cache = cache

    @torch.no_grad()
    def logits(self, inputs: Tensor, of: int | None = None) -> Tensor:
        """Logits float32 (N, C), on the CPU.

        Args:
            inputs: pictures, uint8 (N, 3, S, S), or vectors, float32 (N, D).
            of: see `FrozenNetwork.features`.
        """
        of = len(inputs) if of is None else of
        parts = [torch.empty(0, self._members[0].head.out_features)]
        for start in range(0, len(inputs), _BATCH):
            batch = inputs[start : start + _BATCH]
            seen = [network.features(batch, of) for network in self._networks]
            seen = seen or [member.embed(batch) for member in self._members]
            pairs = zip(self._members, seen, strict=True)
            parts.append(torch.stack([member.head(x) for member, x in pairs]).mean(0))
        return torch.cat(parts)


def is_tagger(folder: Path) -> bool:
    """Whether the folder holds a tagger."""
    return (folder / _CONFIG).exists() and (folder / _WEIGHTS).exists()


def ensemble_of(checkpoints: Sequence[TaggerCheckpoint]) -> TaggerCheckpoint:
    """Taggers as one, by the mean of their logits (PCT, Yan et al. 2021, section 3.3).

    Raises `ConfigError` unless they see the same and have the same classes, in the same order.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        rule = "taggers whose logits are averaged need the same classes"
        need_same_classes(first.classes, other.classes, rule)
        if (other.sees, other.classes) != (first.sees, first.classes):
            raise ConfigError(
                f"cannot average the logits of {first.sees.architecture} and "
                f"{other.sees.architecture}: members of an ensemble see the same and have their "
                "classes in one order"
            )
    members = tuple(copy.deepcopy(m) for c in checkpoints for m in c.members)
    return TaggerCheckpoint(members, first.classes, first.settings, card=first.card)


def _tensors(members: Sequence[Tagger]) -> dict[str, Tensor]:
    return {f"{i}.{k}": v for i, m in enumerate(members) for k, v in m.state_dict().items()}
