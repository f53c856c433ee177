"""How much do a device's environment, the demo's and the tests' take, and how long until they work?

    python -m benchmarks.install_size

Clones the last commit, runs `make demo` there until it shows its first progress, and `make setup`.
Then it makes a fresh virtual environment per runtime, installs the clone with the runtime's extra,
and runs a small bundle in it. Everything comes from the package index. That takes four minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._result import write

COLUMNS = {
    "extra": 'what is installed: pip install "samespace[EXTRA]"; demo and dev: by make, of a clone',
    "runtime": "what runs the bundle; null where that is not measured",
    "mib": "added to an empty environment, numpy and Pillow included, MiB",
    "packages": "how many packages that is",
    "install_s": "from nothing until it is installed, downloads included, s; dev: after the demo's",
    "first_progress_s": "demo: from before 'git clone' to the first line of progress, s; else null",
    "import_ms": "import samespace_edge in a fresh process, median of 5, ms; null: not measured",
    "first_vector_ms": "from starting Python to the first vector, median of 5, ms; or null",
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
    how: dict[str, Any] = {"check": True, "capture_output": True, "text": True, "env": environ()}
    runs = [subprocess.run(command, **how) for _ in range(6)]
    return statistics.median(float(run.stdout) for run in runs[1:])


def measure(
    folder: Path, extra: str, runtime: str, constraints: str, bundle: Path, file: str
) -> dict[str, Any]:
    environment = folder / extra
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    empty = size(packages_of(environment))
    install = [python, "-m", "pip", *_PIP, "install", "-c", str(folder / _CLONE / constraints)]
    subprocess.run([*install, f"{folder / _CLONE}[{extra}]"], check=True, env=environ())
    seconds = time.monotonic() - start
    return {
        "extra": extra,
        "runtime": runtime,
        "mib": size(packages_of(environment)) - empty,
        "packages": count(environment),
        "install_s": seconds,
        "first_progress_s": None,
        "import_ms": median([python, "-c", _IMPORT]),
        "first_vector_ms": median([python, "-c", _STARTED, _FIRST, str(bundle), file]),
    }


def measure_clone(folder: Path) -> list[dict[str, Any]]:
    """What `make demo` installs in a clone of the last commit, and then `make setup`."""
    empty = folder / "empty"
    subprocess.run([sys.executable, "-m", "venv", str(empty)], check=True)
    clone = folder / _CLONE
    made = clone / ".venv"
    start = time.monotonic()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    with subprocess.Popen(
        ["make", "demo"],
        cwd=clone,
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        installed = first = 0.0
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(_DEMO):
                installed = time.monotonic() - start
            elif installed and line.endswith(" left\n"):
                first = time.monotonic() - start
                break
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
    if not first:
        raise RuntimeError("'make demo' ended without progress")
    rows = [_of_clone("demo", made, empty, installed, first)]
    start = time.monotonic()
    subprocess.run(["make", "setup"], cwd=clone, env=environ(), check=True)
    return [*rows, _of_clone("dev", made, empty, time.monotonic() - start, None)]


def _of_clone(
    extra: str, made: Path, empty: Path, seconds: float, first: float | None
) -> dict[str, Any]:
    return {
        "extra": extra,
        "runtime": None,
        "mib": size(packages_of(made)) - size(packages_of(empty)),
        "packages": count(made),
        "install_s": seconds,
        "first_progress_s": first,
        "import_ms": None,
        "first_vector_ms": None,
    }


def packages_of(environment: Path) -> Path:
    return next((environment / "lib").glob("python*")) / "site-packages"


def count(environment: Path) -> int:
    """How many packages were installed; those that every environment has are not counted."""
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    how: dict[str, Any] = {"check": True, "capture_output": True, "env": environ()}
    found = subprocess.run([*pip, "list", "--format=json"], **how)
    return len([p for p in json.loads(found.stdout) if p["name"] not in _GIVEN])


def environ() -> dict[str, str]:
    """Everything is downloaded, and this checkout's packages are not seen."""
    return {k: v for k, v in os.environ.items() if k not in _OWN} | {"PIP_NO_CACHE_DIR": "1"}


_CLONE = "clone"
_GIVEN = {"pip", "setuptools", "wheel"}
_PIP = ["--disable-pip-version-check", "-qq"]
_OWN = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")
_DEMO = ".venv/bin/samespace demo"  # as make prints what it runs


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = folder / "small.bundle"
        make = [sys.executable, "-m", "tests.make_bundle", str(bundle), "onnx-fp32", "tflite-fp32"]
        subprocess.run(make, check=True, cwd=ROOT)
        by_make = measure_clone(folder)
        rows = [
            measure(folder, extra, runtime, constraints, bundle, file)
            for extra, runtime, constraints, file in ENVIRONMENTS
        ]
        rows += by_make
    write("install_size", COLUMNS, rows)


if __name__ == "__main__":
    main()
