"""What a clone installs and runs by make, and what is written down of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.nightly import counts, run

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
INSTALL = ROOT / "benchmarks" / "results" / "install_size.json"


@pytest.fixture(scope="module")
def installed() -> dict[str, dict[str, Any]]:
    return {row["extra"]: row for row in json.loads(INSTALL.read_text())["rows"]}


def test_make_says_how_large_it_is_as_it_was_measured(installed: dict[str, Any]) -> None:
    demo, dev = installed["demo"]["mib"], installed["dev"]["mib"]
    said = [float(n) for n in re.findall(r"@echo .*: ([\d.]+) GiB", MAKEFILE)]
    assert said == [round(demo / 1024, 1), round((dev - demo) / 1024, 1)]


def test_the_demo_stays_small_and_shows_something_soon(installed: dict[str, Any]) -> None:
    """As it was measured: `python -m benchmarks.install_size`."""
    assert installed["demo"]["mib"] < 1.3 * 1024
    assert installed["demo"]["first_progress_s"] < 180


def closure(extra: str) -> set[str]:
    """What an extra asks for by name, through the other extras that it takes."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    for line in extras["optional-dependencies"][extra]:
        needed = Requirement(line)
        if needed.name == "samespace":
            found |= {name for e in needed.extras for name in closure(e)}
        else:
            found.add(canonicalize_name(needed.name))
    return found


def test_all_that_the_demo_and_the_tests_ask_for_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(x.split("==")[0]) for x in lines if "==" in x}
    assert closure("demo") < closure("dev")
    assert closure("dev") <= pinned


def test_ci_runs_what_make_knows() -> None:
    (targets,) = re.findall(r"for target in (.*); do", (ROOT / ".ci" / "run").read_text())
    known = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert set(targets.split()) == {"test", "lint"} | {t for t in known if t.startswith("test-")}


# the nightly run


def test_tests_are_counted_as_their_runners_print_them() -> None:
    assert counts(["......... [100%]\n", "make: done\n"]) == dict.fromkeys(
        ("passed", "failed", "skipped")
    )
    pytests = [
        "SKIPPED [4] tests/cloud/test_linear_device.py:12: needs a CUDA device\n",
        "1 failed, 527 passed, 4 skipped in 257.55s (0:04:17)\n",
        "28 passed, 1 deselected, 2 errors in 118.95s (0:01:58)\n",
    ]
    assert counts(pytests) == {"passed": 555, "failed": 3, "skipped": 4}
    nodes = [
        f"ℹ {word} {n}\n" for word, n in (("tests", 9), ("pass", 7), ("fail", 0), ("skipped", 2))
    ]
    assert counts(nodes) == {"passed": 7, "failed": 0, "skipped": 2}


def test_every_step_has_a_row_and_the_one_that_fails_is_the_last(tmp_path: Path) -> None:
    program = (
        "print('apt'); print('== make test'); print('3 passed in 0.10s'); print('== make lint')"
    )
    command = [sys.executable, "-c", f"{program}; raise SystemExit(2)"]
    rows = run(command, tmp_path, "tools", "abc")
    assert [(r["step"], r["is_ok"], r["passed"]) for r in rows] == [
        ("tools", True, None),
        ("make test", True, 3),
        ("make lint", False, None),
    ]
    assert {r["commit"] for r in rows} == {"abc"}


def test_what_pip_warns_of_is_not_shown_and_its_errors_are() -> None:
    (options,) = re.findall(r"^PIP_OPTIONS := (.*)$", MAKEFILE, re.MULTILINE)
    where = ["--isolated", "--index-url", "file:///nowhere/simple", "no-package-of-anybody"]
    shown = []
    for quiet in (["-q"], options.split()):
        pip = [sys.executable, "-m", "pip", *quiet, "install", *where]
        done = subprocess.run(pip, capture_output=True, text=True)
        assert done.returncode == 1
        shown.append(done.stderr)
    assert all("ERROR: No matching distribution found for no-package" in said for said in shown)
    assert ["WARNING: Location 'file:///nowhere" in said for said in shown] == [True, False]
