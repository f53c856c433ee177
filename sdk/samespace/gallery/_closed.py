"""Stands where a connection was, after it was closed."""

from __future__ import annotations

from typing import Any, NoReturn

from samespace_edge import GalleryError


class _Closed:
    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> NoReturn:
        raise GalleryError(f"{self._what} was closed. Open it again to use it.")


def closed(what: str) -> Any:
    """Return an object that raises `GalleryError` for every use.

    Args:
        what: what was closed, for the message.
    """
    return _Closed(what)
