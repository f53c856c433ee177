"""What does a query cost in each file and runtime, beside what one would take instead?

    python -m benchmarks.latency --edge EDGE.bundle --edge-checkpoint DIR
        --cloud CLOUD.bundle --cloud-checkpoint DIR [--name latency] [--repeats 20]

Every row is a process of its own, so that threads and peak memory are its own. All of one number
of threads are loaded first; then they take turns, a burst of calls each, round after round, so
that a busy moment hits all alike. No two of them ever work at the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks._latency_worker import to_ncnn
from benchmarks._result import write
from samespace_edge import Bundle
from samespace_edge._runtimes import runtimes_for

COLUMNS = {
    "model": "edge or cloud",
    "mmacs": "millions of multiply-accumulates for one picture, from the manifest",
    "what": "the bundle's file, or what was made of the same weights",
    "runtime": "what ran it",
    "via": "samespace: Embedder.embed_pixels; raw: the runtime's own call",
    "threads": "threads of one call",
    "p50_ms": "median time of one picture, ms",
    "p95_ms": "95th percentile of it, ms",
    "cpu_ms": "processor time of all threads for one picture, ms: a proxy of energy",
    "peak_mib": "largest resident memory of a process that loads and runs only this, MiB",
    "load_ms": "to load it and answer the first picture, imports before that not counted, ms",
    "ratio_to": "p50_ms over that of the model's onnx-fp32, raw in onnxruntime, same threads",
    "ratio_iqr": "quartiles over the rounds of the ratio of the two medians of a round",
    "cosine": "smallest cosine with the torch model's vector, over the bundle's golden pictures",
    "reason": "why there are no figures",
}

THREADS = (1, 2)
BURST = 50  # calls a turn
RAW_FP32 = ("onnx-fp32", "onnxruntime", "raw")

# Smallest cosine with the torch model's vector that shows that the right thing was run.
_AGREES = {"fp32": 0.999, "fp16": 0.999, "bf16": 0.99, "int8": 0.95, "dynamic": 0.95}

_INSTALL = {"openvino": "openvino", "ncnn": "ncnn pnnx", "pnnx": "ncnn pnnx", "torch": "torch"}


@dataclass(frozen=True)
class Model:
    """A bundle and the checkpoint it was exported from."""

    role: str
    bundle: Bundle
    checkpoint: Path
    pixels: NDArray[np.uint8]
    vectors: NDArray[np.float32]

    @classmethod
    def open(cls, role: str, bundle: Path, checkpoint: Path) -> Model:
        """Raises the errors of bundles and checkpoints, one of them where the two do not match."""
        from samespace_cloud.checkpoint import reference

        opened = Bundle.open(bundle)
        opened.variant(RAW_FP32[0])  # the row that all others are compared with
        names = [n for n in opened.manifest.files if n.endswith(".resized.png")]
        pictures = [Image.open(io.BytesIO(opened.read(n))).convert("RGB") for n in names]
        pixels = np.stack([np.asarray(picture) for picture in pictures])
        return cls(role, opened, checkpoint, pixels, reference(checkpoint, opened)(pixels))


@dataclass
class Row:
    """One row of the result, and what was measured for it."""

    model: Model
    what: str
    runtime: str
    via: str
    threads: int
    precision: str
    job: dict[str, Any]
    reason: str | None = None
    loaded: dict[str, Any] = field(default_factory=dict)
    cosine: float | None = None
    rounds: list[list[float]] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    peak_mib: float | None = None

    def __str__(self) -> str:
        what = f"{self.model.role} {self.what} in {self.runtime}"
        return f"{what}, {self.via}, threads {self.threads}"

    def check(self) -> None:
        """Ends the benchmark where another result was computed than the torch model's."""
        vectors = np.array(self.loaded["vectors"])
        lengths = np.linalg.norm(vectors, axis=1)
        self.cosine = float(((vectors * self.model.vectors).sum(1) / lengths).min())
        least = _AGREES[self.precision]
        if not self.cosine > least or np.abs(lengths - 1).max() > 1e-2:
            raise SystemExit(
                f"{self}: cosine {self.cosine:.5f} with the torch model, at least {least} is "
                f"expected; lengths {lengths.min():.4f} to {lengths.max():.4f}. Nothing is written."
            )

    def to_json(self, base: Row) -> dict[str, Any]:
        """As it is written, compared with the row `base`."""
        value = {
            "model": self.model.role,
            "mmacs": self.model.bundle.manifest.macs / 1e6,
            "what": self.what,
            "runtime": self.runtime,
            "via": self.via,
            "threads": self.threads,
        }
        if self.rounds:
            times = np.concatenate(self.rounds)
            value |= {
                "p50_ms": float(np.median(times)),
                "p95_ms": float(np.percentile(times, 95)),
                "cpu_ms": float(np.mean(self.cpu_ms)),
                "peak_mib": self.peak_mib,
                "load_ms": self.loaded["load_ms"],
                "cosine": self.cosine,
            }
        if self.rounds and base.rounds:
            ratios = np.median(self.rounds, axis=1) / np.median(base.rounds, axis=1)
            value["ratio_to"] = value["p50_ms"] / float(np.median(np.concatenate(base.rounds)))
            value["ratio_iqr"] = [float(q) for q in np.percentile(ratios, (25, 75))]
        return {column: value.get(column) for column in COLUMNS} | {"reason": self.reason}


