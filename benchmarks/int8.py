"""Does an int8 ONNX file give the same vectors on every processor, and what does that cost?

    OMP_NUM_THREADS=1 python -m benchmarks.int8 --data grocery_store/photo_to_photo.csv

Backbones with ImageNet weights and a whitened head, on 200 test queries and 200 gallery pictures.
The rows of an older processor are real kernels: another process runs with the newer instructions
hidden (tests/older_processor.c). They are left out where that cannot be done.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._result import ratio_side_by_side, write
from samespace import Dataset
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.pretrained import load_pretrained
from samespace_edge import decode, instruction_set
from samespace_edge._runtimes import Runtime, load_runtime
from samespace_export import Calibration
from samespace_export._deployed import Deployed
from samespace_export._exact import exact
from samespace_export._onnx import Scales, onnx_ranges, onnx_scales, to_int8, to_onnx
from tests import older_processor

COLUMNS = {
    "model": "backbone and side of its input in pixels",
    "scales": "of a channel's weights: `usual` (largest weight over 127), `7 bits` (over 63, as "
    "reduce_range), or `pairs` (largest sum of two neighbours of one sign over 127: ours)",
    "processor": "instruction set of the kernels; `exact` for unfused arithmetic",
    "error": "mean of 1 - cosine to the fp32 file",
    "worst": "largest of them",
    "same_first_hit": "share of the queries that find the picture that the fp32 files find",
    "p50_ms": "one picture, one thread, median, ms",
    "to_fp32": "that over the fp32 file's, taking turns",
}
MODELS = (("lite0-edge", 48), ("lite0-trunk", 64), ("lite2-trunk", 128))
SCALES = ("usual", "7 bits", "pairs")
_PICTURES, _TRAIN, _CALIBRATE = 200, 1200, 200
_ROUNDS = 100


def pixels_of(data: Dataset, config: ModelConfig, items: Any, count: int) -> NDArray[np.uint8]:
    drawn = np.random.default_rng(0).permutation(len(items))[:count]
    return np.stack([config.resize(decode(data.read(items[i]))) for i in sorted(drawn)])


@torch.no_grad()
def whitened(config: ModelConfig, train: NDArray[np.uint8]) -> Deployed:
    """A model with ImageNet weights whose head whitens the features of some pictures."""
    torch.manual_seed(0)
    model = EmbeddingModel(config)
    load_pretrained(model.backbone, config.backbone)
    model.eval()
    deployed = Deployed(model.backbone, config.mean, config.std)
    planes = torch.from_numpy(train).permute(0, 3, 1, 2).float()
    x = planes * deployed.scale + deployed.shift
    features = torch.cat([model.backbone(x[i : i + 64]) for i in range(0, len(x), 64)]).double()
    mean = features.mean(0)
    _, values, directions = torch.linalg.svd(features - mean, full_matrices=False)
    spread = values[: config.dim, None] / len(features) ** 0.5
    weight = directions[: config.dim] / (spread + 1e-3)
    model.embed.weight.copy_(weight)
    model.embed.bias.copy_(-(weight @ mean))
    return Deployed(model, config.mean, config.std)


def other_scales(fp32: bytes, found: Scales, levels: int) -> Scales:
    """Every channel's largest weight over so many levels."""
    import onnx
    from onnx import numpy_helper

    stored = {i.name: i for i in onnx.load_from_string(fp32).graph.initializer}
    changed = {}
    for name, (_, axis) in found.items():
        weight = np.abs(numpy_helper.to_array(stored[name]))
        others = tuple(i for i in range(weight.ndim) if i != axis)
        changed[name] = (weight.max(others) / levels, axis)
    return changed


def write_files(folder: Path, data: Dataset, config: ModelConfig) -> None:
    """The files of one model and the pixels that they are measured on."""
    folder.mkdir()
    train = pixels_of(data, config, data.train, _TRAIN)
    fp32 = to_onnx(whitened(config, train), config.input_size, config.input_size)
    ranges = onnx_ranges(fp32, Calibration(train[:_CALIBRATE], 99.99))[99.99]
    found = onnx_scales(fp32)
    scales = {
        "usual": other_scales(fp32, found, 127),
        "7 bits": other_scales(fp32, found, 63),
        "pairs": found,
    }
    (folder / "fp32.onnx").write_bytes(fp32)
    for name, each in scales.items():
        (folder / f"{name}.onnx").write_bytes(to_int8(fp32, ranges, each))
    for name, items in (("queries", data.queries), ("gallery", data.gallery)):
        np.save(folder / f"{name}.npy", pixels_of(data, config, items, _PICTURES))


def times(ours: Runtime, reference: Runtime, one: NDArray[np.uint8]) -> tuple[float, float]:
    """The time of one picture over the reference's, and in ms."""
    ratio, seconds, _ = ratio_side_by_side(
        lambda: ours.run(one), lambda: reference.run(one), _ROUNDS
    )
    return ratio, 1e3 * seconds


def measure(folder: Path, processor: str, exactly: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of one model's files on the processor that this process sees."""
    queries, gallery = np.load(folder / "queries.npy"), np.load(folder / "gallery.npy")
    reference = load_runtime("onnxruntime", (folder / "fp32.onnx").read_bytes(), 1, ())
    expected = reference.run(queries), reference.run(gallery)
    first = (expected[0] @ expected[1].T).argmax(1)
    for scales in SCALES:
        content = (folder / f"{scales}.onnx").read_bytes()
        loaded = load_runtime("onnxruntime", content, 1, ())
        run = exact("onnx", content) if exactly else loaded.run
        vectors = run(queries), run(gallery)
        errors = 1 - np.concatenate(
            [(v.astype(np.float64) * e).sum(1) for v, e in zip(vectors, expected, strict=True)]
        )
        ratio, p50_ms = (None, None) if exactly else times(loaded, reference, queries[:1])
        yield {
            "model": folder.name,
            "scales": scales,
            "processor": processor,
            "error": float(errors.mean()),
            "worst": float(errors.max()),
            "same_first_hit": float(((vectors[0] @ vectors[1].T).argmax(1) == first).mean()),
            "p50_ms": p50_ms,
            "to_fp32": ratio,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a manifest with train, query and gallery pictures")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        folder, processor = arguments.worker
        json.dump(list(measure(Path(folder), processor)), sys.stdout)
        return
    if not arguments.data:
        parser.error("--data is needed")
    data = Dataset.open(arguments.data)
    older = older_processor.environment()
    notes = [f"No row of an older processor: {older}."] if isinstance(older, str) else []
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for backbone, size in MODELS:
            folder = Path(name) / f"{backbone} {size} px"
            write_files(folder, data, ModelConfig(backbone, size))
            rows += measure(folder, "exact", exactly=True)
            rows += measure(folder, instruction_set())
            if isinstance(older, dict) and older:
                worker = ["-m", "benchmarks.int8", "--worker", str(folder), "x86_64 AVX2 (hidden)"]
                rows += json.loads(older_processor.run(worker, older))
    write("int8", COLUMNS, rows, notes=notes)


if __name__ == "__main__":
    main()
