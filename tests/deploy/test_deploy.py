"""What deploy/ says exists: options, ports, paths, variables, metrics, reasons.

No container engine is needed, and none runs here: images are not built by this.
"""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import prometheus_client
import pytest
import yaml
from click.testing import CliRunner

from samespace._reasons import REASONS
from samespace.cli._root import root
from samespace.cli.serve import run, serve
from samespace.gallery._milvus._address import Address
from samespace.service import ServiceConfig
from samespace.service._metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
HOME = "/var/lib/samespace"
LONGEST = ServiceConfig("shop").body_timeout + ServiceConfig("shop").request_timeout
"""Seconds until what was begun is answered."""


def settings_of(words: list[str]) -> dict[str, Any]:
    """What `samespace serve` makes of its words; raises for one that it does not know."""
    assert words[0] == "serve"
    assert words[1] not in serve.commands, words
    return dict(run.make_context("run", words[1:]).params)


def instructions(text: str) -> list[tuple[str, str]]:
    """A Containerfile's instructions, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, rest in (line.split(" ", 1) for line in joined.splitlines())]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return value


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {n: s for n, s in compose["services"].items() if s["image"].startswith("samespace")}


# the container


def test_what_the_image_is_built_of_is_there() -> None:
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = [rest.split() for word, rest in instructions(CONTAINERFILE) if word == "COPY"]
    for words in copied:
        if words[0].startswith("--from"):
            continue
        for name in words[:-1]:
            assert (ROOT / name).exists(), f"{name} is not in the tree"
            assert any(name == one or name.startswith(f"{one}/") for one in let_in), name
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = packages["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    names = [name for words in copied for name in words[:-1]]
    for package in wheel:
        assert any(package == n or package.startswith(f"{n}/") for n in names), package


def test_its_extras_are_there(compose: dict[str, Any]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    chosen = re.findall(r"EXTRAS=(\S+)", CONTAINERFILE)
    chosen += [s["build"]["args"]["EXTRAS"] for s in ours(compose).values() if "args" in s["build"]]
    assert chosen[-1] == "serve,onnx,milvus"
    for line in chosen:
        assert set(line.split(",")) <= set(extras)


def test_the_pages_scripts_go_where_make_web_puts_them() -> None:
    page = re.search(r"^PAGE := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert page is not None
    assert f"COPY --from=web /src/{page[1]} {page[1]}" in CONTAINERFILE
    assert "RUN make web" in CONTAINERFILE


def test_it_runs_as_nobody_in_particular_and_its_words_are_known() -> None:
    found = dict(instructions(CONTAINERFILE))  # the last of every kind
    assert found["USER"] not in ("root", "0")
    assert found["VOLUME"] == found["WORKDIR"] == HOME
    assert found["STOPSIGNAL"] == "SIGTERM"
    words = shlex.split(found["CMD"].strip("[]").replace(",", " "))
    assert found["ENTRYPOINT"] == '["samespace"]'
    settings = settings_of(words)
    assert settings["host"] == "0.0.0.0"
    assert int(found["EXPOSE"]) == settings["port"]
    assert f"127.0.0.1:{settings['port']}/healthz" in found["HEALTHCHECK"]


# compose


def test_compose_starts_what_the_command_takes(compose: dict[str, Any]) -> None:
    assert set(ours(compose)) == {"samespace", "samespace-milvus"}
    for name, service in ours(compose).items():
        settings = settings_of(service["command"])
        assert settings["host"] == "0.0.0.0", "else nobody outside the container reaches it"
        published, inside = service["ports"][0].rsplit(":", 1)
        assert published.startswith("127.0.0.1:"), "TLS is in front"
        assert int(inside) == settings["port"]
        assert f"127.0.0.1:{inside}/healthz" in str(service["healthcheck"]["test"])
        volume, where = service["volumes"][0].split(":")
        assert volume in compose["volumes"]
        assert where == HOME
        assert float(service["stop_grace_period"].removesuffix("s")) > LONGEST
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).exists()
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"]


def test_its_gallery_in_milvus_is_one_that_opens(compose: dict[str, Any]) -> None:
    service = ours(compose)["samespace-milvus"]
    settings = settings_of(service["command"])
    address = Address.parse(settings["gallery"], 10.0, service["environment"])
    assert address.host in compose["services"]
    assert address.port == 19530
    assert address.timeout == 30.0
    assert settings["keys"], "a URL is no folder for a file of keys"
    assert set(compose["services"]["milvus"]["networks"]) <= set(service["networks"])
    for name in ("milvus", "etcd", "minio"):
        other = compose["services"][name]
        assert other["profiles"] == ["milvus"]
        assert "ports" not in other
        assert other["networks"] == ["milvus"]
        assert all(volume.split(":")[0] in compose["volumes"] for volume in other["volumes"])
    assert compose["networks"]["milvus"]["internal"]


# systemd


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(DEPLOY / "samespace.service")
    return found


def environment() -> dict[str, str]:
    lines = (DEPLOY / "samespace.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_unit_starts_what_the_command_takes() -> None:
    service = unit()["Service"]
    given = environment()
    line = service["ExecStart"].replace("${GALLERY}", given["GALLERY"])
    program, *words = line.replace("$OPTIONS", given["OPTIONS"]).split()
    assert Path(program).name == "samespace"
    assert settings_of(words)["host"] == "127.0.0.1"
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}" == HOME
    assert float(service["TimeoutStopSec"]) > LONGEST
    assert service["Restart"] == "on-failure"
    assert service["ProtectSystem"] == "strict"
    assert service["User"] != "root"


def test_the_variables_of_the_environment_file_are_known() -> None:
    text = (DEPLOY / "samespace.env").read_text()
    named = dict(re.findall(r"^# (SAMESPACE_MILVUS_\w+)=(.*)$", text, re.MULTILINE))
    assert "SAMESPACE_MILVUS_TLS" in named
    Address.parse("milvus://milvus.example.com/shop", 10.0, named)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "samespace.service").read_text()
    real = shutil.which("true")
    copy = tmp_path / "samespace.service"
    copy.write_text(text.replace("/opt/samespace/bin/samespace", str(real)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if "samespace" in line]
    assert (done.returncode, said) == (0, [])


# in front, and watching


def test_nginx_lets_in_what_the_service_takes() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    settings = dict(re.findall(r"(\w+) (\d+)[ms];", text))
    config = ServiceConfig("shop")
    assert int(settings["client_max_body_size"]) * 2**20 > config.max_body
    assert int(settings["client_body_timeout"]) > config.body_timeout
    assert int(settings["proxy_read_timeout"]) > config.request_timeout
    assert f"server 127.0.0.1:{settings_of(['serve', 'shop'])['port']};" in text
    assert "Host $host" in text, "else the service takes everybody for this machine's own user"


def test_alerts_are_of_metrics_and_reasons_that_there_are() -> None:
    metrics = Metrics()
    there = set()
    for family in metrics._registry.collect():
        there |= {family.name, f"{family.name}_total", f"{family.name}_bucket"}
    assert isinstance(metrics.held, prometheus_client.Gauge)
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert len({r["alert"] for r in rules}) == len(rules) >= 8
    for rule in rules:
        assert set(re.findall(r"samespace_\w+", rule["expr"])) <= there, rule["expr"]
        for pattern in re.findall(r'reason=~?"([^"]+)"', rule["expr"]):
            assert set(pattern.split("|")) <= set(REASONS)


# the page about it


def test_the_commands_of_the_operations_page_are_known() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
    lines = [
        re.sub(r"\s+#.*", "", line).strip()
        for block in blocks
        for line in re.sub(r"\\\n\s*", " ", block).splitlines()
    ]
    starts = ("samespace ", "as-samespace ", "podman compose -f deploy/compose.yaml run --rm ")
    found = 0
    for line in lines:
        if not line.startswith(starts):
            continue
        words = shlex.split(line)
        services = [n for n, w in enumerate(words) if w in ("samespace", "samespace-milvus")]
        words = words[services[0] + 1 :] if services else words[1:]
        command: click.Command = root
        while isinstance(command, click.Group):
            next_ = command.get_command(click.Context(command), words[0])
            if command is serve and next_ is None:
                next_ = run
            else:
                words.pop(0)
            assert next_ is not None, line
            command = next_
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{line}: {word}"
        found += 1
    assert found > 10


def test_the_plan_is_made_with_rates_that_were_measured() -> None:
    done = CliRunner().invoke(root, ["plan", "capacity", "--items", "50e6", "--dim", "128"])
    assert done.exit_code == 0
    assert "measured: one process" in " ".join(done.output.split())
    assert "backfill, hours" in " ".join(done.output.split())
