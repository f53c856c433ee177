"""Run every file of a bundle over the same pixels, and keep vectors and times.

    python -m samespace_edge x.bundle pixels.npy measured.npz [--runtime tflite_runtime]

on a device that has no more than this package; `samespace parity --from measured.npz` then says
what the device's vectors find.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samespace_edge._bundle import Bundle
from samespace_edge._embedder import Embedder
from samespace_edge._errors import BundleFormatError, ConfigError, RuntimeUnavailableError
from samespace_edge._runtimes import find_runtime

_WARM_UP, _TIMED = 20, 200


@dataclass(frozen=True)
class Measured:
    """What one file gave in one runtime.

    Attributes:
        variant_sha256: hash of the file, so that results cannot be taken for another bundle's.
        vectors: float32 unit vectors (N, D), in the order of the pixels.
        load_ms: time to load the graph.
        times_ms: times of one picture each, one thread, float64 (T,).
    """

    variant: str
    variant_sha256: str
    runtime: str
    vectors: NDArray[np.float32]
    load_ms: float
    times_ms: NDArray[np.float64]


def measure(bundle: Bundle, variant: str, runtime: str, pixels: NDArray[np.uint8]) -> Measured:
    """Run one file in one runtime, one thread, one picture at a time.

    Args:
        pixels: preprocessed pictures, uint8 RGB (N, H, W, 3).

    Raises `ConfigError` for pixels that are not the model's input, and the errors of `Embedder`.
    """
    resize = bundle.manifest.resize
    expected = (resize.height, resize.width, 3)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != expected:
        raise ConfigError(
            f"{bundle.manifest.name} takes uint8 pixels (N, {', '.join(map(str, expected))}), "
            f"not {pixels.dtype} {pixels.shape}"
        )
    started = time.perf_counter()
    # Measured, and not refused: a report says how far a departing file is off.
    embedder = Embedder(bundle, variant=variant, runtime=runtime, check=False)
    load_ms = 1e3 * (time.perf_counter() - started)
    vectors = np.concatenate([embedder.embed_pixels(row[None]) for row in pixels])
    times = []
    for i in range(_WARM_UP + _TIMED):
        row = pixels[i % len(pixels)][None]
        started = time.perf_counter()
        embedder.embed_pixels(row)
        times.append(1e3 * (time.perf_counter() - started))
    sha256 = embedder.variant.sha256
    return Measured(variant, sha256, runtime, vectors, load_ms, np.array(times[_WARM_UP:]))


def save_measured(results: Iterable[Measured], path: str | Path) -> None:
    """Write results to an `.npz`, without pickle."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for r in results:
        key = f"{r.variant}/{r.variant_sha256}/{r.runtime}"
        arrays[f"{key}/vectors"] = r.vectors
        arrays[f"{key}/times_ms"] = r.times_ms
        arrays[f"{key}/load_ms"] = np.array(r.load_ms)
    with Path(path).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_measured(path: str | Path) -> list[Measured]:
    """Read what `save_measured` wrote; raises `BundleFormatError`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys = sorted({name.rsplit("/", 1)[0] for name in arrays.files})
            return [_measured(key, arrays) for key in keys]
    except (OSError, ValueError, KeyError) as error:
        raise BundleFormatError(
            f"{path} is not what 'python -m samespace_edge' writes: {error}"
        ) from None


def _measured(key: str, arrays: np.lib.npyio.NpzFile) -> Measured:
    variant, sha256, runtime = key.split("/")
    return Measured(
        variant,
        sha256,
        runtime,
        arrays[f"{key}/vectors"],
        float(arrays[f"{key}/load_ms"]),
        arrays[f"{key}/times_ms"],
    )


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m samespace_edge", description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("pixels", help="uint8 (N, H, W, 3) .npy, from samespace parity --pixels")
    parser.add_argument("out", help="the .npz to write")
    parser.add_argument("--runtime", help="by default, for every file, the best that is installed")
    asked = parser.parse_args(arguments)
    bundle = Bundle.open(asked.bundle)
    pixels = np.load(asked.pixels, allow_pickle=False)
    results = []
    for variant, runtime in _runs(bundle, asked.runtime):
        result = measure(bundle, variant, runtime, pixels)
        print(f"{variant} in {runtime}: {np.median(result.times_ms):.2f} ms", flush=True)
        results.append(result)
    if not results:
        raise RuntimeUnavailableError(f"nothing of {bundle.manifest.name} runs here")
    save_measured(results, asked.out)


def _runs(bundle: Bundle, runtime: str | None) -> Iterator[tuple[str, str]]:
    for variant in bundle.manifest.variants:
        if runtime is None:
            try:
                yield variant.name, Embedder(bundle, variant=variant.name, check=False).runtime
            except RuntimeUnavailableError as error:
                print(f"{variant.name}: not run: {error}")
        elif find_runtime(runtime).format == variant.format:
            yield variant.name, runtime
