"""What can run a graph file. A new runtime is one row of `RUNTIMES` and one class.

Runtimes that other packages bring are found through the entry-point group `samespace.runtimes`;
each entry is a `RuntimeKind`. They run only when they are asked for by name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from samespace_edge._errors import BundleFormatError, ConfigError, RuntimeUnavailableError
from samespace_edge._lent import Lent

Graph: TypeAlias = bytes | Path
"""A graph file's content, or the folder of a graph that is a folder (a Core ML package)."""

INPUT, OUTPUT = "image", "embedding"
"""Names of the input and the output in every graph file."""


class Runtime(Protocol):
    """A loaded graph. Any number of threads may call it at the same time."""

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, H, W, 3) to float32 unit vectors (N, D)."""


class _OnnxRuntime:
    """onnxruntime. Its sessions take calls of several threads at the same time by themselves."""

    def __init__(self, graph: Graph, threads: int, providers: Sequence[str]) -> None:
        import onnxruntime as ort

        if missing := sorted(set(providers) - set(ort.get_available_providers())):
            raise RuntimeUnavailableError(
                f"this onnxruntime has no provider {', '.join(missing)}; it has: "
                + ", ".join(ort.get_available_providers())
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                graph, options, providers=list(providers) or ["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise BundleFormatError(f"onnxruntime cannot load the graph: {error}") from None
        _names([i.name for i in self._session.get_inputs()], INPUT, "input")
        _names([o.name for o in self._session.get_outputs()], OUTPUT, "output")

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: batch})[0]
        return output


class _TFLite:
    """LiteRT, under its present and its former name. Its XNNPACK delegate is built for one batch
    size, so pictures go through one by one.

    An interpreter is one buffer for the input, one for the output, and no lock: a second thread
    would overwrite the picture of the first. So every call borrows an interpreter for itself.
    """

    def __init__(self, module: str, graph: Graph, threads: int, providers: Sequence[str]) -> None:
        if providers:
            raise ConfigError(f"{module} takes no providers; it has {', '.join(providers)}")
        self._module, self._graph, self._threads = module, graph, threads
        # More of them than processors would only wait for one another.
        self._interpreters = Lent(self._load, max(1, _processors() // threads))
        self._interpreters.call(self._look)  # here, so that a bad graph fails at loading

    def _look(self, interpreter: Any) -> None:
        (signature,) = interpreter.get_signature_list().values()
        _names(signature["inputs"], INPUT, "input")
        _names(signature["outputs"], OUTPUT, "output")
        # By index: a signature runner looks everything up by name in every call.
        self._input = interpreter.get_input_details()[0]["index"]
        self._output = interpreter.get_output_details()[0]["index"]

    def _load(self) -> Any:
        interpreter = importlib.import_module(f"{self._module}.interpreter").Interpreter
        try:
            loaded = interpreter(model_content=self._graph, num_threads=self._threads)
            loaded.allocate_tensors()
            signatures = loaded.get_signature_list()
            if len(signatures) != 1:
                raise ValueError(f"{len(signatures)} signatures where one is expected")
        except (RuntimeError, ValueError, TypeError) as error:
            raise BundleFormatError(f"{self._module} cannot load the graph: {error}") from None
        return loaded

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._interpreters.call(
            lambda own: np.concatenate([self._one(own, row) for row in batch])
        )

    def _one(self, interpreter: Any, row: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(self._input, row[None])
        interpreter.invoke()
        vector: NDArray[np.float32] = interpreter.get_tensor(self._output)
        return vector


class _CoreML:
    """Core ML through coremltools: macOS only. Not run in this project's checks, which have no
    Mac; there the saved program is interpreted (see samespace_export).

    Apple allows an `MLModel` to one thread at a time, so calls take turns, picture by picture.
    """

    def __init__(self, graph: Graph, threads: int, providers: Sequence[str]) -> None:
        import coremltools as ct

        names = list(providers) or ["ALL"]
        if len(names) != 1 or names[0] not in ct.ComputeUnit.__members__:
            raise ConfigError(
                f"Core ML takes one of {', '.join(ct.ComputeUnit.__members__)} as its provider, "
                f"not {', '.join(names)}"
            )
        # Threads are Core ML's own affair.
        self._turn = threading.Lock()
        self._model = ct.models.MLModel(str(graph), compute_units=ct.ComputeUnit[names[0]])

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate([self._one(row) for row in batch])

    def _one(self, row: NDArray[np.uint8]) -> NDArray[np.float32]:
        from PIL import Image

        with self._turn:
            vector = self._model.predict({INPUT: Image.fromarray(row)})[OUTPUT]
            return np.array(vector, np.float32).reshape(1, -1)


def _processors() -> int:
    """How many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class RuntimeKind:
    """One row of the table of runtimes.

    Attributes:
        format: the graph files it runs: `onnx`, `tflite` or `coreml`.
        module: what has to be importable.
        extra: what installs it, as in `pip install "samespace[extra]"`.
        load: makes a `Runtime` of a graph, a number of threads and provider names.
        platform: the only `sys.platform` it runs on; None where it runs anywhere.
        proves: what a figure from this runtime says, where that is not "the device's own result".
    """

    format: str
    module: str
    extra: str
    load: Callable[[Graph, int, Sequence[str]], Runtime]
    platform: str | None = None
    proves: str | None = None

    def missing(self) -> str | None:
        """Why it cannot run here, and what to do; None if it can."""
        if self.platform and sys.platform != self.platform:
            return f"{self.module} runs Core ML packages on macOS only"
        if importlib.util.find_spec(self.module) is None:
            return f'{self.module} is not installed: pip install "samespace[{self.extra}]"'
        return None


