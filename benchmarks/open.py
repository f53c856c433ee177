"""How long until a gallery answers, and how much memory does it take?

    python -m benchmarks.open [--n 1000000]

Each size is opened in a process of its own, after a clean close and with the index beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from benchmarks._data import DIM, anchor, clustered
from benchmarks._result import write
from benchmarks.overhead import _gallery

COLUMNS = {
    "items": "vectors in the gallery",
    "add_seconds": "to add them, durably, in batches of 1,000, index built",
    "open_ms": "Gallery.open, checksum of the database included, ms",
    "first_query_ms": "the first query after that, index loaded, ms",
    "second_query_ms": "one more query, ms",
    "peak_mib": "largest resident memory of the process, MiB",
    "start_mib": "the same before opening, MiB",
    "disk_mib": "size of the gallery's folder, MiB",
}

_PROBE = """
    import json, sys, time
    import numpy as np
    from benchmarks._data import anchor, clustered
    from samespace.gallery import Gallery
    import faiss
    def peak():  # of this process alone: getrusage would count its parent's before it started
        status = open("/proc/self/status").read()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    queries = clustered(2, 9)
    before, start = peak(), time.perf_counter()
    gallery = Gallery.open(sys.argv[1])
    opened = time.perf_counter()
    gallery.search(vectors=queries[:1], model=anchor(), k=10)
    first = time.perf_counter()
    gallery.search(vectors=queries[1:], model=anchor(), k=10)
    second = time.perf_counter()
    print(json.dumps({"open_ms": (opened - start) * 1e3, "first_query_ms": (first - opened) * 1e3,
                      "second_query_ms": (second - first) * 1e3, "peak_mib": peak(),
                      "start_mib": before}))
"""


def measure(n: int, folder: Path) -> dict[str, Any]:
    x = clustered(n, 1)
    start = time.perf_counter()
    gallery = _gallery(folder / str(n), x, approximate_from=50_000)
    seconds = time.perf_counter() - start
    gallery.close()
    del x
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROBE), str(folder / str(n))],
        capture_output=True,
        text=True,
        check=True,
    )
    disk = sum(p.stat().st_size for p in (folder / str(n)).rglob("*") if p.is_file())
    return {
        "items": n,
        "add_seconds": seconds,
        **json.loads(done.stdout),
        "disk_mib": disk / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000, help="largest size")
    largest = parser.parse_args().n
    sizes = [n for n in (10_000, 100_000, 1_000_000) if n < largest] + [largest]
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(n, Path(folder)) for n in sizes]
    write("open", COLUMNS, rows, notes=[f"{DIM}-d unit vectors of {anchor().name}"])


if __name__ == "__main__":
    main()
