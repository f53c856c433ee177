"""Run a program as on a processor with AVX2 alone, where this one can be made to look so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from samespace_edge import instruction_set

SOURCE = Path(__file__).with_suffix(".c")


@cache
def environment() -> dict[str, str] | str:
    """Return the variables to set, or why it cannot be done here.

    Nothing has to be set where the processor has AVX2 alone.
    """
    names = instruction_set().split()
    if names[0] != "x86_64" or "AVX2" not in names:
        return f"{instruction_set()} is no x86-64 processor with AVX2"
    if not {"AVX-512", "VNNI", "BF16", "AMX"}.intersection(names):
        return {}
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return "hiding instruction sets needs a C compiler (Debian: apt-get install gcc)"
    library = Path(mkdtemp(prefix="samespace-older-")) / "older_processor.so"
    build = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(build, check=True)
    variables = {"LD_PRELOAD": str(library)}
    tried = subprocess.run(
        [sys.executable, "-c", ""], env={**os.environ, **variables}, capture_output=True, text=True
    )
    return variables if tried.returncode == 0 else tried.stderr.strip()


def run(arguments: Sequence[str], variables: dict[str, str]) -> str:
    """Run Python with these arguments and variables; return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        cwd=SOURCE.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout
