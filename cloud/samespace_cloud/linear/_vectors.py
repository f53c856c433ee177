"""Tangents as values: what one customer's pictures taught, to save, to add and to take away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from samespace_cloud.checkpoint import read_tensors, write_tensors
from samespace_cloud.linear._linearized import Linearized
from samespace_edge import CheckpointError, ConfigError, Fingerprint

SCHEMA = 1
_METADATA = "tangent"


@dataclass(frozen=True)
class TangentVector:
    """w - w0 of a linearised network. Two of one w0 can be added: so do their outputs' changes.

    Attributes:
        tensors: float32, by the name of the parameter.
        start: the fingerprint of w0.
    """

    tensors: Mapping[str, Tensor]
    start: Fingerprint

    @classmethod
    def of(cls, model: Linearized) -> TangentVector:
        """A copy of what `model` has learnt."""
        tensors = {name: t.detach().clone() for name, t in model.tangents().items()}
        return cls(tensors, model.fingerprint)

    @torch.no_grad()
    def apply(self, model: Linearized) -> None:
        """Let `model` be what this says; raises `ConfigError` where its w0 is another."""
        if model.fingerprint != self.start:
            raise ConfigError(
                f"the tangent belongs to the weights {self.start.short}…; the network has "
                f"{model.fingerprint.short}…. Linearise the network that it was trained from"
            )
        own = model.tangents()
        _same_names(own, self.tensors)
        for name, tensor in own.items():
            tensor.copy_(self.tensors[name])

    def __add__(self, other: TangentVector) -> TangentVector:
        """Raises `ConfigError` for a tangent of another w0."""
        if other.start != self.start:
            raise ConfigError(
                f"a tangent of the weights {self.start.short}… and one of {other.start.short}… "
                "cannot be added: tangents of one pretrained network can"
            )
        _same_names(self.tensors, other.tensors)
        added = {name: tensor + other.tensors[name] for name, tensor in self.tensors.items()}
        return TangentVector(added, self.start)

    def __sub__(self, other: TangentVector) -> TangentVector:
        """Raises `ConfigError` for a tangent of another w0."""
        return self + other.scaled(-1.0)

    def scaled(self, factor: float) -> TangentVector:
        """This times `factor`; 0 is the pretrained network."""
        return TangentVector({n: factor * t for n, t in self.tensors.items()}, self.start)

    @property
    def norm(self) -> float:
        """|w - w0|."""
        return float(sum(t.double().square().sum() for t in self.tensors.values()) ** 0.5)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, in one step."""
        value = {"schema": SCHEMA, "start": self.start.hex}
        write_tensors(Path(path), self.tensors, {_METADATA: json.dumps(value)})

    @classmethod
    def load(cls, path: str | Path) -> TangentVector:
        """Read what `save` wrote; raises `CheckpointError`."""
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path} is not there; a tangent is one .safetensors file")
        tensors, metadata = read_tensors(path)
        try:
            value = json.loads(metadata[_METADATA])
            if value["schema"] != SCHEMA:
                raise CheckpointError(
                    f"{path} has schema {value['schema']}; this version reads {SCHEMA}"
                )
            return cls(tensors, Fingerprint(value["start"]))
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} holds no tangent: {error!r}") from None

    def __repr__(self) -> str:
        count = sum(t.numel() for t in self.tensors.values())
        return f"TangentVector({count} numbers, norm={self.norm:.3g}, start={self.start.short}…)"


@dataclass(frozen=True)
class MergedTangents:
    """Several customers' tangents in one model (Tangent Model Composition, Liu, Soatto 2023).

    The members are kept, so that taking one away leaves exactly what merging the others gives.

    Attributes:
        members: by name, all of one w0.
        how: `average` or `sum`.

    Raises `ConfigError` where there is no member, or they differ in w0.
    """

    members: Mapping[str, TangentVector]
    how: Literal["average", "sum"] = "average"

    def __post_init__(self) -> None:
        if self.how not in ("average", "sum"):
            raise ConfigError(f"tangents are merged by 'average' or 'sum', not {self.how!r}")
        if not self.members:
            raise ConfigError("there is no tangent to merge; without any, use the network itself")
        (first, one), *others = self.members.items()
        for name, other in others:
            if other.start != one.start:
                raise ConfigError(
                    f"the tangent of {first!r} belongs to the weights {one.start.short}…, that of "
                    f"{name!r} to {other.start.short}…; merge tangents of one pretrained network"
                )

    @property
    def vector(self) -> TangentVector:
        """The tangent of the merged model; the order of the members' names decides the rounding."""
        first, *others = (self.members[name] for name in sorted(self.members))
        total = first
        for other in others:
            total = total + other
        return total.scaled(1 / len(self.members)) if self.how == "average" else total

    def without(self, name: str) -> MergedTangents:
        """The same without one customer; raises `ConfigError` where there is none of that name."""
        if name not in self.members:
            known = ", ".join(sorted(self.members))
            raise ConfigError(f"there is no tangent {name!r} to remove; there are {known}")
        return MergedTangents({n: v for n, v in self.members.items() if n != name}, self.how)


def _same_names(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    if own.keys() != other.keys() or any(own[n].shape != other[n].shape for n in own):
        differing = sorted(own.keys() ^ other.keys())
        raise ConfigError(
            "the tangents are not of the same parameters"
            + (f": {', '.join(differing[:3])}" if differing else "")
            + "; linearise with the same 'only'"
        )
