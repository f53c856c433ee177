"""The app: routes behind the gate, and a lifespan that opens and closes the gallery."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from samespace.service._config import ServiceConfig
from samespace.service._documents import completed
from samespace.service._gate import Gate
from samespace.service._items import item_routes
from samespace.service._log import say
from samespace.service._looks import health_routes, look_routes
from samespace.service._offers import offer_routes
from samespace.service._page import page_routes
from samespace.service._problems import answer_problems
from samespace.service._search import search_routes
from samespace.service._service import Service
from samespace.service._watch import watch


def create_app(config: ServiceConfig) -> FastAPI:
    """The service as an ASGI app, for any server that speaks its lifespan.

    Whatever else is mounted on it is outside of `/v1` and so needs no key. Raises the errors of
    `Bundle.open` for bundles that are offered, and starting it those of `Gallery.open` and
    `Embedder`.
    """
    service = Service(config)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.open)
        accepted = service.gallery.admitted
        for embedder in service.embedders:
            if embedder.identity not in accepted:
                say("not certified", model=str(embedder.identity))
        say("ready", gallery=service.gallery.name, items=len(service.gallery))
        watching = asyncio.create_task(watch(service))
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            await asyncio.to_thread(service.close)
            say("closed")

    app = FastAPI(
        title="samespace",
        version=version("samespace"),
        description="Visual search across cloud, edge and later models, in one embedding space.",
        lifespan=lifespan,
        docs_url=None,  # these pages come from other hosts
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in (
        search_routes(service),
        item_routes(service),
        look_routes(service),
        offer_routes(service),
        health_routes(service),
        page_routes(service),
    ):
        app.include_router(router)
    answer_problems(app)
    routes = ["/openapi.json", *app.openapi()["paths"]]
    app.add_middleware(Gate, service=service, routes=routes)
    document: dict[str, Any] = completed(app.openapi())
    app.openapi = lambda: document  # type: ignore[method-assign]
    return app
