"""Visits to the page in a real Chromium; the scenarios are in page.mjs and access.mjs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from samespace.service._page import WEB
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
LACKING = [
    what
    for what, there in (
        ("node", shutil.which("node")),
        (CHROMIUM, shutil.which(CHROMIUM)),
        ("axe-core", (ROOT / "edge_runtime/web/node_modules/axe-core").exists()),
        ("the page's scripts", (WEB / "vendor").exists()),
    )
    if not there
]
needs_browser = pytest.mark.skipif(
    bool(LACKING), reason=f"no {', no '.join(LACKING)}: 'make test-web' runs this"
)

Seen = dict[str, Any]


def visit(what: str, *steps: Callable[[Seen], object], **given: Any) -> Seen:
    """What a scenario saw. Where it waits, the next of `steps` is done, with what it saw so far."""
    words = ["node", str(Path(__file__).with_name("page.mjs")), what, json.dumps(given)]
    with _running(words) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        for step in steps:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            step(json.loads(line))
            process.stdin.write("go on\n")
            process.stdin.flush()
        out, problems = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, problems
    found: Seen = json.loads(out)
    return found


@contextlib.contextmanager
def _running(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CHROMIUM": CHROMIUM},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
