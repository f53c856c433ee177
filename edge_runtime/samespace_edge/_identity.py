"""Who made a vector: fingerprints of models, and of the files they are shipped in."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samespace_edge._errors import BundleFormatError

_HEX = re.compile(r"[0-9a-f]{64}")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, which can be hashed."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


@dataclass(frozen=True)
class Fingerprint:
    """A model's identity: sha256 over its weights, its preprocessing and its output.

    Attributes:
        hex: 64 lower-case hexadecimal digits.
    """

    hex: str

    def __post_init__(self) -> None:
        if not isinstance(self.hex, str) or not _HEX.fullmatch(self.hex):
            raise BundleFormatError(
                f"a fingerprint is 64 lower-case hexadecimal digits, not {self.hex!r}"
            )

    @classmethod
    def of(
        cls, weights_sha256: str, preprocessing: Mapping[str, Any], output: Mapping[str, Any]
    ) -> Fingerprint:
        """The fingerprint of a model with these weights, this preprocessing and this output."""
        parts = {
            "weights": weights_sha256,
            "preprocessing": dict(preprocessing),
            "output": dict(output),
        }
        return cls(hashlib.sha256(canonical_json(parts).encode()).hexdigest())

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return self.hex

    def __repr__(self) -> str:
        return f"Fingerprint({self.short}…)"


@dataclass(frozen=True)
class ModelIdentity:
    """Which file of which model made a vector, and in which space the vector claims to lie.

    Attributes:
        name: a label for people; it identifies nothing.
        fingerprint: the model.
        variant: the graph file within the bundle, such as `onnx-fp32`.
        variant_sha256: the hash of that file: an int8 file is not the float model.
        space: the fingerprint of the cloud model that anchors the embedding space.
        dim: width of the vectors.
    """

    name: str
    fingerprint: Fingerprint
    variant: str
    variant_sha256: str
    space: Fingerprint
    dim: int

    @property
    def is_anchor(self) -> bool:
        """Whether this model is the one that defines its space."""
        return self.fingerprint == self.space

    def __str__(self) -> str:
        return f"{self.name} {self.fingerprint.short} ({self.variant})"

    def to_json(self) -> dict[str, Any]:
        """As it stands in certificates, reports and galleries."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint.hex,
            "variant": self.variant,
            "variant_sha256": self.variant_sha256,
            "space": self.space.hex,
            "dim": self.dim,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelIdentity:
        """The opposite of `to_json`."""
        return cls(
            name=value["name"],
            fingerprint=Fingerprint(value["fingerprint"]),
            variant=value["variant"],
            variant_sha256=value["variant_sha256"],
            space=Fingerprint(value["space"]),
            dim=int(value["dim"]),
        )
