"""A classifier as ONNX and TFLite files, whose output are logits, and what has to be known of them.

A bundle holds embeddings, made unit inside the graph; logits made unit would lose how sure they
are. So a classifier is a folder of its own kind, with the same converters and runtimes:

- the graph files: uint8 RGB (N, H, W, 3), called `image`, to float32 logits (N, K), called
  `embedding` as in every graph here. Mean and std are inside.
- `classifier.json`: `schema`, `name`, `fingerprint`, `architecture`, `classes` (what the logits
  stand for), `resize` (how a picture becomes the input, as in a bundle), `files` (variant, sha256
  by path, bytes, and how far its logits are from torch's), `macs`, `parameters`, `card`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from samespace_cloud.linear import Classifier, TwoStream
from samespace_cloud.pretrained import MEAN, STD
from samespace_cloud.tagging import FromPictures, TaggerCheckpoint
from samespace_cloud.tuning.checkpoint import TunedCheckpoint, need_labels
from samespace_cloud.tuning.pictures import normalised
from samespace_edge import ConfigError, decode
from samespace_edge._runtimes import load_runtime
from samespace_edge._temporary import temporary_for
from samespace_export import TARGETS, ExportParity, count_cost
from samespace_export._convert import Converter
from samespace_export._deployed import Unnormalised
from samespace_export._export import _move_into_place, _sha256
from samespace_export._golden import stage_files, synthetic_pictures

SCHEMA = 1
MANIFEST = "classifier.json"


def export_classifier(
    checkpoint: TunedCheckpoint | TaggerCheckpoint,
    out: str | Path,
    name: str,
    *,
    targets: Sequence[str] = ("onnx-fp32",),
    golden: Sequence[bytes] = (),
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda target: None,
) -> tuple[ExportParity, ...]:
    """Export a classifier to the folder `out`, and run every file that was written at once.

    Args:
        checkpoint: a tuned classifier, or a tagger on pictures.
        name: a label for people.
        targets: which files, by name (see `samespace_export.TARGETS`), but for int8.
        golden: encoded pictures that every file is compared with torch on; made ones by default.
        overwrite: replace the classifier that is there.
        progress: is called with the name of each target before it is made.

    Returns how far each file's logits are from torch's, `min_cosine` being of logits. Raises
    `ConfigError` where `out` exists, for targets that cannot be made, for an ensemble or a tagger
    on vectors, and where an fp32 file departs from torch.
    """
    out, sees = Path(out), checkpoint.sees
    module = _module(checkpoint)
    assert isinstance(sees, FromPictures)
    if out.exists() and not (overwrite and (out / MANIFEST).exists()):
        raise ConfigError(f"{out} is already there; remove it, or overwrite a classifier that is")
    if wrong := [t for t in targets if t not in TARGETS or TARGETS[t].calibrated]:
        known = ", ".join(t for t, row in TARGETS.items() if not row.calibrated)
        raise ConfigError(f"no classifier comes as {', '.join(wrong)}; there are {known}")
    resize = sees.canvas(sees.input_size)
    converter = Converter(module, MEAN, STD, resize.height, resize.width)
    converter.deployed = Unnormalised(module, MEAN, STD)
    pictures, entries = stage_files(list(golden) or synthetic_pictures(), resize)
    pixels = np.stack([decode(pictures[f"golden/{e['resized']}"]) for e in entries])
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    tuned = isinstance(checkpoint, TunedCheckpoint)
    # Of the checkpoint itself, and not of the module that is converted.
    expected = checkpoint.logits(normalised(inputs) if tuned else inputs).numpy()
    cost = count_cost(module, resize.height, resize.width)
    temporary = temporary_for(out)
    parity, files = [], []
    try:
        for target in dict.fromkeys(targets):
            progress(target)
            made = converter.convert(TARGETS[target])
            for path, content in made.items():
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).write_bytes(content)
            parity.append(_parity(target, temporary, pixels, expected))
            files.append(_entry(made, parity[-1]))
        value = {
            "schema": SCHEMA,
            "name": name,
            "fingerprint": checkpoint.fingerprint.hex,
            "architecture": getattr(checkpoint, "architecture", sees.architecture),
            "classes": list(checkpoint.classes),
            "resize": resize.to_json(),
            "files": files,
            "macs": cost.macs,
            "parameters": cost.parameters,
            "card": dict(checkpoint.card),
        }
        (temporary / MANIFEST).write_text(json.dumps(value, indent=1) + "\n")
        _move_into_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tuple(parity)


def _module(checkpoint: TunedCheckpoint | TaggerCheckpoint) -> nn.Module:
    """Normalised pictures to logits, in operations that any runtime has."""
    if isinstance(checkpoint, TunedCheckpoint):
        need_labels(checkpoint)
        module: nn.Module = TwoStream(checkpoint.model)
        return module
    if not isinstance(checkpoint.sees, FromPictures):
        raise ConfigError(
            "a tagger on a bundle's vectors sees no pictures: ship the bundle, and its head as the "
            "matrix that it is"
        )
    module = Classifier(checkpoint.tagger.backbone, checkpoint.tagger.head)
    return module.eval()


def _parity(
    target: str, folder: Path, pixels: NDArray[np.uint8], expected: NDArray[np.float32]
) -> ExportParity:
    row = TARGETS[target]
    file = folder / row.file
    graph = file if file.is_dir() else file.read_bytes()
    found = load_runtime(row.runtime, graph, 1, ()).run(pixels)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = (found.astype(np.float64) * expected).sum(1) / lengths
    off = float(np.abs(found - expected).max())
    if row.precision == "fp32" and not off < 1e-3 * max(1.0, float(np.abs(expected).max())):
        raise ConfigError(
            f"the exported {target} departs from the torch model by {off:.2g}: the network does "
            "something that the exporter cannot follow"
        )
    return ExportParity(target, row.runtime, off, float(cosine.min()), len(pixels))


def _entry(made: Mapping[str, bytes], parity: ExportParity) -> dict[str, Any]:
    return {
        "variant": parity.variant,
        "files": {path: _sha256(content) for path, content in made.items()},
        "bytes": sum(len(content) for content in made.values()),
        "max_abs": parity.max_abs,
        "min_cosine": parity.min_cosine,
    }
