"""Does all of it pass from nothing: the demo in full, and everything that `.ci/run` runs?

    make nightly      (python -m benchmarks.nightly)

Clones the last commit, runs `make demo` and then `.ci/run` there, and writes down how each step
ended. Takes an hour or two. It exits with 1 if a step failed; the steps after that are not run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks._result import write
from benchmarks.install_size import environ

COLUMNS = {
    "step": "what was run; the installation is in the first step that needs it",
    "commit": "of the clone that it was run in",
    "minutes": "from its start to its end",
    "is_ok": "whether it ended with exit code 0",
    "passed": "tests that passed; null if the step has none",
    "failed": "tests that failed, errors included; null if the step has none",
    "skipped": "tests that were left out; null if the step has none",
}
ROOT = Path(__file__).parent.parent
_STEP = re.compile(r"== (make [a-z-]+)\n")  # as .ci/run announces them
_PYTEST = re.compile(r"(?:=+ )?(?:\d+ [a-z]+, )*\d+ [a-z]+ in [\d.]+s\b.*\n")
_NODE = re.compile(r"ℹ (pass|fail|cancelled|skipped) (\d+)\n")
_KINDS = {
    "pass": "passed",
    "fail": "failed",
    "error": "failed",
    "errors": "failed",
    "cancelled": "failed",
}


def counts(lines: Iterable[str]) -> dict[str, int | None]:
    """How many tests passed, failed and were skipped, as pytest and Node print it at their end."""
    found: dict[str, int | None] = dict.fromkeys(("passed", "failed", "skipped"))
    for line in lines:
        said = [(word, n) for n, word in re.findall(r"(\d+) ([a-z]+)", line)]
        if node := _NODE.fullmatch(line):
            said = [(node[1], node[2])]
        elif not _PYTEST.fullmatch(line):
            continue
        found = {kind: n or 0 for kind, n in found.items()}
        for word, n in said:
            kind = _KINDS.get(word, word)
            if kind in found:
                found[kind] = (found[kind] or 0) + int(n)
    return found


def run(command: list[str], clone: Path, step: str, commit: str) -> list[dict[str, Any]]:
    """Run a command, show what it prints, and return a row for each step that it announces."""
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    start = time.monotonic()

    def end(is_ok: bool) -> None:
        minutes = round((time.monotonic() - start) / 60, 1)
        row = {"step": step, "commit": commit, "minutes": minutes, "is_ok": is_ok}
        rows.append(row | counts(lines))

    with subprocess.Popen(
        command,
        cwd=clone,
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            if next_ := _STEP.fullmatch(line):
                end(is_ok=True)
                step, lines, start = next_[1], [], time.monotonic()
            lines.append(line)
    end(is_ok=process.returncode == 0)
    return rows


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "samespace"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        head = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(head, cwd=clone, check=True, stdout=subprocess.PIPE, text=True)
        sha = commit.stdout.strip()
        rows = run(["make", "demo"], clone, "make demo", sha)
        if rows[-1]["is_ok"]:
            rows += run([".ci/run"], clone, ".ci/run: its tools", sha)
    write("nightly", COLUMNS, rows)
    return 0 if rows[-1]["is_ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
