"""A real service in a process of its own, for the tests of service and client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from samespace.service._config import KEYS_FILE
from samespace.service._keys import add_key
from tests.ports import free_port

COMMAND = [sys.executable, "-c", "from samespace.cli import main; main()"]


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
        return httpx.request(method, self.url + path, timeout=30, **more)

    def lines(self) -> list[dict[str, Any]]:
        whole, _, _ = self.log.read_text().rpartition("\n")  # the last one may be half written
        return [json.loads(line) for line in whole.splitlines()]

    def line(self, request: str) -> dict[str, Any]:
        """The log's line of a request, which is written once it is answered."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            for line in self.lines():
                if line.get("id") == request:
                    return line
            time.sleep(0.02)
        raise TimeoutError(f"no line of the request {request!r}")

    def workers(self) -> list[psutil.Process]:
        """The processes that serve, where there are several."""
        return [p for p in psutil.Process(self.process.pid).children() if _serves(p)]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


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
    ended = time.monotonic() + 60
    while time.monotonic() < ended:
        with contextlib.suppress(httpx.TransportError):
            if made.ask("GET", "/readyz").status_code == 200:
                return made
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the service did not start: {log.read_text()}")


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
            made.process.wait(30)
        except subprocess.TimeoutExpired:
            made.process.kill()
            made.process.wait()
        for worker in [*workers]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.wait(10)


def new_key(gallery: Path, name: str, *scopes: str) -> str:
    """A key for a gallery's service; `read` by default, as on the command line."""
    return add_key(gallery / KEYS_FILE, name, scopes or ("read",))
