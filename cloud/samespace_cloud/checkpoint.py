"""Checkpoints: a folder of safetensors and JSON. No pickle is written, none is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samespace_cloud._distributed import leads
from samespace_cloud.frozen_network import FrozenNetwork
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_edge import Bundle, CheckpointError, ConfigError, Fingerprint
from samespace_edge._temporary import temporary_for
from samespace_export import ExportSpec, model_fingerprint, torch_embedder

SCHEMA = 1
_CONFIG, _WEIGHTS = "checkpoint.json", "weights.safetensors"
_CLASSIFIER = "classifier"


@dataclass
class Checkpoint:
    """A trained model.

    Attributes:
        model: in eval mode, on the CPU.
        role: `cloud` or `edge`.
        space: fingerprint of the cloud model whose space it was trained into; None for a model
            that anchors its own.
        labels: what the rows of `classifier` stand for.
        classifier: float32 (C, D): the training classifier's directions, which an edge model may
            be trained against; None where there was none.
        metrics: what the training measured on its validation labels.
        card: how it was made, for people.
        shorter: spaces that its first so many coordinates live in, by their number; see `prefix`.
        frozen: its backbone as it just ran, for a teacher; never stored.
    """

    model: EmbeddingModel
    role: str
    space: Fingerprint | None = None
    labels: Sequence[str] = ()
    classifier: Tensor | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    shorter: Mapping[int, Fingerprint] = field(default_factory=dict)
    frozen: FrozenNetwork | None = field(default=None, init=False, repr=False, compare=False)

    def export_spec(self, name: str) -> ExportSpec:
        """What the exporter has to know beside the module."""
        config = self.model.config
        return ExportSpec(
            name=name,
            role="cloud" if self.role == "cloud" else "edge",
            resize=config.resize,
            mean=config.mean,
            std=config.std,
            architecture=config.architecture,
            space=self.space,
            card=self.card,
        )

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint that the exported bundle will have."""
        return model_fingerprint(self.model, self.export_spec(""), self.model.config.dim)

    def prefix(self, dim: int) -> Checkpoint:
        """The model of the first `dim` coordinates alone, in the space that they live in.

        It is a model of its own: its head has `dim` rows, and its fingerprint is another. Its
        classifier is not known, since this model's is one of whole vectors. Raises `ConfigError`
        where `shorter` does not have `dim`.
        """
        if dim not in self.shorter:
            known = ", ".join(map(str, sorted(self.shorter))) or "none"
            raise ConfigError(
                f"the first {dim} of {self.model.config.dim} numbers of {self.fingerprint.short}… "
                f"were not trained into another model's space; widths that were: {known}"
            )
        model = EmbeddingModel(replace(self.model.config, dim=dim))
        tensors = self.model.state_dict()
        head = {k: v[:dim] for k, v in tensors.items() if k.startswith("embed.")}
        model.load_state_dict({**tensors, **head})
        cut = f"the first {dim} of {self.model.config.dim} numbers of {self.fingerprint.short}…"
        return Checkpoint(
            model=model.eval(),
            role=self.role,
            space=self.shorter[dim],
            labels=self.labels,
            card={**self.card, "cut": cut},
        )

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint; a reader sees the old one or the new one, never a mixture.

        Of several processes that train together, the first one does.
        """
        if not leads():
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if self.classifier is not None:
            tensors[_CLASSIFIER] = self.classifier
        value = {
            "schema": SCHEMA,
            "model": self.model.config.to_json(),
            "role": self.role,
            "space": self.space.hex if self.space else None,
            "labels": list(self.labels),
            "metrics": dict(self.metrics),
            "card": dict(self.card),
            "shorter": {str(dim): space.hex for dim, space in self.shorter.items()},
        }
        write_tensors(folder / _WEIGHTS, tensors, {"checkpoint": json.dumps(value)})
        _replace_text(folder / _CONFIG, json.dumps(value, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> Checkpoint:
        """Read a checkpoint; raises `CheckpointError`."""
        folder = Path(folder)
        if not (folder / _WEIGHTS).exists():
            raise CheckpointError(
                f"{folder} is not a checkpoint: it has no {_WEIGHTS}. "
                "A checkpoint is the folder that 'samespace train' writes."
            )
        tensors, metadata = read_tensors(folder / _WEIGHTS)
        try:
            value = json.loads(metadata["checkpoint"])
            if value["schema"] != SCHEMA:
                raise CheckpointError(
                    f"{folder} has schema {value['schema']}; this version reads {SCHEMA}"
                )
            model = EmbeddingModel(ModelConfig.from_json(value["model"]))
            classifier = tensors.pop(_CLASSIFIER, None)
            model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items()})
            return cls(
                model=model.eval(),
                role=value["role"],
                space=Fingerprint(value["space"]) if value["space"] else None,
                labels=tuple(value["labels"]),
                classifier=classifier,
                metrics=value["metrics"],
                card=value["card"],
                shorter={int(k): Fingerprint(v) for k, v in value.get("shorter", {}).items()},
            )
        except (KeyError, ValueError, TypeError, RuntimeError, ConfigError) as error:
            raise CheckpointError(f"{folder} cannot be read: {error}") from None


def reference(folder: str | Path, bundle: Bundle) -> Callable[[Any], Any]:
    """What the torch model of a checkpoint makes of preprocessed pixels: uint8 RGB (N, H, W, 3)
    to float32 unit vectors (N, D).

    Raises `CheckpointError` where `bundle` was not exported from it.
    """
    checkpoint = Checkpoint.load(folder)
    if bundle.manifest.dim in checkpoint.shorter:
        checkpoint = checkpoint.prefix(bundle.manifest.dim)
    if checkpoint.fingerprint != bundle.manifest.fingerprint:
        raise CheckpointError(
            f"the checkpoint {folder} is {checkpoint.fingerprint.short}…; the bundle "
            f"{bundle.manifest.name!r} was exported from {bundle.manifest.fingerprint.short}…"
        )
    return torch_embedder(checkpoint.model, checkpoint.export_spec(""))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step."""
    from safetensors.torch import save_file

    temporary = temporary_for(path)
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(plain, temporary, metadata)
    temporary.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; raises `CheckpointError`."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of its header, eight bytes, and the header's "{".
    pickled = start[:1] == b"\x80" and start[8:] != b"{"
    if pickled or start[:4] == b"PK\x03\x04":
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is read; it belongs in safetensors. "
            "Convert it where it was made: safetensors.torch.save_file(model.state_dict(), ...)"
        )
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return tensors, dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None


def _replace_text(path: Path, text: str) -> None:
    temporary = temporary_for(path)
    temporary.write_text(text)
    temporary.replace(path)


def clone(model: EmbeddingModel) -> EmbeddingModel:
    """A copy of a model that shares nothing with it."""
    copy = EmbeddingModel(model.config)
    with torch.no_grad():
        copy.load_state_dict(model.state_dict())
    return copy
