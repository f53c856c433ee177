"""A bundle: the folder that ships one model (format in edge_runtime/README.md)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from samespace_edge._errors import BundleFormatError, BundleTamperedError, UnsafePathError
from samespace_edge._identity import Fingerprint, ModelIdentity, canonical_json
from samespace_edge._resize import Resize
from samespace_edge._runtimes import Graph

SCHEMA = 2
MANIFEST = "manifest.json"
GOLDEN = "golden/golden.json"

Role = Literal["cloud", "edge"]

_PICKLE_SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"}
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Variant:
    """One graph file of a bundle.

    Attributes:
        name: format and precision, such as `onnx-fp32`.
        format: `onnx`, `tflite` or `coreml`; any runtime for that format runs it.
        precision: `fp32`, `fp16`, `int8` or `dynamic` (edge_runtime/README.md says what each is).
        file: path inside the bundle, with `/`; a Core ML package is a folder.
        sha256: hash of the file; of a folder, see `folder_sha256`.
        bytes: size of the file, or of all the files in the folder.
    """

    name: str
    format: str
    precision: str
    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself; see schemas/bundle.schema.json for every field.

    Attributes:
        macs: multiply-accumulate operations for one picture.
        parameters: number of weights.
        files: sha256 of every file in the bundle but the manifest, by path.
        card: how the model was made, for people and reports: free text by key.
    """

    name: str
    fingerprint: Fingerprint
    space: Fingerprint
    role: Role
    dim: int
    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    architecture: str
    weights_sha256: str
    variants: tuple[Variant, ...]
    files: Mapping[str, str]
    macs: int
    parameters: int
    created: str
    producer: str
    card: Mapping[str, Any]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is hashed into the fingerprint beside the weights."""
        return preprocessing_json(self.resize, self.mean, self.std)

    def computed_fingerprint(self) -> Fingerprint:
        """The fingerprint that these weights, preprocessing and output have."""
        return Fingerprint.of(
            self.weights_sha256, self.preprocessing, output_json(self.dim, self.architecture)
        )

    def to_json(self) -> dict[str, Any]:
        """As it is written to `manifest.json`."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "fingerprint": self.fingerprint.hex,
            "space": self.space.hex,
            "role": self.role,
            "dim": self.dim,
            "resize": self.resize.to_json(),
            "mean": list(self.mean),
            "std": list(self.std),
            "architecture": self.architecture,
            "weights_sha256": self.weights_sha256,
            "variants": [vars(v) for v in self.variants],
            "files": dict(self.files),
            "macs": self.macs,
            "parameters": self.parameters,
            "created": self.created,
            "producer": self.producer,
            "card": dict(self.card),
        }

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Read a manifest; raises `BundleFormatError` or `UnsafePathError` with the culprit."""
        if not isinstance(value, dict):
            raise BundleFormatError("a manifest is a JSON object")
        if value.get("schema") == 1:
            value = _from_schema_1(value)
        if value.get("schema") != SCHEMA:
            raise BundleFormatError(
                f"manifest schema {value.get('schema')!r} is not known to this version, which "
                f"reads schemas 1 and {SCHEMA}; upgrade samespace or export the bundle again"
            )
        expected = set(cls.__dataclass_fields__) | {"schema"}
        if unknown := sorted(set(value) - expected):
            raise BundleFormatError(f"unknown keys in the manifest: {', '.join(unknown)}")
        if missing := sorted(expected - set(value)):
            raise BundleFormatError(f"keys missing from the manifest: {', '.join(missing)}")
        try:
            manifest = cls._read(value)
            manifest._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleFormatError(f"malformed manifest: {error!r}") from None
        return manifest

    @classmethod
    def _read(cls, value: dict[str, Any]) -> Manifest:
        return cls(
            name=_text(value, "name"),
            fingerprint=Fingerprint(value["fingerprint"]),
            space=Fingerprint(value["space"]),
            role=value["role"],
            dim=int(value["dim"]),
            resize=Resize(**value["resize"]),
            mean=_triple(value, "mean"),
            std=_triple(value, "std"),
            architecture=_text(value, "architecture"),
            weights_sha256=_text(value, "weights_sha256"),
            variants=tuple(Variant(**v) for v in value["variants"]),
            files={str(k): str(v) for k, v in dict(value["files"]).items()},
            macs=int(value["macs"]),
            parameters=int(value["parameters"]),
            created=_text(value, "created"),
            producer=_text(value, "producer"),
            card=dict(value["card"]),
        )

    def _check(self) -> None:
        if self.role not in ("cloud", "edge"):
            raise BundleFormatError(f"role {self.role!r} is neither 'cloud' nor 'edge'")
        if self.dim < 1:
            raise BundleFormatError(f"dim {self.dim} is not a width")
        if not self.variants:
            raise BundleFormatError("the manifest lists no variant, so nothing can run")
        for path, sha256 in self.files.items():
            safe_member(path)
            if not _SHA.fullmatch(sha256):
                raise BundleFormatError(f"{path}: {sha256!r} is not a sha256")
        for variant in self.variants:
            safe_member(variant.file)
            members = _below(self.files, variant.file)
            expected = folder_sha256(members) if members else self.files.get(variant.file)
            if expected != variant.sha256:
                raise BundleFormatError(
                    f"variant {variant.name}: its sha256 is not the one under files"
                )
        if self.fingerprint != self.computed_fingerprint():
            raise BundleTamperedError(
                f"the manifest says fingerprint {self.fingerprint.short}…, but its weights, "
                f"preprocessing and output make {self.computed_fingerprint().short}…: "
                "it was edited after export. Export the bundle again."
            )


def folder_sha256(files: Mapping[str, str]) -> str:
    """The hash of a folder from its files' hashes, by their paths inside it."""
    return hashlib.sha256(canonical_json(dict(files)).encode()).hexdigest()


