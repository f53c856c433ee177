"""Looking at the gallery and at the service: stats, models, upgrade, health, metrics."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response

from samespace.service._answers import admitted, answer, figures, upgrade
from samespace.service._documents import REFUSED
from samespace.service._metrics import CONTENT_TYPE
from samespace.service._models import Models, State, Stats, Upgrades
from samespace.service._problems import Refusal
from samespace.service._service import Service
from samespace_edge import Bundle

_FRESH = 2.0
_PATIENCE = 5.0


class Kept:
    """An answer that reads the whole gallery, made at most every few seconds."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._turn = threading.Lock()
        self._value: Any = None
        self._until = 0.0

    def __call__(self) -> Any:
        """The answer, some 2 s old at most."""
        with self._turn:  # of several threads one makes it, and the others wait for that
            if time.monotonic() >= self._until:
                self._value = self._make()
                self._until = time.monotonic() + _FRESH
            return self._value


def look_routes(service: Service) -> APIRouter:
    """`/v1/stats`, `/v1/models`, `/v1/upgrade`."""
    router = APIRouter(prefix="/v1", tags=["gallery"], responses=REFUSED)
    stats = Kept(lambda: figures(service.gallery.stats()))
    offered = {Bundle.open(p).manifest.fingerprint for p in service.config.offered}
    state = Kept(lambda: {"upgrade": upgrade(service.gallery.upgrade.status())})

    @router.get("/stats", response_model=Stats)
    async def get_stats() -> Any:
        """The gallery in figures, some two seconds old at most."""
        return await service.work(lambda: answer(stats()))

    @router.get("/models", response_model=Models)
    async def get_models() -> Any:
        """The models whose vectors and queries are accepted, with their certificates."""

        def act() -> Response:
            running = {e.identity for e in service.embedders}
            models = admitted(service.gallery.certificates(), running, offered)
            return answer({"space": service.gallery.space.hex, "models": models})

        return await service.work(act)

    @router.get("/upgrade", response_model=Upgrades)
    async def get_upgrade() -> Any:
        """How far the upgrade to a newer model is, some two seconds ago at most."""
        return await service.work(lambda: answer(state()))

    return router


def health_routes(service: Service) -> APIRouter:
    """`/healthz`, `/readyz`, `/metrics`."""
    router = APIRouter(tags=["service"])

    @router.get("/healthz", response_model=State)
    async def healthz() -> Any:
        """Whether the process answers."""
        return answer({"status": "ok"})

    @router.get("/readyz", response_model=State, responses={503: REFUSED[503]})
    async def readyz() -> Any:
        """Whether the gallery is open and can be read within a few seconds."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await service.work(lambda: "readyz" in service.gallery)
        except Refusal:
            raise
        except TimeoutError:
            raise Refusal(
                "not-ready", f"nothing could be read within {_PATIENCE:g} s: all threads are busy"
            ) from None
        except Exception as error:
            raise Refusal("not-ready", f"the gallery cannot be read: {error}") from None
        return answer({"status": "ok"})

    @router.get(
        "/metrics",
        response_class=Response,
        responses={**REFUSED, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Any:
        """For Prometheus, of all workers."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    return router
