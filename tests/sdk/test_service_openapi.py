"""The OpenAPI document, and a machine that tries everything in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from samespace import Embedder
from samespace._reasons import REASONS
from tests.patience import PATIENCE
from tests.sdk.service_process import Running
from tests.sdk.test_service import maker, well

# Whether every valid request is answered cannot be said without knowing the gallery: its width,
# its filters, its ids.
UNKNOWABLE = "positive_data_acceptance"
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")


def tried(service: Running, folder: Path, model: Embedder, *options: str) -> tuple[int, str]:
    """Let schemathesis loose on a service; how many requests it made, and what it says."""
    (folder / "schemathesis.toml").write_text(
        f'hooks = "{HOOKS}"\n[parameters]\n'
        + "".join(f'"query.{name}" = "{value}"\n' for name, value in maker(model).items())
    )
    command = Path(sys.executable).with_name("schemathesis")
    words = [command, "run", f"{service.url}/openapi.json", "--seed", "1", "--no-shrink"]
    words += ["--header", f"Authorization: {service.headers['authorization']}"]
    words += ["--exclude-checks", UNKNOWABLE, "--no-color", *options]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=PATIENCE)
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found is not None
    assert found[1] == found[2]
    return int(found[1]), done.stdout


def test_nothing_that_is_tried_makes_it_fail(
    service: Running, tmp_path: Path, bundles: dict[str, Path]
) -> None:
    count, told = tried(service, tmp_path, Embedder(bundles["cloud"]), "--max-examples", "6")
    assert count > 500
    assert re.search(r"Selected: (\d+)/\1\b", told)
    assert "Traceback" not in service.log.read_text()
    well(service)


@pytest.mark.slow
def test_nothing_fails_for_minutes(
    service: Running, tmp_path: Path, bundles: dict[str, Path]
) -> None:
    options = ("--max-examples", "240", "--mode", "all")
    count, _ = tried(service, tmp_path, Embedder(bundles["cloud"]), *options)
    assert count > 3000
    assert "Traceback" not in service.log.read_text()
    well(service)


def test_the_document_says_what_may_come(service: Running) -> None:
    document = service.ask("GET", "/openapi.json").json()
    words = set()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            if path.startswith("/v1/"):
                assert operation["security"] == [{"key": []}]
                assert {"401", "403", "408", "413", "422", "429"} <= set(operation["responses"])
                for status, answer in operation["responses"].items():
                    if int(status) >= 400 and "problem+json" in str(answer):
                        words |= set(answer["description"].split(", "))
    assert words == set(REASONS)
