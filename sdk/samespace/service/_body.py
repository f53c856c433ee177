"""Reads a body while it comes in, and stops at a size and at a time."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from samespace.service._problems import Refusal

_PATIENCE = 1.0  # seconds for which the rest of a refused body is read
_CLOSE = {"connection": "close"}


class Disconnected(Exception):
    """The client went away before its body was there."""


async def read_body(receive: Receive, headers: Headers, limit: int, seconds: float) -> bytes:
    """The whole body; raises `Refusal` for one too large or too slow, and `Disconnected`.

    Args:
        limit: in bytes.
        seconds: within which all of it has to be there.
    """
    announced = headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                body += message.get("body", b"")
                if len(body) > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refusal(
            "slow-body",
            f"{len(body)} bytes of the body came within {seconds:g} s, and not its end. "
            "Send a smaller picture, or over a better connection.",
            headers=_CLOSE,
        ) from None


def _too_large(limit: int) -> Refusal:
    return Refusal(
        "body-too-large",
        f"the body has more than the {limit:,} bytes that are taken. Send a smaller picture, or "
        "fewer vectors at a time.",
        headers=_CLOSE,
    )


async def discard_body(receive: Receive, headers: Headers) -> None:
    """Read on for a moment what a refused request still sends.

    Closing at once would reset the connection, and the answer with it, while the client writes.
    """
    if headers.get("expect") or ("content-length" not in headers and not _is_chunked(headers)):
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _is_chunked(headers: Headers) -> bool:
    return "transfer-encoding" in headers


def given(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
