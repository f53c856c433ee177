"""bundle + adapter -> bundle: a model that answers in another model's space."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from samespace_edge import Adapter, Bundle, ConfigError, Embedder, Manifest, Variant, decode
from samespace_edge._bundle import GOLDEN, Role
from samespace_edge._temporary import temporary_for
from samespace_export._append import append_adapter
from samespace_export._beside import put_beside
from samespace_export._exact import exact
from samespace_export._export import ExportParity, _move_into_place, _sha256, _write
from samespace_export._golden import fill_embeddings, golden_json

_RUNTIME = "onnxruntime"
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Adapted:
    """A bundle that was just made of another one and an adapter.

    Attributes:
        bundle: the bundle.
        parity: of every file, against `Adapter.apply` of the vectors of the file it was made of.
        left_out: the files of the other bundle that it has no counterpart of, and why.
    """

    bundle: Bundle
    parity: tuple[ExportParity, ...]
    left_out: tuple[str, ...]


def adapt_bundle(
    bundle: Bundle | str | Path,
    adapter: Adapter | str | Path,
    out: str | Path,
    *,
    side: Bundle | str | Path | None = None,
    name: str | None = None,
    role: Role = "edge",
    overwrite: bool = False,
) -> Adapted:
    """Make the bundle `out` of a bundle's model followed by an adapter, and run its files at once.

    Preprocessing and golden pictures stay; fingerprint, cost and golden vectors are its own, and
    its space is that of the adapter's target. The adapter is in float32 in every file.

    Args:
        bundle: the adapter's source model; its ONNX files are taken.
        adapter: the adapter, or its file.
        side: the bundle that makes the side information, where the adapter takes some. Both
            networks run on one picture, so it has to take the same pixels, and both cost.
        name: a label; by default the bundle's and the adapter's kind.
        role: by default `edge`, whatever the bundle's. `cloud` says that it is a newer generation
            of the target's space: `samespace.verify` then asks that it beat the gallery's model.
        overwrite: replace the bundle that is there.

    Raises `ConfigError` where `out` exists, the adapter is for other models, was fitted without
    knowing their bundles, a bundle has no ONNX file, the two take different pixels, or a file
    departs from `Adapter.apply` by 1e-5 or more; `BundleFormatError` rather than overwrite what is
    no bundle.
    """
    source = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if not isinstance(adapter, Adapter):
        adapter = Adapter.read(adapter)
    out = Path(out)
    if out.exists():
        if not overwrite:
            raise ConfigError(f"{out} is already there; remove it or ask to overwrite it")
        Bundle.open(out)  # nothing but a bundle is ever replaced
    variants = _check(source, adapter)
    beside = _check_side(source, adapter, side)

    files, entries = _golden_files(source)
    made = []
    for variant in variants:
        graph = source.graph(variant)
        assert isinstance(graph, bytes)
        if beside is not None:
            other = beside.graph(_counterpart(beside, variant))
            assert isinstance(other, bytes)
            graph = put_beside(graph, other)
        content = append_adapter(graph, adapter.layers)
        files[variant.file] = content
        made.append(replace(variant, sha256=_sha256(content), bytes=len(content)))
    files |= _quantization(source, variants)
    manifest = _manifest(source.manifest, adapter, made, files, name, role)
    if beside is not None:
        manifest = _with_side(manifest, beside.manifest)
    temporary = temporary_for(out)
    try:
        _write(temporary, files, manifest)
        parity = []
        for variant in made:
            after = Embedder(temporary, variant=variant.name, runtime=_RUNTIME)
            before = [Embedder(source, variant=variant.name, runtime=_RUNTIME)]
            if beside is not None:
                same = _counterpart(beside, variant).name
                before.append(Embedder(beside, variant=same, runtime=_RUNTIME))
            parity.append(_parity(before, adapter, after, files, entries))
            run = exact(variant.format, after.bundle.graph(variant))
            fill_embeddings(entries, files, variant.name, run)
        given = json.loads(source.read(GOLDEN))["tolerance"]["embed"]
        files[GOLDEN] = golden_json(entries, {v.name: given[v.name] for v in made})
        hashes = {path: _sha256(content) for path, content in files.items()}
        _write(temporary, {GOLDEN: files[GOLDEN]}, replace(manifest, files=hashes))
        _move_into_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    left_out = tuple(
        f"{v.name}: an adapter goes behind ONNX graphs only; other files are exported from the "
        "model's checkpoint, with the adapter as its last layers"
        for v in source.manifest.variants
        if v not in variants
    )
    return Adapted(Bundle.open(out), tuple(parity), left_out)


def _check(source: Bundle, adapter: Adapter) -> list[Variant]:
    """The files that can be adapted."""
    m = source.manifest
    adapter.check_source(f"bundle {m.name!r}", m.fingerprint)
    if adapter.preprocessing != m.preprocessing or adapter.architecture != m.architecture:
        # Else lifted vectors and this bundle's, which are equal, would not name the same model.
        raise ConfigError(
            f"the adapter was fitted knowing of its source no more than the fingerprint; fit it "
            f"again with the bundle {m.name!r} (source=, --source-model)"
        )
    return _onnx_files(source)


def _onnx_files(bundle: Bundle) -> list[Variant]:
    m = bundle.manifest
    variants = [v for v in m.variants if v.format == "onnx"]
    if not variants:
        held = ", ".join(v.name for v in m.variants)
        raise ConfigError(
            f"bundle {m.name!r} has no ONNX file for an adapter to go behind; it has: {held}. "
            "Export its checkpoint with the target onnx-fp32."
        )
    return variants


def _check_side(
    source: Bundle, adapter: Adapter, side: Bundle | str | Path | None
) -> Bundle | None:
    """The bundle that makes the side information; None where the adapter takes none."""
    if side is None:
        if adapter.side_dim:
            raise ConfigError(
                f"the adapter takes side information (N, {adapter.side_dim}) beside every vector; "
                "name the bundle that makes it (side=, --side)"
            )
        return None
    bundle = side if isinstance(side, Bundle) else Bundle.open(side)
    m = bundle.manifest
    if not adapter.side_dim:
        raise ConfigError(f"the adapter takes no side information; leave {m.name!r} out")
    if adapter.side is None:
        raise ConfigError(
            "the adapter was fitted without knowing who makes its side information; fit it again "
            f"with the bundle {m.name!r} (side_model=, --side-model)"
        )
    if adapter.side != m.fingerprint:
        raise ConfigError(
            f"the adapter takes side information of model {adapter.side.short}…; bundle "
            f"{m.name!r} is model {m.fingerprint.short}…"
        )
    if m.resize != source.manifest.resize:
        raise ConfigError(
            f"{source.manifest.name!r} takes pictures resized as {source.manifest.resize}, "
            f"{m.name!r} as {m.resize}; one bundle has one. Lift with Adapter.apply, or export the "
            "side model for the other's pictures, and keep and fit with that"
        )
    _onnx_files(bundle)
    return bundle


def _counterpart(side: Bundle, variant: Variant) -> Variant:
    """The side bundle's file of the same name, or its first one."""
    files = _onnx_files(side)
    return next((v for v in files if v.name == variant.name), files[0])


