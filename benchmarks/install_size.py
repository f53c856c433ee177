"""How much does an edge-only environment take, and how long until the first vector?

    python -m benchmarks.install_size

Makes a fresh virtual environment per runtime (some minutes, from the package index), installs this
package with the runtime's extra, and runs a small bundle in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._result import write

COLUMNS = {
    "extra": 'what is installed: pip install "samespace[EXTRA]"',
    "runtime": "what runs the bundle",
    "mib": "added to an empty environment, numpy and Pillow included, MiB",
    "packages": "how many packages that is",
    "import_ms": "import samespace_edge in a fresh process, median of 5, ms",
    "first_vector_ms": "from starting Python to the first vector, median of 5, ms",
}
ROOT = Path(__file__).parent.parent
# extra, runtime, constraints, file to run
ENVIRONMENTS = (
    ("onnx", "onnxruntime", "constraints.txt", "onnx-fp32"),
    ("litert", "ai_edge_litert", "constraints.txt", "tflite-fp32"),
    ("tflite-runtime", "tflite_runtime", "constraints-tflite.txt", "tflite-fp32"),
)
_IMPORT = """
import time
start = time.perf_counter()
import samespace_edge
print(1e3 * (time.perf_counter() - start))
"""
_FIRST = """
import sys, time
import numpy as np
from samespace_edge import Embedder
embedder = Embedder(sys.argv[1], variant=sys.argv[2])
embedder.embed(np.zeros((64, 64, 3), np.uint8))
print(1e3 * (time.time() - float(sys.argv[3])))
"""
_STARTED = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2], sys.argv[3], str(time.time())],
               check=True)
"""


def size(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**20


def median(command: list[str]) -> float:
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(6)]
    return statistics.median(float(run.stdout) for run in runs[1:])


def measure(
    folder: Path, extra: str, runtime: str, constraints: str, bundle: Path, file: str
) -> dict[str, Any]:
    environment = folder / extra
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    packages = next((environment / "lib").glob("python*")) / "site-packages"
    empty = size(packages)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "-q", "-c", str(ROOT / constraints), f"{ROOT}[{extra}]"]
    subprocess.run(install, check=True)
    added = size(packages) - empty
    listed = subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True)
    return {
        "extra": extra,
        "runtime": runtime,
        "mib": added,
        # Those that every environment has are not counted.
        "packages": len([p for p in json.loads(listed.stdout) if p["name"] not in _GIVEN]),
        "import_ms": median([python, "-c", _IMPORT]),
        "first_vector_ms": median([python, "-c", _STARTED, _FIRST, str(bundle), file]),
    }


_GIVEN = {"pip", "setuptools", "wheel"}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = folder / "small.bundle"
        make = [sys.executable, "-m", "tests.make_bundle", str(bundle), "onnx-fp32", "tflite-fp32"]
        subprocess.run(make, check=True, cwd=ROOT)
        rows = [
            measure(folder, extra, runtime, constraints, bundle, file)
            for extra, runtime, constraints, file in ENVIRONMENTS
        ]
    write("install_size", COLUMNS, rows)


if __name__ == "__main__":
    main()
