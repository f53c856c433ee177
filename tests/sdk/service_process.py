"""A real service in a process of its own, for the tests of service and client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from samespace.service._config import KEYS_FILE
from samespace.service._keys import add_key
from tests.patience import PATIENCE, until
from tests.ports import free_port

COMMAND = [sys.executable, "-c", "from samespace.cli import main; main()"]


def ask(method: str, url: str, **more: Any) -> httpx.Response:
    """One request on a connection of its own. Reading certificates would take most of the time."""
    return httpx.request(method, url, timeout=PATIENCE, verify=False, **more)


@dataclass
class Running:
    """A service that was started."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        more.setdefault("headers", {})
        more["headers"] = {**self.headers, **more["headers"]}
        return ask(method, self.url + path, **more)

    def lines(self) -> list[dict[str, Any]]:
        whole, _, _ = self.log.read_text().rpartition("\n")  # the last one may be half written
        return [json.loads(line) for line in whole.splitlines()]

    def line(self, request: str) -> dict[str, Any]:
        """The log's line of a request, which is written once it is answered."""
        return until(lambda: next((x for x in self.lines() if x.get("id") == request), None))

    def is_measured(self) -> None:
        """Wait for the first recall canary: what is written later cannot fall into it."""
        until(lambda: any(line["event"] == "canary" for line in self.lines()))

    def follows(self, key: str, is_known: bool = True) -> dict[str, str]:
        """Wait until it knows a key that was made, or not any more; the key's headers."""
        headers = {"authorization": f"Bearer {key}"}
        until(
            lambda: is_known != (self.ask("GET", "/v1/stats", headers=headers).status_code == 401)
        )
        return headers

    def workers(self) -> list[psutil.Process]:
        """The processes that serve, where there are several."""
        return [p for p in psutil.Process(self.process.pid).children() if _serves(p)]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def _serves(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # just killed
        return False


def start(
    gallery: Path, log: Path, *options: object, port: int | None = None, key: str | None = None
) -> Running:
    """Start a service and wait until it answers."""
    port = port or free_port()
    words = [*COMMAND, "serve", str(gallery), "--port", str(port), *map(str, options)]
    with log.open("ab") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, stderr=file, stdout=file, env=environment)
    made = Running(process, port, log, {"authorization": f"Bearer {key}"} if key else {})

    def answers() -> bool:
        assert process.poll() is None, f"the service did not start: {log.read_text()}"
        with contextlib.suppress(httpx.TransportError):
            return made.ask("GET", "/readyz").status_code == 200
        return False

    until(answers)
    return made


@contextlib.contextmanager
def serving(gallery: Path, log: Path, *options: object, **more: Any) -> Iterator[Running]:
    """A service, stopped at the end however the test ends."""
    made = start(gallery, log, *options, **more)
    workers = made.workers()
    try:
        yield made
    finally:
        made.process.terminate()
        try:
            made.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            made.process.kill()
            made.process.wait()
        for worker in [*workers]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.wait(PATIENCE)


def new_key(gallery: Path, name: str, *scopes: str) -> str:
    """A key for a gallery's service; `read` by default, as on the command line."""
    return add_key(gallery / KEYS_FILE, name, scopes or ("read",))
