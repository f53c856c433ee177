"""What an adapter has to know of the models on its two ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samespace_edge import Bundle, DimensionError, Embedder, Fingerprint, ModelIdentity

ModelLike = Embedder | Bundle | ModelIdentity | Fingerprint | str | Path
"""A model: itself, its bundle, the path of that, or its identity or fingerprint, which may also be
written as 64 hexadecimal digits. Only a bundle says everything that an adapted bundle needs."""

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model.

    Attributes:
        name: for errors.
        space: its embedding space; of a bare fingerprint, that model's own.
        dim: width of its vectors; None where it is not known.
        preprocessing, architecture: as they go into its fingerprint; empty where not known.
    """

    name: str
    fingerprint: Fingerprint
    space: Fingerprint
    dim: int | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = ""

    def check(self, width: int, what: str) -> None:
        """Raise `DimensionError` where vectors of this width cannot be its own."""
        if self.dim is not None and width != self.dim:
            raise DimensionError(
                f"the {what} vectors are {width} wide; {self.name} makes vectors of {self.dim}, "
                "so they are not its own"
            )


def model_of(model: ModelLike) -> KnownModel:
    """What is known of a model; raises the errors of `Bundle.open`."""
    if isinstance(model, str) and _HEX.fullmatch(model):
        model = Fingerprint(model)
    if isinstance(model, Fingerprint):
        return KnownModel(f"model {model.short}…", model, model)
    if isinstance(model, ModelIdentity):
        return KnownModel(str(model), model.fingerprint, model.space, model.dim)
    if isinstance(model, Embedder):
        model = model.bundle
    manifest = (model if isinstance(model, Bundle) else Bundle.open(model)).manifest
    return KnownModel(
        f"{manifest.name} {manifest.fingerprint.short}…",
        manifest.fingerprint,
        manifest.space,
        manifest.dim,
        manifest.preprocessing,
        manifest.architecture,
    )
