"""The command line as it is called: output, JSON, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samespace import Dataset

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def samespace(tmp_path: Path) -> Run:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from samespace.cli import main; main()"]
        return subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path
        )

    return run


COMMANDS = [
    ["demo"],
    ["data", "check"],
    ["train", "cloud"],
    ["train", "edge"],
    ["train", "together"],
    ["export"],
    ["bundle", "check"],
    ["bundle", "show"],
    ["cluster"],
    ["embed"],
    ["gallery", "create"],
    ["gallery", "admit"],
    ["gallery", "add"],
    ["gallery", "correct-hubs"],
    ["gallery", "search"],
    ["gallery", "stats"],
    ["gallery", "export"],
    ["regressions"],
    ["verify"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_and_speaks_json(command: list[str], samespace: Run) -> None:
    done = samespace(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert "--json" in done.stdout
    assert f"samespace {' '.join(command)}" in done.stdout


def test_root_help_lists_commands_and_exit_codes(samespace: Run) -> None:
    text = samespace("--help").stdout
    for command in {c[0] for c in COMMANDS}:
        assert command in text
    assert "Exit codes: 0 done" in text


def test_the_whole_way(
    samespace: Run, bundles: dict[str, Path], shop_csv: Path, shop: Dataset, tmp_path: Path
) -> None:
    cloud, edge, poor = (bundles[n] for n in ("cloud", "edge", "poor"))
    checked = samespace("data", "check", shop_csv, "--json")
    assert json.loads(checked.stdout)["pictures"]["queries"] == 32
    assert samespace("bundle", "check", edge).returncode == 0
    shown = json.loads(samespace("bundle", "show", edge, "--json").stdout)
    assert shown["name"] == "edge"

    query = shop_csv.parent / shop.queries[0].path
    embedded = json.loads(samespace("embed", edge, query, "--json").stdout)
    assert np.linalg.norm(embedded["vectors"][0]["vector"]) == pytest.approx(1)
    assert samespace("embed", edge, query, query, "--out", "v.npz").returncode == 0
    with np.load(tmp_path / "v.npz", allow_pickle=False) as data:
        assert data["vectors"].shape == (2, 24)

    assert samespace("gallery", "create", "shop", "--anchor", cloud).returncode == 0
    added = samespace("gallery", "add", "shop", "--data", shop_csv, "--bundle", cloud)
    assert "16 added" in added.stdout
    refused = samespace("gallery", "search", "shop", query, "--bundle", edge)
    assert refused.returncode == 3
    assert "no certificate proves it" in refused.stderr
    assert "Traceback" not in refused.stderr

    arguments = ["--query", edge, "--gallery", cloud, "--data", shop_csv]
    failed = samespace("verify", *arguments, "--gate")
    assert failed.returncode == 1
    assert "NOT compatible" in failed.stdout
    more = ["--prefix", 12, "--prefix", 2, "--out", "out", "--gate"]
    passed = samespace("verify", *arguments, "--baseline", poor, *more)
    assert passed.returncode == 0, passed.stdout
    assert "first 2\tless full [95 %]\tfirst 12" in passed.stdout
    for name in ("report.json", "report.html", "report.md"):
        assert (tmp_path / "out" / name).exists()
    (certificate,) = (tmp_path / "out").glob("*.certificate.json")

    assert samespace("gallery", "admit", "shop", certificate).returncode == 0
    found = samespace("gallery", "search", "shop", query, "--bundle", edge, "-k", 2, "--json")
    hits = json.loads(found.stdout)[0]["hits"]
    assert hits[0]["payload"]["label"] == shop.queries[0].label
    filtered = samespace(
        "gallery", "search", "shop", query, "--bundle", edge, "--where", '{"aisle": "1"}', "--json"
    )
    assert {h["payload"]["aisle"] for h in json.loads(filtered.stdout)[0]["hits"]} == {"1"}
    by_width = samespace("gallery", "search", "shop", query, "--bundle", edge, "--width", 12)
    assert by_width.returncode == 0, by_width.stderr
    assert shop.queries[0].label in by_width.stdout
    refused = samespace("gallery", "search", "shop", query, "--bundle", edge, "--width", 2)
    assert refused.returncode == 3
    assert "samespace verify --prefix 2" in refused.stderr
    stats = json.loads(samespace("gallery", "stats", "shop", "--json").stdout)
    assert stats["items"] == 16
    assert stats["corrections"] == []
    assert "16 items written" in samespace("gallery", "export", "shop", "all.npz").stdout


def test_hub_correction(
    samespace: Run, bundles: dict[str, Path], shop_csv: Path, shop: Dataset, tmp_path: Path
) -> None:
    cloud, edge = bundles["cloud"], bundles["edge"]
    samespace("gallery", "create", "shop", "--anchor", cloud)
    samespace("gallery", "add", "shop", "--data", shop_csv, "--bundle", cloud)
    setup = ["gallery", "correct-hubs", "shop", "--model", cloud]
    assert samespace(*setup).returncode == 2  # neither --bank nor --off
    refused = samespace("gallery", "correct-hubs", "shop", "--model", edge, "--bank", shop_csv)
    assert refused.returncode == 3
    assert "no certificate proves it" in refused.stderr
    done = samespace(*setup, "--bank", shop_csv, "--k", 9, "--weight", 0.7, "--json")
    (made,) = json.loads(done.stdout)
    assert (made["bank"], made["k"], made["weight"]) == (48, 9, 0.7)
    assert made["model"]["name"] == "cloud"
    assert "bank of 48, k 9, weight 0.7" in samespace("gallery", "stats", "shop").stdout
    search = ["gallery", "search", "shop", shop_csv.parent / shop.queries[0].path]
    search += ["--bundle", cloud]
    assert "score\tcorrected\tpayload" in samespace(*search).stdout
    plain = samespace(*search, "--no-correction").stdout
    assert "corrected" not in plain
    assert "no longer corrects" in samespace(*setup, "--off").stdout
    assert samespace(*search).stdout == plain

    arguments = ["--query", edge, "--gallery", cloud, "--data", shop_csv, "--bank", shop_csv]
    verified = samespace("verify", *arguments)
    assert "change of R@1 [95 %]\tR@1 without / with" in verified.stdout
    assert json.loads(samespace("verify", *arguments, "--json").stdout)["bank"]["pictures"] == 48


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["embed", "none.bundle", "x.png"], 3, "is not a bundle"),
        (["gallery", "stats", "none"], 3, "there is no gallery"),
        (["gallery", "search", "none", "x.png", "--bundle", "b", "--where", "{"], 3, "not JSON"),
        (["bundle", "check", "none"], 3, "is not a bundle"),
        (["verify", "--query", "a"], 2, "Missing option"),
        (["fly"], 2, "No such command"),
        (["export", "none", "out"], 3, "is not a checkpoint"),
        (["data", "check", "none.csv"], 1, "there is no dataset"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    samespace: Run, arguments: list[str], code: int, message: str
) -> None:
    done = samespace(*arguments)
    assert done.returncode == code
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_piped_output_is_plain(samespace: Run, bundles: dict[str, Path]) -> None:
    text = samespace("bundle", "show", bundles["edge"]).stdout
    assert "\x1b" not in text
    assert "name\tedge" in text


IGNORED_BY_PYTHON = """
import signal
from samespace.cli._output import progress_bar

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

try:
    with progress_bar() as progress:
        progress("embed", 0, 2)
        Interrupted()
        print("goes on")
        progress("embed", 1, 2)
except KeyboardInterrupt:
    print("ends", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_that_python_ignores_is_not_lost() -> None:
    command = [sys.executable, "-c", IGNORED_BY_PYTHON]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["goes on", "ends True"]
    assert "Exception ignored" in done.stderr