def _litert(graph: Graph, threads: int, providers: Sequence[str]) -> Runtime:
    return _TFLite("ai_edge_litert", graph, threads, providers)


def _tflite_runtime(graph: Graph, threads: int, providers: Sequence[str]) -> Runtime:
    major = int(np.__version__.split(".")[0])
    if major >= 2:
        raise RuntimeUnavailableError(
            f"tflite-runtime was built for numpy 1 and cannot run beside numpy {np.__version__}; "
            'use ai-edge-litert (pip install "samespace[litert]"), or an environment with numpy<2'
        )
    return _TFLite("tflite_runtime", graph, threads, providers)


# In the order in which they are preferred.
RUNTIMES: dict[str, RuntimeKind] = {
    "onnxruntime": RuntimeKind("onnx", "onnxruntime", "onnx", _OnnxRuntime),
    "ai_edge_litert": RuntimeKind("tflite", "ai_edge_litert", "litert", _litert),
    "tflite_runtime": RuntimeKind("tflite", "tflite_runtime", "tflite-runtime", _tflite_runtime),
    "coremltools": RuntimeKind("coreml", "coremltools", "coreml", _CoreML, platform="darwin"),
}


def find_runtime(name: str) -> RuntimeKind:
    """The runtime called `name`; raises `RuntimeUnavailableError` with the names that are known."""
    if name in RUNTIMES:
        return RUNTIMES[name]
    brought = entry_points(group="samespace.runtimes")
    if name in brought.names:
        kind: RuntimeKind = brought[name].load()
        return kind
    known = ", ".join([*RUNTIMES, *sorted(brought.names)])
    raise RuntimeUnavailableError(f"this version has no runtime {name!r}; it has: {known}")


def runtimes_for(format_: str) -> dict[str, RuntimeKind]:
    """The runtimes that run `format_`, best first, installed or not; other packages' come last."""
    names = [*RUNTIMES, *sorted(entry_points(group="samespace.runtimes").names)]
    kinds = {name: find_runtime(name) for name in names}
    return {name: kind for name, kind in kinds.items() if kind.format == format_}


def load_runtime(name: str, graph: Graph, threads: int, providers: Sequence[str]) -> Runtime:
    """Load `graph` into the runtime called `name`.

    Raises `RuntimeUnavailableError` where that runtime is unknown or cannot run here.
    """
    kind = find_runtime(name)
    if missing := kind.missing():
        raise RuntimeUnavailableError(missing)
    return kind.load(graph, threads, providers)


def _names(found: Any, expected: str, what: str) -> None:
    if list(found) != [expected]:
        raise BundleFormatError(
            f"the graph's {what} is called {', '.join(found)}; a bundle's is {expected!r}"
        )
