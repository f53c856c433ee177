"""Calls to Milvus: what it means when one fails, and how fresh what is read has to be."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from samespace.gallery._closed import closed
from samespace.gallery._milvus._address import Address
from samespace.gallery._milvus._wire import Columns, upsert_request
from samespace_edge import (
    ConfigError,
    GalleryBusyError,
    GalleryError,
    GalleryStorageError,
    RuntimeUnavailableError,
    SamespaceError,
)

Made = TypeVar("Made")

AS_OLD = 6.0
"""Seconds after which a write is seen by reads that allow for Milvus's usual five."""

OLDEST = (2, 3)
"""The oldest version of Milvus that has upserts by text ids and JSON fields."""

PAGE = 4096  # rows of one answer
_ANSWER = 16 << 20  # bytes of vectors in one
_IDS = 2000  # in one expression
_AGAIN = 0.3  # seconds between two tries

_UNREACHABLE = (
    "unavailable",
    "deadline",
    "fail connecting",
    "failed to connect",
    "connection refused",
    "connection reset",
    "socket closed",
    "illegal connection params",
    "retry run out",
    "timed out",
    "timeout",
)
_NOT_READY = (
    "not loaded",
    "not fully loaded",
    "not ready",
    "not healthy",
    "no available",
    "not available",
    "offline",
    "on recovering",
    "node not found",
    "node not match",
    "lag too large",
    "channel not found",
    "not subscribed",
    "is initializing",
    "is abnormal",
    "no replica",
)
_REFUSED = (
    "auth check failure",
    "missing authorization",
    "unauthenticated",
    "permission deny",
    "permissiondenied",
)
_FULL = ("quota", "no space", "force deny", "disk", "insufficient memory", "oom")


