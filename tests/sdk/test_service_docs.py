"""What docs/service.md says, against the service: its commands, its limits, reasons and metrics."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from samespace import Client, Dataset, Gallery
from samespace._reasons import REASONS
from samespace.cli._root import run as samespace
from samespace.cli.serve import run
from samespace.service import ServiceConfig
from samespace.service._config import KEYS_FILE
from samespace.service._keys import add_key, read_keys
from tests.patience import PATIENCE
from tests.sdk.conftest import MakeGallery
from tests.sdk.service_process import Running, serving

PAGE = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(heading: str) -> list[tuple[str, str]]:
    """The snippets below a heading: their language, and their text."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return BLOCK.findall(section)


def table(heading: str, columns: int) -> list[list[str]]:
    """The rows of the first table of so many columns below a heading."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if len(row) == columns and row[0] != "---"][1:]


@pytest.fixture(scope="module")
def scene(
    make_gallery: MakeGallery,
    bundles: dict[str, Path],
    shop: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with what the snippets name."""
    folder = tmp_path_factory.mktemp("scene")
    make_gallery(folder / "shop")
    for name in ("cloud", "edge"):
        shutil.copytree(bundles[name], folder / f"{name}.bundle")
    (folder / "photo.png").write_bytes(shop.read(shop.queries[0]))
    return folder


@pytest.fixture(scope="module")
def served(scene: Path) -> Iterator[Running]:
    key = add_key(scene / "shop" / KEYS_FILE, "docs", ["read", "write"])
    options = ["--bundle", scene / "cloud.bundle", "--offer", scene / "edge.bundle"]
    with serving(scene / "shop", scene / "log", *options, key=key) as running:
        yield running


def done(command: list[str], scene: Path, served: Running | None = None) -> str:
    """What a command prints, in the scene, with $KEY set."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    more = {"KEY": served.headers["authorization"].split()[1]} if served else {}
    run = subprocess.run(
        command,
        cwd=scene,
        env={**os.environ, "PATH": path, **more},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_keys_are_managed_as_it_says(
    scene: Path,
    served: Running,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ((_, text),) = blocks("Keys")
    monkeypatch.chdir(scene)
    for line in text.splitlines():
        assert samespace(shlex.split(line)[1:]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.startswith("sks_") for line in told[:2]] == [True, True]
    assert any("read, write" in line for line in told[2:])
    names = {k.name: k.scopes for k in read_keys(scene / "shop" / KEYS_FILE)}
    assert names == {"docs": ("read", "write"), "import": ("read", "write")}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands use curl")
def test_commands_do_what_it_says(scene: Path, served: Running) -> None:
    first, second = (text for kind, text in blocks("Ask it") if kind == "sh")
    at = served.url.removeprefix("http://")
    found = done(["sh", "-ec", first.replace("localhost:8000", at)], scene, served)
    assert '"id":"item01/0.png"' in found
    assert found.count('"score"') == 2
    told = done(["sh", "-ec", second.replace("localhost:8000", at)], scene, served)
    assert told.startswith('{"items":1}{"id":"mug-7"')
    assert '"payload":{"label":"mug"}' in told
    assert told.endswith('{"items":1}')


def test_python_does_what_it_says(scene: Path, served: Running) -> None:
    printed = []
    for heading in ("Ask it", "In Python"):
        (text,) = (text for kind, text in blocks(heading) if kind == "python")
        code = "import os\nKEY = os.environ['KEY']\n" + text
        code = code.replace("http://localhost:8000", served.url)
        told = done([sys.executable, "-W", "error", "-c", code], scene, served)
        printed.append(told.splitlines())
    ids = ["item01/0.png", "item01/1.png"]
    assert printed[0] == [str(ids)]
    assert printed[1] == [str([ids]), str([ids]), "True {'label': 'mug'}", "16 None"]


def test_its_services_start(scene: Path) -> None:
    for heading in ("Start it", "Several workers"):
        (text,) = (text for kind, text in blocks(heading) if kind == "sh")
        words = next(x for x in text.splitlines() if x.startswith("samespace serve")).split()
        parsed = run.make_context("run", words[2:])
        assert parsed.params["gallery"] == "shop"
        for bundle in (*parsed.params["bundles"], *parsed.params["offers"]):
            assert (scene / bundle / "manifest.json").exists()


def test_every_limit_is_there_with_its_default() -> None:
    found = {row[0].strip("`"): row[1] for row in table("Limits", 3)}
    defaults = {f.name: f.default for f in fields(ServiceConfig)}
    for option, words in found.items():
        value = defaults[option[2:].replace("-", "_")]
        assert words.startswith(f"{value:,.0f} "), option
    numbers = {name for name, value in defaults.items() if type(value) in (int, float)}
    others = {"canary_every", "canary_queries"}
    assert {o[2:].replace("-", "_") for o in found} == numbers - others
    assert f"({defaults['canary_every']:.0f})" in PAGE
    assert f"searches {defaults['canary_queries']} stored" in PAGE
    known = {option for parameter in run.params for option in parameter.opts}
    assert set(found) <= known
    for reason in re.findall(r"\d{3} `([\w-]+)`", PAGE.split("\n## Limits\n")[1].split("\n## ")[0]):
        assert reason in REASONS


def test_every_reason_is_there() -> None:
    found = {
        row[0].strip("`"): (int(row[1]), row[3].strip("`")) for row in table("Errors", 4)
    }  # fmt: skip
    assert found == {r.word: (r.status, r.error.__name__) for r in REASONS.values()}


def test_every_metric_is_there(served: Running) -> None:
    found = set(re.findall(r"\| .*?`(samespace_\w+)", PAGE))
    found |= set(re.findall(r", `(samespace_\w+)", PAGE))
    text = served.ask("GET", "/metrics").text
    kinds = dict(re.findall(r"# TYPE (samespace_\w+) (\w+)", text))
    there = {f"{n}_total" if k == "counter" and not n.endswith("_total") else n
             for n, k in kinds.items()}  # fmt: skip
    assert found == there


def test_every_address_is_there(served: Running) -> None:
    told = set(re.findall(r"`(GET|POST|DELETE) (/[^`?]*)`", "\n".join(
        " ".join(row) for row in table("Ask it", 3))))  # fmt: skip
    document = served.ask("GET", "/openapi.json").json()["paths"]
    known = {(m.upper(), path) for path, methods in document.items() for m in methods}
    assert told == known


def test_a_client_has_the_gallerys_calls() -> None:
    import inspect

    for name in ("search", "add", "get", "delete", "stats", "certificates"):
        ours = inspect.signature(getattr(Client, name)).parameters
        theirs = inspect.signature(getattr(Gallery, name)).parameters
        assert list(ours) == list(theirs)
        for parameter in theirs.values():
            mine = ours[parameter.name]
            assert mine.kind == parameter.kind
            if parameter.name not in ("model", "probes"):  # the service may choose these
                assert mine.default == parameter.default, f"{name}({parameter.name})"
