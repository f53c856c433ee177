"""One graph in one runtime, in a process of its own: loads it, then runs bursts when asked.

`benchmarks.latency` starts it with a job as JSON, and writes a number of calls a line to its
input. It imports nothing but what the job runs on, because its peak memory is measured.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Job = dict[str, Any]
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""One preprocessed picture, uint8 RGB (1, H, W, 3), to its vector (1, D)."""

# openvino would tell its makers that it was imported; without this package it cannot.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

_WARM_UP = 10  # calls that open a burst and are not counted: other processes had the caches


def _samespace(job: Job) -> Run:
    from samespace_edge import Embedder

    embedder = Embedder(
        job["bundle"], variant=job["variant"], runtime=job["runtime"], threads=job["threads"]
    )
    return embedder.embed_pixels


def _onnxruntime(job: Job) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(job["file"], options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["embedding"], {"image": pixels})[0]


def _litert(job: Job) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(job["file"], num_threads=job["threads"])
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    (embedding,) = interpreter.get_output_details()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(image["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(embedding["index"])

    return run


def _torch(job: Job) -> Run:
    import torch

    from samespace_cloud.checkpoint import Checkpoint
    from samespace_export._deployed import Deployed

    torch.set_num_threads(job["threads"])
    checkpoint = Checkpoint.load(job["checkpoint"])
    spec = checkpoint.export_spec("")
    module: Any = Deployed(checkpoint.model, spec.mean, spec.std)
    if job["compiled"]:
        module = torch.compile(module)

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return module(torch.from_numpy(pixels))["embedding"].numpy()

    return run


def _openvino(job: Job) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(job["file"])
    model.reshape([1, *job["input"]])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": job["threads"]}
    if job["precision"]:
        settings["INFERENCE_PRECISION_HINT"] = job["precision"]
    compiled = core.compile_model(model, "CPU", settings)
    chosen = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if chosen != (job["precision"] or "bf16"):
        raise RuntimeError(f"OpenVINO computes in {chosen} on this processor")
    return lambda pixels: compiled(pixels)[0]


def _ncnn(job: Job) -> Run:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = job["threads"]
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(f"{job['file']}.param") or net.load_model(f"{job['file']}.bin"):
        raise RuntimeError("ncnn has no counterpart of a layer that pnnx wrote")
    height, width, _ = job["input"]

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        extractor = net.create_extractor()
        planes = ncnn.Mat.from_pixels(pixels[0], ncnn.Mat.PixelType.PIXEL_RGB, width, height)
        extractor.input("in0", planes)
        return np.array(extractor.extract("out0")[1])[None]

    return run


def to_ncnn(checkpoint_folder: Path, folder: Path) -> Path:
    """A checkpoint's model for ncnn, by pnnx; the benchmark calls it once, the worker never.

    Writes `model.ncnn.param` and `model.ncnn.bin` into `folder`; returns their common stem.

    The input `in0` is float planes of 0 to 255, R, G, B; the output `out0` is the unit vector.
    Raises `RuntimeError` where pnnx fails.
    """
    import pnnx
    import torch
    from torch import Tensor, nn

    from samespace_cloud.checkpoint import Checkpoint
    from samespace_export._deployed import EPSILON

    checkpoint = Checkpoint.load(checkpoint_folder)
    spec = checkpoint.export_spec("")

    class Planar(nn.Module):
        """What `Deployed` computes, in operations that ncnn has."""

        def __init__(self) -> None:
            super().__init__()
            self.module = checkpoint.model
            self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(1, 3, 1, 1))
            self.register_buffer("scale", 1 / (255 * torch.tensor(spec.std).view(1, 3, 1, 1)))

        def forward(self, image: Tensor) -> Tensor:
            y = self.module((image - self.mean) * self.scale)
            return nn.functional.normalize(y, dim=1, eps=EPSILON)

    height, width = spec.resize.height, spec.resize.width
    example = torch.zeros(1, 3, height, width)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of TorchScript, which is what pnnx reads
        # Exported first, which makes constants of all sizes: pnnx rounds -(-size // 2), which is
        # in the padding, the wrong way where the size is odd.
        exported = torch.export.export(Planar().eval(), (example,)).module()
        torch.jit.trace(exported, example).save(folder / "model.pt")
    command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,3,{height},{width}]", "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode or not (folder / "model.ncnn.bin").exists():
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise RuntimeError(f"pnnx ended with code {done.returncode}: {''.join(said)}")
    return folder / "model.ncnn"


# By name of the loader: what is imported before the clock starts, and what loads the graph.
LOADERS: dict[str, tuple[Sequence[str], Callable[[Job], Run]]] = {
    "samespace": (("samespace_edge",), _samespace),
    "onnxruntime": (("onnxruntime",), _onnxruntime),
    "ai_edge_litert": (("ai_edge_litert.interpreter",), _litert),
    "torch": (("torch", "samespace_cloud.checkpoint"), _torch),
    "openvino": (("openvino",), _openvino),
    "ncnn": (("ncnn",), _ncnn),
}


def peak_mib() -> float:
    """Largest resident memory of this process so far (see benchmarks/open.py)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def load(job: Job, pictures: Sequence[NDArray[np.uint8]]) -> tuple[Run, dict[str, Any]]:
    """The loaded graph; and what it took, with the pictures' vectors."""
    start_mib = peak_mib()
    modules, loader = LOADERS[job["loader"]]
    runtime = LOADERS[job["runtime"]][0] if job["loader"] == "samespace" else ()
    for module in (*modules, *runtime):
        importlib.import_module(module)
    started = time.perf_counter()
    run = loader(job)
    run(pictures[0])
    load_ms = 1e3 * (time.perf_counter() - started)
    vectors = np.concatenate([run(picture).copy() for picture in pictures])
    return run, {"load_ms": load_ms, "start_mib": start_mib, "vectors": vectors.tolist()}


def burst(run: Run, pictures: Sequence[NDArray[np.uint8]], calls: int) -> dict[str, Any]:
    """Times of `calls` calls, and the processor time of all threads for one."""
    for i in range(_WARM_UP):
        run(pictures[i % len(pictures)])
    times = []
    cpu = time.process_time()
    for i in range(calls):
        picture = pictures[i % len(pictures)]
        started = time.perf_counter()
        run(picture)
        times.append(1e3 * (time.perf_counter() - started))
    return {"times_ms": times, "cpu_ms": 1e3 * (time.process_time() - cpu) / calls}


def main() -> None:
    job = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    pictures = [picture[None] for picture in np.load(job["pixels"])]
    try:
        run, loaded = load(job, pictures)
    except Exception as error:  # whatever it is, it is why there are no figures
        first = (str(error).strip() or "no message").splitlines()[0]
        answer({"error": f"{type(error).__name__}: {first}"})
        return
    answer(loaded)
    for line in sys.stdin:
        answer(burst(run, pictures, int(line)))
    answer({"peak_mib": peak_mib()})


if __name__ == "__main__":
    main()
