"""torch module -> bundle."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from samespace_edge import (
    Bundle,
    ConfigError,
    Embedder,
    Fingerprint,
    Manifest,
    Resize,
    Variant,
    decode,
)
from samespace_edge._bundle import (
    GOLDEN,
    MANIFEST,
    Role,
    folder_sha256,
    output_json,
    preprocessing_json,
)
from samespace_edge._temporary import temporary_for
from samespace_export._calibration import Calibration
from samespace_export._convert import Converter
from samespace_export._cost import count_cost
from samespace_export._deployed import Deployed
from samespace_export._exact import exact
from samespace_export._golden import (
    embed_tolerance,
    fill_embeddings,
    golden_json,
    stage_files,
    synthetic_pictures,
)
from samespace_export._module import embedding_width, ready
from samespace_export._sensitivity import Quantization
from samespace_export._targets import TARGETS, Target

# Calibration pictures on which the tolerance of a golden vector is measured too.
_JUDGED = 16
# How far from 1 the length of an exported vector may be.
_UNIT = 1e-2
# Largest 1 - cosine of an fp16 file: a hundred times what rounding to fp16 does.
_FARTHEST_HALF = 1e-2


@dataclass(frozen=True)
class ExportSpec:
    """What a bundle says of a model beside its weights.

    Attributes:
        name: a label for people.
        role: `cloud` (embeds the gallery) or `edge` (embeds queries).
        resize: how a decoded picture becomes the graph's input.
        mean, std: normalisation of the pixels as fractions, R, G, B; it goes into the graph.
        architecture: what the network is, as text; part of the fingerprint.
        space: fingerprint of the cloud model into whose space this one was trained; None for a
            model that anchors a space of its own.
        card: how the model was made, for people and reports.
    """

    name: str
    role: Role
    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    architecture: str
    space: Fingerprint | None = None
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportParity:
    """How far an exported file's vectors are from the torch model's on the golden pictures.

    Attributes:
        variant: which file.
        runtime: what ran it.
        max_abs: largest difference of a coordinate.
        min_cosine: smallest cosine between the two vectors of a picture.
        pictures: how many were compared.
    """

    variant: str
    runtime: str
    max_abs: float
    min_cosine: float
    pictures: int


@dataclass(frozen=True)
class Exported:
    """A bundle that was just written, the parity of its files, and how int8 came about."""

    bundle: Bundle
    parity: tuple[ExportParity, ...]
    quantizations: tuple[Quantization, ...] = ()


def model_fingerprint(module: nn.Module, spec: ExportSpec, dim: int) -> Fingerprint:
    """The fingerprint that `module` has when it is exported with `spec`.

    Args:
        dim: width of its embeddings.
    """
    preprocessing = preprocessing_json(spec.resize, spec.mean, spec.std)
    return Fingerprint.of(
        _weights_sha256(module), preprocessing, output_json(dim, spec.architecture)
    )


def torch_embedder(
    module: nn.Module, spec: ExportSpec
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """The model as `export_bundle` would ship it, in torch: preprocessed pixels, uint8 RGB
    (N, H, W, 3), to float32 unit vectors (N, D). What every file is compared with.

    The model is copied: it may go on training.
    """
    deployed = Deployed(copy.deepcopy(module).cpu(), spec.mean, spec.std)

    def embed(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        given = torch.from_numpy(pixels)
        vectors: NDArray[np.float32] = deployed.embed(given, deployed.find_gain(given)).numpy()
        return vectors

    return embed


def export_bundle(
    module: nn.Module,
    spec: ExportSpec,
    out: str | Path,
    *,
    targets: Sequence[str] = ("onnx-fp32",),
    calibration: Calibration | None = None,
    golden: Sequence[bytes] = (),
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda target: None,
) -> Exported:
    """Export a model to the bundle folder `out`, and run every file that was written at once.

    Args:
        module: normalised float32 pictures (N, 3, H, W) to embeddings (N, D), of any length. Its
            mode and its device stay as they are.
        spec: everything else.
        targets: which files, by name (see `TARGETS`); the first is what a runtime that could run
            several takes.
        calibration: pictures that int8 takes its ranges from.
        golden: a few encoded pictures (JPEG, PNG, WebP) that travel with the bundle so that any
            device can check itself; synthetic ones if none are given.
        overwrite: replace the bundle that is there.
        progress: called with the name of each target before it is made.

    Raises `ConfigError` where `out` exists, a target is unknown, its converter is not installed or
    has no counterpart of an operation, where `module` makes no embeddings in float32, or where a
    file departs from it; `BundleFormatError` rather than overwrite what is no bundle.
    """
    out = Path(out)
    if out.exists():
        if not overwrite:
            raise ConfigError(f"{out} is already there; remove it or ask to overwrite it")
        Bundle.open(out)  # nothing but a bundle is ever replaced
    if unknown := [name for name in targets if name not in TARGETS]:
        raise ConfigError(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if not targets:
        raise ConfigError(f"no target was asked for; there are {', '.join(TARGETS)}")
    if calibration is not None:
        calibration.fits(spec.resize)
    elif ranged := [name for name in targets if TARGETS[name].calibrated]:
        raise ConfigError(
            f"{', '.join(ranged)}: ranges are taken from real pictures; give a Calibration "
            "(--calibrate DATASET)"
        )
    with ready(module) as module:
        return _export(module, spec, out, targets, calibration, golden, progress)


def _export(
    module: nn.Module,
    spec: ExportSpec,
    out: Path,
    targets: Sequence[str],
    calibration: Calibration | None,
    golden: Sequence[bytes],
    progress: Callable[[str], None],
) -> Exported:
    height, width = spec.resize.height, spec.resize.width
    dim = embedding_width(module, height, width)
    converter = Converter(module, spec.mean, spec.std, height, width, calibration)
    cost = count_cost(module, height, width)

    files, entries = stage_files(list(golden) or synthetic_pictures(), spec.resize)
    deployed = converter.deployed
    deployed.gain = deployed.find_gain(torch.from_numpy(_golden_pixels(files, entries)))
    variants = []
    for name in dict.fromkeys(targets):
        progress(name)
        made = converter.convert(TARGETS[name])
        files |= made
        variants.append(_variant(TARGETS[name], made))
    if converter.quantizations:
        value = {q.variant: q.to_json() for q in converter.quantizations}
        files["quantization.json"] = json.dumps(value, indent=1).encode()
    fingerprint = model_fingerprint(module, spec, dim)
    manifest = Manifest(
        name=spec.name,
        fingerprint=fingerprint,
        space=spec.space or fingerprint,
        role=spec.role,
        dim=dim,
        resize=spec.resize,
        mean=spec.mean,
        std=spec.std,
        architecture=spec.architecture,
        weights_sha256=_weights_sha256(module),
        variants=tuple(variants),
        files={path: _sha256(content) for path, content in files.items()},
        macs=cost.macs,
        parameters=cost.parameters,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        producer=f"samespace {version('samespace')}",
        card=spec.card,
    )
    temporary = temporary_for(out)
    try:
        _write(temporary, files, manifest)
        parity = []
        shown = _golden_pixels(files, entries)
        if calibration is not None:
            shown = np.concatenate([shown, calibration.for_judging[:_JUDGED]])
        unrounded = converter.deployed.embed(torch.from_numpy(shown)).numpy()
        tolerances: dict[str, float] = {}
        for variant in variants:
            embedder = Embedder(
                temporary, variant=variant.name, runtime=TARGETS[variant.name].runtime
            )
            parity.append(_parity(embedder, converter.deployed, files, entries))
            run = exact(variant.format, embedder.bundle.graph(variant))
            fill_embeddings(entries, files, variant.name, run)
            tolerances[variant.name] = embed_tolerance(variant.precision, run(shown), unrounded)
        files[GOLDEN] = golden_json(entries, tolerances)
        hashes = {path: _sha256(content) for path, content in files.items()}
        _write(temporary, {GOLDEN: files[GOLDEN]}, replace(manifest, files=hashes))
        _move_into_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(Bundle.open(out), tuple(parity), tuple(converter.quantizations))


def _variant(target: Target, made: Mapping[str, bytes]) -> Variant:
    hashes = {path: _sha256(content) for path, content in made.items()}
    if set(made) == {target.file}:
        sha256 = hashes[target.file]
    else:
        sha256 = folder_sha256({path[len(target.file) + 1 :]: h for path, h in hashes.items()})
    size = sum(len(content) for content in made.values())
    return Variant(target.name, target.format, target.precision, target.file, sha256, size)


def _parity(
    embedder: Embedder, deployed: Deployed, files: Mapping[str, bytes], entries: Sequence[Any]
) -> ExportParity:
    pixels = _golden_pixels(files, entries)
    expected = deployed.embed(torch.from_numpy(pixels)).numpy()
    actual = embedder.embed_pixels(pixels)
    report = ExportParity(
        variant=embedder.variant.name,
        runtime=embedder.runtime,
        max_abs=float(np.abs(actual - expected).max()),
        min_cosine=float((actual.astype(np.float64) * expected).sum(1).min()),
        pictures=len(pixels),
    )
    lengths = np.linalg.norm(actual, axis=1)
    # Of a picture without any feature no vector has a length.
    is_judged = np.abs(np.linalg.norm(expected, axis=1) - 1) < _UNIT
    is_lost = is_judged & ~(np.abs(lengths - 1) < _UNIT)
    is_half = embedder.variant.precision == "fp16"
    if is_lost.any():
        raise ConfigError(
            f"the exported {report.variant} of {embedder.identity.name} makes a vector of length "
            f"{lengths[is_lost][0]:.3g} instead of 1; leave this target out"
        )
    if is_half and is_judged.all() and not 1 - report.min_cosine < _FARTHEST_HALF:
        raise ConfigError(
            f"the exported {report.variant} of {embedder.identity.name} departs from the torch "
            f"model, to a cosine of {report.min_cosine:.3f}: some weights are too small or too "
            "large for fp16. Multiply the last layer by a constant, which changes no cosine, or "
            "leave this target out"
        )
    if embedder.variant.precision == "fp32" and not report.max_abs < 1e-3:
        raise ConfigError(
            f"the exported {report.variant} of {embedder.identity.name} departs from the torch "
            f"model by {report.max_abs:.2g}: the module does something that the exporter cannot "
            "follow, such as depending on the batch or on random numbers"
        )
    return report


def _golden_pixels(files: Mapping[str, bytes], entries: Sequence[Any]) -> NDArray[np.uint8]:
    """The resized golden pictures, uint8 RGB (N, H, W, 3)."""
    return np.stack([decode(files[f"golden/{e['resized']}"]) for e in entries])


def _write(folder: Path, files: Mapping[str, bytes], manifest: Manifest) -> None:
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=1) + "\n")


def _move_into_place(temporary: Path, out: Path) -> None:
    previous = temporary_for(out.with_name(f"{out.name}.previous"))
    if out.exists():
        out.rename(previous)
    try:
        temporary.rename(out)
    except OSError:
        if previous.exists():
            previous.rename(out)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _weights_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name.endswith("num_batches_tracked"):  # a counter of training, not a weight
            continue
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
