"""Closes connections on which no request ever becomes whole."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0


class PatientProtocol(H11Protocol):
    """uvicorn's own, but one who trickles a request's head, or a body nobody reads, is cut off."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look at the connection now and then."""
        super().connection_made(transport)
        self._last_seen: Any = None
        self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            # Idle. If it was so the last time too, and with no request in between, it is over.
            seen = cycle or self
            if seen is self._last_seen:
                self.transport.close()
                return
            self._last_seen = seen
        self.loop.call_later(HEAD_SECONDS, self._look)