def _below(files: Mapping[str, str], folder: str) -> dict[str, str]:
    prefix = f"{folder}/"
    return {path[len(prefix) :]: sha for path, sha in files.items() if path.startswith(prefix)}


def _from_schema_1(value: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 1 had ONNX files only and named their runtime where the format stands now."""
    variants = [
        {**{k: v for k, v in variant.items() if k != "runtime"}, "format": "onnx"}
        for variant in value.get("variants", [])
    ]
    return {**value, "schema": 2, "variants": variants}


def preprocessing_json(
    resize: Resize, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, Any]:
    """The preprocessing as it is hashed into a fingerprint."""
    return {"resize": resize.to_json(), "mean": list(mean), "std": list(std)}


def output_json(dim: int, architecture: str) -> dict[str, Any]:
    """The output as it is hashed into a fingerprint."""
    return {"dim": dim, "norm": "l2", "dtype": "float32", "architecture": architecture}


def _text(value: Mapping[str, Any], key: str) -> str:
    if not isinstance(value[key], str):
        raise TypeError(f"{key} has to be a string")
    return str(value[key])


def _triple(value: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    a, b, c = (float(x) for x in value[key])
    return (a, b, c)


def safe_member(path: str) -> PurePosixPath:
    """`path` as a relative path that stays in its folder; raises `UnsafePathError`."""
    pure = PurePosixPath(path)
    unsafe = pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path
    if unsafe or not pure.parts:
        raise UnsafePathError(f"{path!r} does not stay inside its folder")
    if pure.suffix.lower() in _PICKLE_SUFFIXES:
        raise UnsafePathError(
            f"{path!r} is a pickle, which can run code when it is read; "
            "weights belong in safetensors or inside the graph"
        )
    return pure


class Bundle:
    """A bundle on disk, opened and checked as far as the manifest goes.

    Graph files are hashed when they are read, so what runs is what the manifest names.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open the bundle in the folder `path`.

        Raises `BundleFormatError`, `BundleTamperedError` or `UnsafePathError`.
        """
        folder = Path(path)
        file = folder / MANIFEST
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleFormatError(
                f"{folder} is not a bundle: it has no {MANIFEST}. "
                "A bundle is the folder that 'samespace export' writes."
            ) from None
        except (NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BundleFormatError(f"{file} cannot be read: {error}") from None
        return cls(folder, Manifest.from_json(value))

    def __repr__(self) -> str:
        m = self.manifest
        variants = ", ".join(v.name for v in m.variants)
        return f"Bundle({m.name!r}, {m.role}, {m.fingerprint.short}…, dim={m.dim}, {variants})"

    def variant(self, name: str | None = None) -> Variant:
        """The variant called `name`, or the first one; raises `BundleFormatError`."""
        if name is None:
            return self.manifest.variants[0]
        for variant in self.manifest.variants:
            if variant.name == name:
                return variant
        known = ", ".join(v.name for v in self.manifest.variants)
        raise BundleFormatError(
            f"bundle {self.manifest.name!r} has no variant {name!r}; it has: {known}"
        )

    def identity(self, variant: Variant) -> ModelIdentity:
        """The identity that vectors made by `variant` carry."""
        m = self.manifest
        return ModelIdentity(m.name, m.fingerprint, variant.name, variant.sha256, m.space, m.dim)

    def graph(self, variant: Variant) -> Graph:
        """A variant's graph, if it is what the manifest says: the bytes of a file, or the path of
        a folder whose every file was checked.

        Raises `BundleTamperedError` or `UnsafePathError`.
        """
        members = _below(self.manifest.files, variant.file)
        if not members:
            return self.read(variant.file)
        for member in members:
            self.read(f"{variant.file}/{member}")
        return self.path / safe_member(variant.file)

    def read(self, member: str) -> bytes:
        """The content of a file of the bundle, if it is what the manifest says."""
        if member not in self.manifest.files:
            raise BundleFormatError(f"bundle {self.manifest.name!r} lists no file {member!r}")
        file = self.path / safe_member(member)
        if file.resolve() != (self.path.resolve() / member):
            raise UnsafePathError(f"{file} is a link out of the bundle")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BundleTamperedError(f"{file} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != self.manifest.files[member]:
            raise BundleTamperedError(
                f"{file} is not the file that was exported: its sha256 differs from the "
                "manifest's. Copy the bundle again from where it was made."
            )
        return content