class Server:
    """A connection, for one gallery. Safe to use from several threads.

    Args:
        address: where, and how.
    """

    def __init__(self, address: Address) -> None:
        try:
            import pymilvus
        except ImportError:
            raise RuntimeUnavailableError(
                "a gallery in Milvus needs pymilvus: pip install 'samespace[milvus]'"
            ) from None
        # Its errors are raised here, as ours; it would print each with a trace besides.
        for name in ("pymilvus", "pymilvus.decorators", "pymilvus.client.connection_manager"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.address = address
        self._is_closed = False
        self._types = pymilvus.DataType
        self._wrote: dict[str, float] = {}
        self._lock = threading.Lock()
        secure = bool(address.options.get("secure"))
        uri = f"{'https' if secure else 'http'}://{address.server}"
        try:
            self.client: Any = self.call(
                lambda timeout: pymilvus.MilvusClient(uri=uri, timeout=timeout, **address.options)
            )
        except GalleryBusyError as error:
            # A failed handshake looks like nobody being there.
            hint = (
                "Its certificate has to be signed by SAMESPACE_MILVUS_CA for this host."
                if secure
                else "Where it speaks TLS, set SAMESPACE_MILVUS_TLS=1."
            )
            raise GalleryBusyError(f"{error} {hint}") from None
        version = self.call(lambda timeout: self.client.get_server_version(timeout=timeout))
        try:
            require_version(str(version), address.server)
            self._require_database()
        except SamespaceError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        if self._is_closed:
            return
        self._is_closed = True
        self.client.close()
        self.client = closed(f"gallery {self.address.url}")

    def _require_database(self) -> None:
        """Raise `ConfigError` where there is none of the name; Milvus would say there is nothing
        in it."""
        wanted = self.address.options["db_name"]
        if not wanted:
            return
        found = self.call(lambda timeout: self.client.list_databases(timeout=timeout))
        if wanted not in found:
            raise ConfigError(
                f"the Milvus at {self.address.server} has no database {wanted!r} "
                f"(SAMESPACE_MILVUS_DATABASE); it has: {', '.join(sorted(found))}"
            )

    # errors

    def call(self, do: Callable[[float], Made], patience: float = 1.0) -> Made:
        """What `do` returns; tried again while Milvus is not there or still loading.

        Args:
            do: takes the seconds that it has. Has to be harmless when done twice.
            patience: how many times the usual timeout it may take.

        Raises `GalleryBusyError` after that, other errors at once.
        """
        until = time.monotonic() + self.address.timeout * patience
        while True:
            left = until - time.monotonic()
            try:
                return do(max(left, 0.1))
            except Exception as error:
                told = self._told(error)
                if told is None:
                    raise
                if not isinstance(told, GalleryBusyError) or left <= _AGAIN:
                    raise told from None
            time.sleep(_AGAIN)

    def _told(self, error: Exception) -> Exception | None:
        """What a failure means for the gallery; None where it is not Milvus's."""
        import grpc
        from pymilvus.exceptions import MilvusException

        if not isinstance(error, MilvusException | grpc.RpcError | grpc.FutureTimeoutError):
            return None
        text = str(getattr(error, "message", "") or error) or type(error).__name__
        if isinstance(error.__cause__, grpc.RpcError):  # pymilvus says the same of all of them
            text = str(error.__cause__.details() or text)
        low = f"{type(error).__name__} {error} {text}".lower()
        where = f"gallery {self.address.url}"
        said = text.splitlines()[0][:300]
        if any(word in low for word in _REFUSED):
            return ConfigError(
                f"{where}: Milvus refuses the user ({said}); set SAMESPACE_MILVUS_USER and "
                "SAMESPACE_MILVUS_PASSWORD, or SAMESPACE_MILVUS_TOKEN"
            )
        if any(word in low for word in _NOT_READY):
            return GalleryBusyError(
                f"{where}: Milvus is up and not ready yet ({said}). Nothing that it acknowledged "
                "is lost; after a start it takes it up to a minute to load. Try again."
            )
        if any(word in low for word in _UNREACHABLE) or isinstance(error, grpc.FutureTimeoutError):
            return GalleryBusyError(
                f"{where}: Milvus does not answer at {self.address.server} within "
                f"{self.address.timeout:g} s ({said}). What it acknowledged is kept; what this "
                "call was writing may be there or not, so when Milvus is up do it again (add with "
                "replace=True)."
            )
        if any(word in low for word in _FULL):
            return GalleryStorageError(
                f"{where}: Milvus takes no more ({said}). Give it more memory or disk."
            )
        return GalleryError(f"{where}: Milvus says: {said}")

    # reading

    def level(self, collection: str, latest: bool) -> str:
        """How fresh a read has to be.

        Args:
            latest: whether it has to see what others wrote the moment before; that waits for
                Milvus's clock, 0.2 to 0.4 s. Otherwise it sees all that this process wrote, and
                what others did until five seconds ago.
        """
        if latest or self.address.strong:
            return "Strong"
        wrote = self._wrote.get(collection, -AS_OLD)
        return "Session" if time.monotonic() - wrote < AS_OLD else "Bounded"

    def query(
        self,
        collection: str,
        expression: str,
        fields: Sequence[str],
        *,
        level: str,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rows that meet an expression, in no order."""
        more = {} if limit is None else {"limit": limit}
        return self.call(
            lambda timeout: list(
                self.client.query(
                    collection,
                    filter=expression,
                    output_fields=list(fields),
                    consistency_level=level,
                    timeout=timeout,
                    **more,
                )
            )
        )

    def count(self, collection: str, expression: str = "", *, level: str = "Strong") -> int:
        """Number of rows that meet an expression; all of them without one."""
        found = self.query(collection, expression, ["count(*)"], level=level)
        return int(found[0]["count(*)"])

    def by_id(
        self, collection: str, ids: Sequence[str], fields: Sequence[str], *, level: str
    ) -> list[dict[str, Any]]:
        """Rows with these primary keys; those that are not there are left out."""
        found = []
        for start in range(0, len(ids), _IDS):
            part = ids[start : start + _IDS]
            found += self.query(collection, f"id in {quoted(part)}", fields, level=level)
        return found

    def pages(
        self,
        collection: str,
        fields: Sequence[str],
        *,
        dim: int,
        where: str = "",
        after: str = "",
        size: int = PAGE,
        latest: bool = True,
    ) -> Iterator[list[dict[str, Any]]]:
        """All rows that meet a condition in order of their ids, in lists.

        Args:
            dim: width of the vectors among the fields, 0 without.
            after: an id; only what comes after it.
            size: of the largest list.
            latest: see `level`.
        """
        size = max(1, min(size, _ANSWER // (4 * dim + 1024)))
        level = self.level(collection, latest)
        while True:
            condition = f"id > {quoted(after)}" + (f" and ({where})" if where else "")
            try:
                rows = self.query(collection, condition, fields, level=level, limit=size)
            except GalleryError as error:
                if size == 1 or "larger than max" not in str(error):
                    raise
                size = max(1, size // 4)  # large payloads
                continue
            if not rows:
                return
            rows.sort(key=lambda row: str(row["id"]).encode())
            yield rows
            if len(rows) < size:
                return
            after = rows[-1]["id"]
            level = self.level(collection, False)

    # writing

    def write(self, collection: str, columns: Columns) -> None:
        """Upsert rows, given by column; durable when it returns."""
        client, request = self.client, upsert_request(collection, columns)
        handler, context = client._get_connection(), client._generate_call_context()
        self._written(collection)
        self.call(
            lambda timeout: handler.upsert(
                collection,
                [],
                timeout=timeout,
                context=context,
                upsert_param=request,
                schema={"fields": []},  # or it would ask for it
            ),
            patience=6,
        )
        self._written(collection)

    def delete(self, collection: str, expression: str) -> None:
        """Delete rows that meet an expression; durable when it returns."""
        self._written(collection)
        self.call(
            lambda timeout: self.client.delete(collection, filter=expression, timeout=timeout)
        )
        self._written(collection)

    def _written(self, collection: str) -> None:
        with self._lock:
            self._wrote[collection] = time.monotonic()

    @property
    def types(self) -> Any:
        """pymilvus.DataType."""
        return self._types


def require_version(version: str, server: str) -> None:
    """Raise `GalleryError` for a Milvus that lacks what a gallery needs."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        raise GalleryError(
            f"the Milvus at {server} is {version}; a gallery needs {OLDEST[0]}.{OLDEST[1]} or newer"
        )


def quoted(value: str | Sequence[str]) -> str:
    """A text, or a list of texts, as an expression has it; raises `ConfigError`."""
    text = json.dumps(value if isinstance(value, str) else list(value), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{value!r} is no valid text, so it cannot be an id") from None
    return text
