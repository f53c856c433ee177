"""Cuts off connections on which no request ever becomes whole, or whose answers nobody takes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

FULL = "samespace.full"
"""In the scope of requests that come over a connection too many."""


class PatientProtocol(H11Protocol):
    """uvicorn's own, with an end to patience.

    One who trickles a request's head, or a body that nobody reads, is cut off after one to two
    times `head_seconds`; so is one who takes nothing of his answer for as long.

    Attributes:
        head_seconds: see there.
        most: connections that are served at a time; requests on more of them are refused.
    """

    head_seconds = 10.0
    most = 500

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look at the connection now and then."""
        super().connection_made(transport)
        # Head and body are two writes: Nagle's algorithm would hold the second one for 40 ms.
        # asyncio turns it off only for sockets that were made with their protocol spelled out.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._last_seen: Any = None
        self._taken = 0
        self._stuck: tuple[int, int] | None = None
        if len(self.connections) > self.most:
            self.app = _on_one_too_many(self.app)
            self.loop.call_later(1.0, self._close_unused)
        self.loop.call_later(self.head_seconds, self._look)

    def resume_writing(self) -> None:
        """Something of an answer was taken."""
        self._taken += 1
        super().resume_writing()

    def _close_unused(self) -> None:
        if self.cycle is None:
            self.transport.close()

    def _look(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        stuck = (self._taken, waiting) if waiting else None
        if stuck and stuck == self._stuck:
            self.transport.abort()
            return
        self._stuck = stuck
        if self.transport.is_closing():
            if waiting:
                self.loop.call_later(self.head_seconds, self._look)
            return
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            # Idle. If it was so the last time too, and with no request in between, it is over.
            seen = cycle or self
            if seen is self._last_seen and not waiting:
                self.transport.close()
                return
            self._last_seen = seen
        self.loop.call_later(self.head_seconds, self._look)


def _on_one_too_many(app: Any) -> ASGIApp:
    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, FULL: True}, receive, send)

    return marked
