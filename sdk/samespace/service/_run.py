"""Runs the service under uvicorn: one process, or several over one gallery."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace

from fastapi import FastAPI

from samespace.gallery import Gallery
from samespace.service._config import ServiceConfig
from samespace.service._log import LOGGING, say
from samespace.service._metrics import FOLDER
from samespace.service._page import check_page
from samespace_edge import Bundle, ConfigError

_SETTINGS = "SAMESPACE_SERVICE"
_BACKLOG = 1024
_KEEP_ALIVE = 15  # seconds that an idle connection is kept
_HEALTHCHECK = 60  # seconds after which a worker that does not answer is replaced


def serve(
    config: ServiceConfig, host: str = "127.0.0.1", port: int = 8000, workers: int = 1
) -> None:
    """Serve until SIGTERM or SIGINT; what was begun is finished and answered.

    Args:
        config: what is served.
        host: address to listen on. On any but this machine's own, keys are needed.
        port: 0 for any free one, which the log names.
        workers: processes. One that dies is replaced.

    Raises `ConfigError` where the address cannot be listened on or would be open to everybody,
    and the errors of `Gallery.open` and `Bundle.open`.
    """
    import uvicorn

    from samespace.service._connections import PatientProtocol
    from samespace.service._supervisor import Supervisor

    is_local = _is_loopback(host)
    keys = config.keys_path
    if not is_local and not config.no_keys and (keys is None or not keys.exists()):
        raise ConfigError(
            f"{host} can be reached from other machines, and there are no keys"
            f"{'' if keys is None else f' in {keys}'}. Make one with 'samespace serve keys add'"
            f"{' and name its file with --keys' if keys is None else ''}, or let everybody in "
            "with --no-keys."
        )
    if workers < 1:
        raise ConfigError(f"workers has to be 1 or more, not {workers}")
    for bundle in (*config.bundles, *config.offers):
        Bundle.open(bundle)
    check_page(config)
    Gallery.open(config.gallery, busy_timeout=config.busy_timeout).close()
    listening = _listen(host, port)
    with tempfile.TemporaryDirectory(prefix="samespace-") as folder:
        shared = replace(config, is_local=is_local, run_folder=folder if workers > 1 else None)
        os.environ[_SETTINGS] = shared.to_json()
        if workers > 1:
            os.environ[FOLDER] = folder  # workers read it when they import prometheus_client
        settings = uvicorn.Config(
            "samespace.service._run:worker_app",
            factory=True,
            workers=workers,
            http=PatientProtocol,
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=LOGGING,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=math.ceil(config.body_timeout + config.request_timeout),
            timeout_worker_healthcheck=_HEALTHCHECK,
        )
        address = listening.getsockname()
        say("listening", host=address[0], port=address[1], workers=workers)
        with _until_stopped():
            if workers > 1:
                Supervisor(settings, [listening]).run()
            else:
                uvicorn.Server(settings).run([listening])
    listening.close()


class _Stopped(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """SIGTERM ends this, and not the process.

    uvicorn raises it anew once everything is answered and closed; the folder would stay behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with contextlib.suppress(_Stopped):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def worker_app() -> FastAPI:
    """The app of a worker, whose settings come in the environment."""
    from samespace.service._app import create_app
    from samespace.service._connections import PatientProtocol

    parent = multiprocessing.parent_process()
    if parent is not None:
        # A parent that was killed cannot stop its workers, and they would keep the port.
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    config = ServiceConfig.from_json(os.environ[_SETTINGS])
    PatientProtocol.head_seconds = config.head_timeout
    PatientProtocol.most = config.connections
    return create_app(config)


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error}") from None
