"""A real Milvus on this machine, for development and tests.

    .venv/bin/python -m tests.milvus_server [--data build/milvus/data] [--port 19530]

The server is the one that the package `milvus` carries (`make milvus` puts it into an environment
of its own); nothing but the standard library is needed here. Ctrl+C stops it.

This version opens its ports on every address of the machine and has no setting against that. So it
runs in a network namespace of its own, which has nothing but a loopback, and one process
(`milvus_network.py`) lets connections to 127.0.0.1 of the machine in. That takes Linux with
`unshare` and `nsenter` (util-linux) and either root or user namespaces.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.patience import PATIENCE
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-milvus" / "bin" / "python"
UNPACKED = ROOT / "build" / "milvus"
NETWORK = Path(__file__).with_name("milvus_network.py")
METRICS = 9091  # its port in its own network

_PREPARE = """
import sys, milvus
unpacked, data = sys.argv[1:]
milvus._initialize_data_files(unpacked)
config = milvus.MilvusServerConfig(data_dir=data)
config.set("etcd_log_level", "error")
config.resolve()  # to ports that are free outside its network too, which does no harm
print(config.get("proxy_port"))
"""


class MilvusProcess:
    """A standalone server that can be started, killed, and started again on the same data.

    Args:
        data: folder for its data, logs and settings; made where it is missing.
        port: that clients connect to; any free one by default.
        passwords: whether it asks for users; the first one is `root` with the password `Milvus`.
        tls: its certificate and key, as PEM files.
    """

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        *,
        passwords: bool = False,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.data = data.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._network: subprocess.Popen[bytes] | None = None
        self.port = port or free_port()
        self._metrics = free_port()
        self.address = f"127.0.0.1:{self.port}"
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON} is missing: run 'make milvus' or 'make test-milvus'")
        UNPACKED.mkdir(parents=True, exist_ok=True)
        with (UNPACKED / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the first one unpacks it
            prepare = [PYTHON, "-c", _PREPARE, str(UNPACKED), str(self.data)]
            said = subprocess.run(prepare, check=True, stdout=subprocess.PIPE, text=True).stdout
        self._inner = int(said.split()[-1])
        settings = self.data / "configs" / "milvus.yaml"
        text = settings.read_text()
        # Its parts find one another by this; it does not bind to it.
        text = re.sub(r"(?m)^(\s+)ip:.*$", r"\1ip: 127.0.0.1", text)
        # How long after kill -9 the next one waits until its parts are taken for gone, in seconds.
        text = re.sub(r"(?m)^(\s+ttl:) 30 ", r"\1 15 ", text)
        if passwords:
            text = text.replace("authorizationEnabled: false", "authorizationEnabled: true")
        if tls:
            text = text.replace("tlsMode: 0", "tlsMode: 1")
            text = text.replace("serverPemPath: server.pem", f"serverPemPath: {tls[0]}")
            text = text.replace("serverKeyPath: server.key", f"serverKeyPath: {tls[1]}")
        text = text.replace("\n  level: info #", "\n  level: warn #")
        settings.write_text(text)

    @property
    def pid(self) -> int:
        """Of the server's process, once it is started."""
        assert self._process is not None
        return self._process.pid

    def start(self, timeout: float = PATIENCE) -> None:
        """Start it and wait until it says that it is healthy, in seconds."""
        inside = self._open_network()
        program = UNPACKED / "bin" / "milvus"
        more = {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(METRICS),
            "MILVUS_RUN_DIR": str(self.data / "run"),
            "LD_LIBRARY_PATH": str(program.parent),
        }
        with (self.data / "logs" / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*inside, program, "run", "standalone"],
                cwd=self.data,
                env={**os.environ, **more},
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if (code := self._process.poll()) is not None:
                self.kill()
                raise RuntimeError(f"Milvus ended with {code}; see {self.data / 'logs'}")
            with contextlib.suppress(OSError, urllib.error.URLError):
                url = f"http://127.0.0.1:{self._metrics}/healthz"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    if b"OK" in answer.read():
                        return
            time.sleep(0.2)
        self.kill()
        raise TimeoutError(f"Milvus was not healthy in {timeout:.0f} s; see {self.data / 'logs'}")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._network is not None:
            with self._network:  # its input ends, and with that it does
                pass
            self._network = None

    def pause(self) -> None:
        """Stop answering without ending (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any(_state(task) != "T" for task in tasks.iterdir()):
            time.sleep(0.01)  # on a busy machine its threads go on for a moment

    def go_on(self) -> None:
        """Undo `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wait(self) -> int:
        """Wait until it ends; its exit status."""
        assert self._process is not None
        return self._process.wait()

    def _open_network(self) -> list[str]:
        """Make its network; what a command has to begin with to be run in there."""
        if missing := [name for name in ("unshare", "nsenter") if not shutil.which(name)]:
            raise FileNotFoundError(f"{missing[0]} is missing: it comes with Linux's util-linux")
        listening = [socket.create_server(("127.0.0.1", p)) for p in (self.port, self._metrics)]
        inner = (self._inner, METRICS)
        doors = {one.fileno(): port for one, port in zip(listening, inner, strict=True)}
        mapped, same = ([], []) if os.geteuid() == 0 else (["--map-root-user"], ["--user"])
        log = self.data / "logs" / "network.log"
        with log.open("wb") as errors:
            self._network = subprocess.Popen(
                ["unshare", "--net", *mapped, sys.executable, NETWORK]
                + [f"{fd}={port}" for fd, port in doors.items()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=doors,
            )
        for one in listening:
            one.close()
        assert self._network.stdout
        if self._network.stdout.readline() != b"ready\n":
            self.kill()
            raise RuntimeError(f"no network for Milvus alone: {log.read_text().strip()}")
        target = ["--target", str(self._network.pid), "--net", *same]
        return ["nsenter", *target, *(["--preserve-credentials"] if same else [])]


def _state(task: Path) -> str:
    """Of a thread: R(unning), S(leeping), T (stopped) ..."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=UNPACKED / "data")
    parser.add_argument("--port", type=int, default=19530)
    options = parser.parse_args()
    server = MilvusProcess(options.data, options.port)
    try:
        server.start()
        print(f"milvus://{server.address}/NAME is ready; Ctrl+C stops it", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        # It takes minutes over SIGTERM; what it acknowledged is in its log.
        server.kill()


if __name__ == "__main__":
    sys.exit(main())