def missing(*modules: str) -> str | None:
    """What to install before `modules` can be imported; None if they can."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            return f"not installed: pip install {_INSTALL[module]}"
    return None


def bundle_rows(model: Model, threads: int, pixels: Path) -> Iterator[Row]:
    """Every file of the bundle that something runs here, through samespace and without it.

    Core ML packages are left out: off the Mac they are interpreted, which says nothing of Apple's
    speed.
    """
    for variant in model.bundle.manifest.variants:
        if variant.format == "coreml":
            continue
        runtime, kind = next(iter(runtimes_for(variant.format).items()))
        common = {"pixels": str(pixels), "threads": threads, "runtime": runtime}
        ours = {"loader": "samespace", "bundle": str(model.bundle.path), "variant": variant.name}
        theirs = {"loader": runtime, "file": str(model.bundle.path / variant.file)}
        for via, job in (("samespace", ours), ("raw", theirs)):
            yield Row(
                *(model, variant.name, runtime, via, threads, variant.precision),
                job=common | job,
                reason=kind.missing(),
            )


def other_rows(
    model: Model, threads: int, pixels: Path, file: Path | None, why_not: str | None
) -> Iterator[Row]:
    """What one would take instead, for the same weights."""
    common = {"pixels": str(pixels), "threads": threads, "input": model.pixels.shape[1:]}
    for runtime, compiled in (("torch eager", False), ("torch.compile", True)):
        job = {"loader": "torch", "checkpoint": str(model.checkpoint), "compiled": compiled}
        yield Row(
            *(model, "torch-fp32", runtime, "raw", threads, "fp32"),
            job=common | job,
            reason=missing("torch"),
        )
    files = {v.name: str(model.bundle.path / v.file) for v in model.bundle.manifest.variants}
    for name, what, precision, asked in (
        ("onnx-fp32", "onnx-fp32", "fp32", "f32"),
        ("onnx-fp32", "onnx-fp32 computed in bf16", "bf16", None),  # its own choice, where it can
        ("onnx-int8", "onnx-int8", "int8", "f32"),
    ):
        if name in files:
            yield Row(
                *(model, what, "openvino", "raw", threads, precision),
                job=common | {"loader": "openvino", "file": files[name], "precision": asked},
                reason=missing("openvino"),
            )
    yield Row(
        *(model, "ncnn-fp32", "ncnn", "raw", threads, "fp32"),
        job=common | {"loader": "ncnn", "file": str(file)},
        reason=why_not,
    )


def ncnn_file(model: Model, folder: Path) -> tuple[Path | None, str | None]:
    """The model as ncnn's files; or why there are none."""
    if reason := missing("ncnn", "pnnx"):
        return None, reason
    try:
        return to_ncnn(model.checkpoint, folder), None
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return None, f"not converted: {str(error).splitlines()[0]}"


