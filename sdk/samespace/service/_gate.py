"""What every request passes before a route sees it: who asks, how often, how much, how long."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samespace.service._body import Disconnected, discard_body, given, read_body
from samespace.service._connections import FULL
from samespace.service._keys import Key
from samespace.service._log import say
from samespace.service._problems import Refusal, problem, refusal_of
from samespace.service._service import Service

_READS = ("/v1/search", "/v1/items/get")
_NAMED = {"/v1/items/": "/v1/items/{id}", "/v1/pictures/": "/v1/pictures/{id}", "/page/": "/page"}
_LOCAL = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?")
_DOWNLOAD = re.compile(r"/v1/models/[^/]+/bundle/")
_DOWNLOAD_SECONDS = 600.0  # for a large file over a slow connection
_GONE = 499  # as nginx writes down a client that did not wait
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")


@dataclass
class Visit:
    """One request on its way.

    Attributes:
        id: the client's `x-request-id`, or one made here.
        route: its address without ids.
        key: name of the key.
        reason: why it was refused.
        status: of the answer; None while there is none.
    """

    id: str
    route: str
    key: str | None = None
    reason: str | None = None
    status: int | None = None
    started: float = field(default_factory=time.perf_counter)


class Gate:
    """ASGI middleware around all routes.

    Args:
        routes: the addresses that there are, for logs and metrics.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Sequence[str]) -> None:
        self._app = app
        self._service = service
        self._config = service.config
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visit = Visit(_request_id(headers), self._route(scope["path"]))
        scope["samespace.visit"] = visit

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = visit.id
            await send(message)

        service = self._service
        service.metrics.held.inc()
        try:
            if FULL in scope:
                raise Refusal(
                    "too-much-at-once",
                    f"a worker has {self._config.connections} connections at a time, and has them.",
                    headers={"retry-after": "1", "connection": "close"},
                )
            await self._pass(scope, headers, receive, sending, visit)
        except Disconnected:
            visit.status = _GONE
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                logging.getLogger("samespace.service").error(
                    "error", exc_info=True, extra={"fields": {"id": visit.id}}
                )
                refusal = Refusal("internal", "the service made an error; its log says more")
            visit.reason = refusal.reason.word
            if visit.status is None:
                await problem(refusal, visit.id)(scope, receive, sending)
        finally:
            service.metrics.held.dec()
            self._note(scope["method"], visit)

    async def _pass(
        self, scope: Scope, headers: Headers, receive: Receive, send: Send, visit: Visit
    ) -> None:
        path = scope["path"]
        if not path.startswith("/v1/") and path != "/metrics":
            await self._app(scope, receive, send)
            return
        config, service = self._config, self._service
        try:
            key = self._who(headers)
            visit.key = key.name if key else "everybody"
            if key:
                _may(key, scope["method"], path)
            self._not_too_often(visit.key)
            with service.holding():
                body = await read_body(receive, headers, config.max_body, config.body_timeout)
                try:
                    async with asyncio.timeout(self._patience(path)):
                        await self._app(scope, given(body, receive), send)
                except TimeoutError:
                    raise Refusal(
                        "request-timeout",
                        f"it was not done within {self._patience(path):g} s. What was to be "
                        "written may still be written, or not: ask again.",
                    ) from None
        except Refusal as refusal:
            if refusal.reason.word != "request-timeout":
                refusal.headers.setdefault("connection", "close")
                await discard_body(receive, headers)
            raise

    def _who(self, headers: Headers) -> Key | None:
        """The key that was shown; None where none is needed, `Refusal` where one is."""
        config, ring = self._config, self._service.keys
        if config.no_keys:
            return None
        if config.is_local and not ring.is_needed:
            _not_another_page(headers)
            return None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        key = ring.find(shown.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise Refusal(
                "no-key",
                "no key that is known here was shown. Send 'Authorization: Bearer KEY'; "
                "'samespace serve keys add' makes one.",
                headers={"www-authenticate": "Bearer"},
            )
        return key

    def _not_too_often(self, key: str) -> None:
        wait = self._service.rate.wait(key)
        if wait:
            raise Refusal(
                "too-many-requests",
                f"{key!r} may make {self._config.rate:g} requests a second, and "
                f"{self._config.burst} at once after a pause.",
                headers={"retry-after": str(math.ceil(wait))},
            )

    def _patience(self, path: str) -> float:
        return _DOWNLOAD_SECONDS if _DOWNLOAD.match(path) else self._config.request_timeout

    def _route(self, path: str) -> str:
        if path in self._routes:
            return path
        if _DOWNLOAD.match(path):
            return "/v1/models/{fingerprint}/bundle/{file}"
        return next((r for start, r in _NAMED.items() if path.startswith(start)), "other")

    def _note(self, method: str, visit: Visit) -> None:
        seconds = time.perf_counter() - visit.started
        method = method if method in _METHODS else "other"
        metrics, status = self._service.metrics, visit.status or _GONE
        metrics.requests.labels(method, visit.route, status).inc()
        metrics.seconds.labels(visit.route).observe(seconds)
        if visit.reason:
            metrics.refusals.labels(visit.reason).inc()
        fields = {"reason": visit.reason} if visit.reason else {}
        say(
            "request",
            logging.ERROR if status >= 500 else logging.INFO,
            id=visit.id,
            key=visit.key,
            method=method,
            route=visit.route,
            status=status,
            ms=round(seconds * 1e3, 2),
            **fields,
        )


def _request_id(headers: Headers) -> str:
    given_id = headers.get("x-request-id", "")
    return given_id if _ID.fullmatch(given_id) else secrets.token_hex(8)


def _may(key: Key, method: str, path: str) -> None:
    """Raise `Refusal` unless a key has the scope for this."""
    needed = "read" if method in ("GET", "HEAD") or path.startswith(_READS) else "write"
    if needed not in key.scopes:
        raise Refusal(
            "no-scope",
            f"this takes a key with the scope {needed}; {key.name!r} has "
            f"{' and '.join(key.scopes)}.",
        )


def _not_another_page(headers: Headers) -> None:
    """Without keys any page in a browser on this machine could ask; only its own may."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _LOCAL.fullmatch(host) or (origin and origin != f"http://{host}"):
        raise Refusal(
            "foreign-page",
            "without keys, only this machine is served, by the name of localhost, and no pages "
            "of other sites. Make a key with 'samespace serve keys add'.",
        )
