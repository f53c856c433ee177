"""A real Milvus on this machine, for development and tests.

    .venv/bin/python -m tests.milvus_server [--data build/milvus/data] [--port 19530]

The server is the one that the package `milvus` carries (`make milvus` puts it into an environment
of its own); nothing but the standard library is needed here. Ctrl+C stops it. Its parts speak to
one another at 127.0.0.1, but this version opens its ports on every address of the machine and has
no setting against that: run it where nobody else can reach them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-milvus" / "bin" / "python"
UNPACKED = ROOT / "build" / "milvus"
PORTS = (
    "proxy_port",
    "proxy_internal_port",
    "root_coord_port",
    "query_coord_port",
    "query_node_port",
    "index_coord_port",
    "index_node_port",
    "data_coord_port",
    "data_node_port",
)

_PREPARE = """
import sys, milvus
unpacked, data, *ports = sys.argv[1:]
milvus._initialize_data_files(unpacked)
config = milvus.MilvusServerConfig(data_dir=data)
for port in ports:
    name, number = port.split("=")
    if name in config.configurable_items:
        config.configs[name] = int(number)
config.set("etcd_log_level", "error")
config.resolve()
"""

_ETCD = """\
name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


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
        *found, self._metrics, client, peer = free_ports(len(PORTS) + 3)
        ports = dict(zip(PORTS, found, strict=True))
        self.port = ports["proxy_port"] = port or ports["proxy_port"]
        self.address = f"127.0.0.1:{self.port}"
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON} is missing: run 'make milvus' or 'make test-milvus'")
        UNPACKED.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}={number}" for name, number in ports.items()]
        subprocess.run([PYTHON, "-c", _PREPARE, str(UNPACKED), str(self.data), *wanted], check=True)
        configs = self.data / "configs"
        etcd = configs / "etcd.yaml"
        # Its own default is the same two ports for every server of a machine.
        etcd.write_text(_ETCD.format(client=client, peer=peer))
        settings = configs / "milvus.yaml"
        text = settings.read_text()
        text = text.replace("\netcd:\n", f"\netcd:\n  config:\n    path: {etcd}\n")
        text = re.sub(r"(?m)^(\s+)ip:.*$", r"\1ip: 127.0.0.1", text)
        if passwords:
            text = text.replace("authorizationEnabled: false", "authorizationEnabled: true")
        if tls:
            text = text.replace("tlsMode: 0", "tlsMode: 1")
            text = text.replace("serverPemPath: server.pem", f"serverPemPath: {tls[0]}")
            text = text.replace("serverKeyPath: server.key", f"serverKeyPath: {tls[1]}")
        text = text.replace("\n  level: info #", "\n  level: warn #")
        settings.write_text(text)

    def start(self, timeout: float = 180.0) -> None:
        """Start it and wait until it says that it is healthy, in seconds."""
        program = UNPACKED / "bin" / "milvus"
        more = {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._metrics),
            "MILVUS_RUN_DIR": str(self.data / "run"),
            "LD_LIBRARY_PATH": str(program.parent),
        }
        with (self.data / "logs" / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "run", "standalone"],
                cwd=self.data,
                env={**os.environ, **more},
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if (code := self._process.poll()) is not None:
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