class Worker:
    """The process of one row."""

    def __init__(self, row: Row, folder: Path) -> None:
        self._row = row
        environment = os.environ | {
            "OMP_NUM_THREADS": str(row.threads),
            "TORCHINDUCTOR_CACHE_DIR": str(folder),  # an empty one, so that it does compile
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no processes beside the measured one
        }
        self._errors = folder / "stderr"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks._latency_worker", json.dumps(row.job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def answer(self) -> dict[str, Any]:
        """Its next answer; a process that ended answers with the reason."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        said = self._errors.read_text().strip().splitlines()[-1:]
        return {"error": f"ended with code {self._process.wait()}: {''.join(said)}"}

    def turn(self, calls: int) -> None:
        """One burst; it is the only one that works."""
        assert self._process.stdin is not None
        print(calls, file=self._process.stdin, flush=True)
        found = self.answer()
        if "error" in found:
            raise SystemExit(f"{self._row} {found['error']}")
        self._row.rounds.append(found["times_ms"])
        self._row.cpu_ms.append(found["cpu_ms"])

    def finish(self) -> None:
        """No more turns: it tells its peak memory and ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._row.peak_mib = self.answer().get("peak_mib")
        self._process.wait()

    def close(self) -> None:
        """Ends it, whatever it is at."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def measure(rows: Sequence[Row], repeats: int, folder: Path) -> None:
    """Load every row, one after the other; then let them take turns."""
    with contextlib.ExitStack() as stack:
        workers = []
        for i, row in enumerate(rows):
            if row.reason is None:
                own = folder / f"{row.threads}-{i}"
                own.mkdir()
                worker = Worker(row, own)
                stack.callback(worker.close)
                row.loaded = worker.answer()
                row.reason = row.loaded.get("error")
            if row.reason is None:
                row.check()
                workers.append(worker)
            print(f"  {row}: {row.reason or 'agrees'}", flush=True)
        for round_ in range(repeats):
            for worker in workers if round_ % 2 == 0 else reversed(workers):
                worker.turn(BURST)
        for worker in workers:
            worker.finish()


def results(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with their ratios, the edge model's before the cloud model's."""
    base = {
        (row.model.role, row.threads): row
        for row in rows
        if (row.what, row.runtime, row.via) == RAW_FP32
    }
    ordered = sorted(rows, key=lambda row: (row.model.role != "edge", row.threads))
    return [row.to_json(base[row.model.role, row.threads]) for row in ordered]


def headline(rows: Sequence[dict[str, Any]]) -> str:
    """What the cloud model costs above the edge model, in time and in MACs."""
    found = {
        row["model"]: row
        for row in rows
        if (row["what"], row["runtime"], row["via"]) == RAW_FP32 and row["threads"] == 1
    }
    edge, cloud = found["edge"], found["cloud"]
    return (
        f"The cloud model takes {cloud['p50_ms']:.2f} ms a picture, the edge model "
        f"{edge['p50_ms']:.2f} ms (onnx-fp32 in onnxruntime, one thread): "
        f"{cloud['p50_ms'] / edge['p50_ms']:.1f} times as much, "
        f"{cloud['cpu_ms'] / edge['cpu_ms']:.1f} times the processor time, and "
        f"{cloud['mmacs'] / edge['mmacs']:.1f} times the MACs."
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    names = ("p50_ms", "p95_ms", "cpu_ms", "peak_mib", "load_ms", "ratio_to")
    lines = [f"{'':58}" + "".join(f"{name:>10}" for name in names)]
    for row in rows:
        label = (
            f"{row['model']:5} {row['threads']}  {row['what']:26} {row['runtime']:14} {row['via']}"
        )
        figures = "".join(f"{row[name]:10.2f}" for name in names if row[name] is not None)
        lines.append(f"{label:58}" + (figures or f"  {row['reason']}"))
    return "\n".join(lines)


def notes(rows: Sequence[Row], repeats: int, load: float) -> list[str]:
    bare = [row.loaded["start_mib"] for row in rows if "start_mib" in row.loaded]
    versions = []
    for package in ("ai-edge-litert", "openvino", "ncnn", "pnnx"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return [
        f"Batch 1, preprocessed pixels: decoding and resizing are not in it. {repeats} rounds of "
        f"{BURST} calls, rows of the same threads taking turns.",
        f"The load average when it started was {load:.2f}; 0 is a machine with nothing else to do.",
        f"{np.median(bare):.0f} MiB of every peak are Python with numpy. The peak of "
        "torch.compile, and its load, include compiling, with an empty cache.",
        f"Also used: {', '.join(versions)}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for role in ("edge", "cloud"):
        parser.add_argument(f"--{role}", type=Path, required=True, help="its bundle")
        parser.add_argument(f"--{role}-checkpoint", type=Path, required=True, help="its folder")
    parser.add_argument("--name", default="latency", help="name of the result")
    parser.add_argument("--repeats", type=int, default=20, help=f"rounds of {BURST} calls")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    models = [
        Model.open("edge", asked.edge, asked.edge_checkpoint),
        Model.open("cloud", asked.cloud, asked.cloud_checkpoint),
    ]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        made = []
        for model in models:
            folder = Path(name) / model.role
            folder.mkdir()
            np.save(folder / "pixels.npy", model.pixels)
            made.append((model, folder / "pixels.npy", ncnn_file(model, folder)))
        for threads in THREADS:
            group: list[Row] = []
            for model, pixels, ncnn in made:
                group += bundle_rows(model, threads, pixels)
                group += other_rows(model, threads, pixels, *ncnn)
            measure(group, asked.repeats, Path(name))
            rows += group
    found = results(rows)
    said = headline(found)
    write(asked.name, COLUMNS, found, notes=[said, *notes(rows, asked.repeats, load)])
    print(f"\n{table(found)}\n\n{said}")


if __name__ == "__main__":
    main()
