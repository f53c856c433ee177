"""An adapter: a map from one model's vectors to another's (format in edge_runtime/README.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge._bundle import output_json
from samespace_edge._errors import (
    BundleFormatError,
    BundleTamperedError,
    ConfigError,
    DimensionError,
    InvalidVectorError,
    SamespaceError,
)
from samespace_edge._identity import Fingerprint, ModelIdentity, canonical_json
from samespace_edge._layers import AdapterLayers, Array
from samespace_edge._temporary import temporary_for
from samespace_edge._tensors import pack, unpack

SCHEMA = 1

_METADATA = "samespace.adapter"
_ROWS_AT_ONCE = 16_384
# As in a graph: what is shorter than this is not made longer, so it would be no unit vector.
_SHORTEST = 1e-4
_NO_LENGTH = 1e-6
_KEYS = {
    "schema",
    "kind",
    "source",
    "source_dim",
    "side_dim",
    "target",
    "space",
    "dim",
    "preprocessing",
    "architecture",
    "weights_sha256",
    "fitted",
    "sha256",
}


@dataclass(frozen=True, eq=False)
class Adapter:
    """Turns vectors of one model into what another model would have made of the same pictures.

    Attributes:
        kind: how it was fitted, such as `affine`; a label.
        layers: what it computes, before vectors are made unit again.
        source: the model whose vectors it takes.
        target: the model whose vectors it imitates.
        space: the embedding space of that model.
        side_dim: width of the side information that it takes beside every vector; mostly 0.
        preprocessing, architecture: the source model's, as they go into a fingerprint; empty
            where only its fingerprint is known.
        fitted: from how many pairs and what data, and how well: free values by key, as JSON.
        side: the model that makes the side information; None where there is none, or where it is
            not known.

    Raises `ConfigError` where these do not go together.
    """

    kind: str
    layers: AdapterLayers
    source: Fingerprint
    target: Fingerprint
    space: Fingerprint
    side_dim: int = 0
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = ""
    fitted: Mapping[str, Any] = field(default_factory=dict)
    side: Fingerprint | None = None

    def __post_init__(self) -> None:
        if not self.kind:
            raise ConfigError("an adapter says of what kind it is")
        if not 0 <= self.side_dim < self.layers.centre.size:
            raise ConfigError(
                f"{self.side_dim} numbers of side information leave nothing of an input of "
                f"{self.layers.centre.size}"
            )
        if self.side is not None and not self.side_dim:
            raise ConfigError("an adapter that takes no side information names no model of it")

    def __repr__(self) -> str:
        side = f" + {self.side_dim}" if self.side_dim else ""
        return (
            f"Adapter({self.kind!r}, {self.source.short}… ({self.source_dim}{side}) -> "
            f"{self.target.short}… ({self.dim}))"
        )

    @property
    def source_dim(self) -> int:
        """Width of the vectors that it takes, without side information."""
        return self.layers.centre.size - self.side_dim

    @property
    def dim(self) -> int:
        """Width of the vectors that it makes."""
        return self.layers.bias.size

    def apply(self, vectors: Any, side: Any = None) -> NDArray[np.float32]:
        """Vectors of the source model to vectors that lie in the target's space.

        Args:
            vectors: floats (N, source_dim); only their direction counts.
            side: floats (N, side_dim), as they are; needed where `side_dim` is not 0.

        Returns float32 unit vectors (N, dim). Raises `DimensionError` for another width,
        `InvalidVectorError` for NaN, infinity and vectors without a direction.
        """
        x = adapter_input(vectors, side)
        beside = 0 if side is None else int(np.shape(side)[1])
        if (x.shape[1] - beside, beside) != (self.source_dim, self.side_dim):
            raise DimensionError(
                f"the adapter takes {_widths(self.source_dim, self.side_dim)} of model "
                f"{self.source.short}…, not {_widths(x.shape[1] - beside, beside)}. Give it "
                "vectors of that model, or fit an adapter for the one that made these."
            )
        out = np.empty((len(x), self.dim), np.float32)
        for start in range(0, len(x), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            out[rows] = self.layers(x[rows])
        norms = _norms(out)
        _refuse(~(norms > _SHORTEST), "the adapter's results", "NaN, or no direction is left")
        out /= norms[:, None]
        return out

    # which model its vectors are of

    @property
    def weights_sha256(self) -> str:
        """Of the source model followed by this adapter."""
        beside = {} if self.side is None else {"side": self.side.hex}
        return _digest({"model": self.source.hex, "adapter": self.layers.sha256, **beside})

    @property
    def model_architecture(self) -> str:
        """Of the source model followed by this adapter."""
        return f"{self.architecture or 'unknown'} + {self.kind} adapter"

    @property
    def fingerprint(self) -> Fingerprint:
        """The model that makes lifted vectors: the source model followed by this adapter.

        The bundle that `samespace_export.adapt_bundle` makes of the two has the same.
        """
        output = output_json(self.dim, self.model_architecture)
        return Fingerprint.of(self.weights_sha256, self.preprocessing, output)

    def identity(self, source: ModelIdentity) -> ModelIdentity:
        """Who made the vectors that `apply` makes of vectors of `source`.

        Its variant is no file: it stands for that file's vectors, adapted afterwards. Raises
        `ConfigError` for a model other than the one the adapter was fitted for.
        """
        self.check_source(str(source), source.fingerprint)
        return ModelIdentity(
            name=f"{source.name}+{self.kind}",
            fingerprint=self.fingerprint,
            variant=f"{source.variant}+{self.kind}",
            variant_sha256=_digest({"file": source.variant_sha256, "adapter": self.layers.sha256}),
            space=self.space,
            dim=self.dim,
        )

    def check_source(self, name: str, fingerprint: Fingerprint) -> None:
        """Raise `ConfigError` unless this is the model that the adapter takes vectors of."""
        if fingerprint != self.source:
            raise ConfigError(
                f"the adapter was fitted for vectors of model {self.source.short}…; {name} is "
                f"model {fingerprint.short}…. Fit an adapter for that one."
            )

    # the file

    def header(self) -> dict[str, Any]:
        """Everything but the arrays, as it stands in the file."""
        content = {
            "schema": SCHEMA,
            "kind": self.kind,
            "source": self.source.hex,
            "source_dim": self.source_dim,
            "side_dim": self.side_dim,
            "target": self.target.hex,
            "space": self.space.hex,
            "dim": self.dim,
            "preprocessing": dict(self.preprocessing),
            "architecture": self.architecture,
            "weights_sha256": self.layers.sha256,
            "fitted": dict(self.fitted),
        }
        if self.side is not None:
            content["side"] = self.side.hex
        return {**content, "sha256": _digest(content)}

    def to_bytes(self) -> bytes:
        """The file's content: the same for the same adapter."""
        return pack(self.layers.tensors(), {_METADATA: canonical_json(self.header())})

    def write(self, path: str | Path) -> None:
        """Write the adapter to a file, in one step; raises `ConfigError` where that fails."""
        path = Path(path)
        temporary = temporary_for(path)
        try:
            temporary.write_bytes(self.to_bytes())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from None

    @classmethod
    def read(cls, path: str | Path) -> Adapter:
        """Read the adapter in a file.

        Raises `BundleFormatError` for what is no adapter or one of another version,
        `BundleTamperedError` for one that is not as it was written.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise BundleFormatError(f"{path} cannot be read: {error.strerror}") from None
        return cls.from_bytes(content, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "this") -> Adapter:
        """The opposite of `to_bytes`; raises as `read` does, calling the file `name`."""
        try:
            tensors, metadata = unpack(content)
            header = json.loads(metadata[_METADATA])
        except (KeyError, ValueError, RecursionError) as error:
            why = "it says nothing of an adapter" if isinstance(error, KeyError) else str(error)
            raise BundleFormatError(
                f"{name} is not an adapter, or a damaged one: {why}. An adapter is the file that "
                "'samespace adapter fit' writes."
            ) from None
        if not isinstance(header, dict) or header.get("schema") != SCHEMA:
            version = header.get("schema") if isinstance(header, dict) else None
            raise BundleFormatError(
                f"{name} is an adapter of schema {version!r}; this version reads schema {SCHEMA}. "
                "Upgrade samespace or fit the adapter again."
            )
        if odd := sorted(set(header) - {"side"} ^ _KEYS):
            keys = ", ".join(odd)
            raise BundleFormatError(f"{name}: keys missing from its header or unknown: {keys}")
        try:
            layers = AdapterLayers.from_tensors(tensors)
            adapter = cls(
                kind=str(header["kind"]),
                layers=layers,
                source=Fingerprint(header["source"]),
                target=Fingerprint(header["target"]),
                space=Fingerprint(header["space"]),
                side_dim=int(header["side_dim"]),
                preprocessing=dict(header["preprocessing"]),
                architecture=str(header["architecture"]),
                side=Fingerprint(header["side"]) if "side" in header else None,
                fitted=dict(header["fitted"]),
            )
            # Hashes, widths and spelling at once: there is one file for every adapter.
            same = adapter.to_bytes() == content
        except (SamespaceError, TypeError, ValueError, ArithmeticError) as error:
            raise BundleTamperedError(
                f"{name} is not the adapter that was fitted: {error}. Copy it again from where it "
                "was made."
            ) from None
        if not same:
            raise BundleTamperedError(
                f"{name} is not the adapter that was fitted: its content does not have the sha256 "
                "that it names. Copy it again from where it was made."
            )
        return adapter


def adapter_input(vectors: Any, side: Any = None, what: str = "vectors") -> Array:
    """What an adapter's layers take: vectors made unit, and side information beside them.

    Args:
        vectors: floats (N, D).
        side: floats (N, S), or None.
        what: the vectors, for errors.

    Returns float32 (N, D + S). Raises `DimensionError` and `InvalidVectorError`.
    """
    unit = _floats(vectors, what)
    norms = _norms(unit)
    bad = ~(np.isfinite(norms) & (norms > _NO_LENGTH))
    _refuse(bad, what, "NaN or infinity, or is zero and so has no direction")
    unit = unit / norms[:, None]
    if side is None:
        return unit
    beside = _floats(side, "side information")
    if len(beside) != len(unit):
        raise DimensionError(
            f"{len(unit)} {what} and {len(beside)} rows of side information: row i of both has to "
            "be of the same picture"
        )
    _refuse(~np.isfinite(_norms(beside)), "side information", "NaN or infinity")
    return np.concatenate([unit, beside], 1)


def _floats(value: Any, what: str) -> Array:
    array = np.asarray(value)
    if array.ndim != 2 or not array.shape[1]:
        raise DimensionError(f"{what} have to be (N, D), not {array.shape}")
    if array.dtype.kind != "f":
        raise InvalidVectorError(f"{what} have to be floats, not {array.dtype}")
    with np.errstate(over="ignore"):  # what is too large for float32 is refused as infinite
        return np.ascontiguousarray(array, np.float32)


def _norms(array: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        norms: Array = np.sqrt(np.einsum("nd,nd->n", array, array))
    return norms


def _refuse(bad: NDArray[np.bool_], what: str, why: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise InvalidVectorError(f"{what}: row {rows[0]}{more} holds {why}; leave it out")


def _widths(source: int, side: int) -> str:
    beside = f"with side information (N, {side})" if side else "without side information"
    return f"vectors (N, {source}) {beside}"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