def _with_side(manifest: Manifest, side: Manifest) -> Manifest:
    return replace(
        manifest,
        macs=manifest.macs + side.macs,
        parameters=manifest.parameters + side.parameters,
        card={**manifest.card, "side information": f"{side.name} {side.fingerprint.short}…"},
    )


def _golden_files(source: Bundle) -> tuple[dict[str, bytes], list[Any]]:
    """The golden pictures of a bundle, and their entries without the embeddings."""
    files = {
        path: source.read(path)
        for path in source.manifest.files
        if path.startswith("golden/") and path != GOLDEN
    }
    entries = json.loads(source.read(GOLDEN))["images"]
    return files, [{**entry, "embedded": {}} for entry in entries]


def _quantization(source: Bundle, variants: Sequence[Variant]) -> dict[str, bytes]:
    """How the int8 files among these came about: an adapter changes nothing of it."""
    path = "quantization.json"
    if path not in source.manifest.files:
        return {}
    names = {v.name for v in variants}
    value = {k: v for k, v in json.loads(source.read(path)).items() if k in names}
    return {path: json.dumps(value, indent=1).encode()} if value else {}


def _manifest(
    source: Manifest,
    adapter: Adapter,
    variants: Sequence[Variant],
    files: Mapping[str, bytes],
    name: str | None,
    role: Role,
) -> Manifest:
    fitted = adapter.fitted
    about = f"{adapter.kind}, {fitted.get('pairs', '?')} pairs"
    if fitted.get("data"):
        about += f" of {fitted['data']}"
    return replace(
        source,
        name=name or f"{source.name}+{adapter.kind}",
        fingerprint=adapter.fingerprint,
        space=adapter.space,
        role=role,
        dim=adapter.dim,
        architecture=adapter.model_architecture,
        weights_sha256=adapter.weights_sha256,
        variants=tuple(variants),
        files={path: _sha256(content) for path, content in files.items()},
        macs=source.macs + adapter.layers.macs,
        parameters=source.parameters + adapter.layers.parameters,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        producer=f"samespace {version('samespace')}",
        card={
            **source.card,
            "adapted from": f"{source.name} {source.fingerprint.short}…",
            "adapter": f"{about}, to imitate {adapter.target.short}…",
        },
    )


def _parity(
    before: Sequence[Embedder],
    adapter: Adapter,
    after: Embedder,
    files: Mapping[str, bytes],
    entries: Sequence[Any],
) -> ExportParity:
    pixels = np.stack([decode(files[f"golden/{e['resized']}"]) for e in entries])
    expected = adapter.apply(*(embedder.embed_pixels(pixels) for embedder in before))
    actual = after.embed_pixels(pixels)
    report = ExportParity(
        variant=after.variant.name,
        runtime=after.runtime,
        max_abs=float(np.abs(actual - expected).max()),
        min_cosine=float((actual.astype(np.float64) * expected).sum(1).min()),
        pictures=len(pixels),
    )
    if not report.max_abs < _TOLERANCE:
        raise ConfigError(
            f"{report.variant} of {after.identity.name} departs from Adapter.apply by "
            f"{report.max_abs:.2g}: the adapter magnifies rounding errors. Fit it with more pairs, "
            "or another kind."
        )
    return report
