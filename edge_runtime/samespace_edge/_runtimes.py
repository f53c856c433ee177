"""What can run a graph file. A new runtime is one row of `RUNTIMES` and one function."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from samespace_edge._errors import BundleFormatError, RuntimeUnavailableError


class Runtime(Protocol):
    """A loaded graph."""

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, H, W, 3) to float32 unit vectors (N, D)."""


class _OnnxRuntime:
    def __init__(self, graph: bytes, threads: int, providers: Sequence[str]) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(graph, options, providers=list(providers))
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise BundleFormatError(f"onnxruntime cannot load the graph: {error}") from None
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return output


RUNTIMES: dict[str, tuple[str, str, Callable[[bytes, int, Sequence[str]], Any]]] = {
    # name in the manifest: (module that has to be installed, extra that installs it, loader)
    "onnxruntime": ("onnxruntime", "onnx", _OnnxRuntime),
}


def load_runtime(name: str, graph: bytes, threads: int, providers: Sequence[str]) -> Runtime:
    """Load `graph` into the runtime called `name`.

    Raises `RuntimeUnavailableError` where that runtime is unknown or not installed.
    """
    if name not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise RuntimeUnavailableError(f"this version has no runtime {name!r}; it has: {known}")
    module, extra, loader = RUNTIMES[name]
    if importlib.util.find_spec(module) is None:
        raise RuntimeUnavailableError(
            f'{module} is not installed: pip install "samespace[{extra}]"'
        )
    loaded: Runtime = loader(graph, threads, providers)
    return loaded
