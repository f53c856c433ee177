"""Requests that are made again where that is safe, and refusals turned back into errors."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from samespace._reasons import REASONS
from samespace_edge import (
    ConfigError,
    KeyRefusedError,
    SamespaceError,
    ServiceBusyError,
    ServiceError,
    ServiceUnreachableError,
)

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0
_LONGEST_ASKED = 60.0
_NOTHING_WAS_DONE = (429, 503)
_PERHAPS_DONE = (502, 504)
_PERHAPS_IN_PART = "gallery-busy"  # what a server of galleries did not answer in time
_KEY = re.compile(r"[!-~]+")


class Http:
    """A connection pool to one service.

    Args:
        url: the service's, without `/v1`.
        key: API key.
        timeout: seconds to wait for each answer.
        retries: how often a request is made again.
    """

    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        try:
            import httpx
        except ImportError:
            raise ConfigError('the client needs httpx: pip install "samespace[client]"') from None
        if retries < 0 or not timeout > 0:
            raise ConfigError(f"retries {retries} and timeout {timeout} cannot be used")
        if key and not _KEY.fullmatch(key):
            raise ConfigError("a key is printable and has no spaces; this one is not a key")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            address = httpx.URL(url)
            if address.scheme not in ("http", "https") or not address.host:
                raise ValueError("it reads http://HOST:PORT or https://HOST")
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError(f"cannot use the address {url!r}: {error}") from None
        self._client = httpx.Client(base_url=address, headers=headers, timeout=timeout)
        # Of these, the request never left.
        self._unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
        self._lost = httpx.TransportError
        self._url = url
        self._retries = retries

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        again: bool = True,
        **body: Any,
    ) -> Any:
        """The JSON of an answer.

        Args:
            params: of the query; those that are None are left out.
            again: whether making the request twice does the same as once. If not, it is made
                again only where nothing can have been done.
            body: as `httpx` takes it: `json`, `content`, `files`, `data`, `headers`.

        Raises what the service refused it for, and `ServiceUnreachableError`.
        """
        query = {name: value for name, value in (params or {}).items() if value is not None}
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            wait = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                answer = self._client.request(method, path, params=query, **body)
            except self._lost as error:
                if is_last or not (again or isinstance(error, self._unsent)):
                    raise ServiceUnreachableError(
                        f"{self._url} did not answer {method} {path}: "
                        f"{str(error) or type(error).__name__}. Is the service running there?"
                    ) from None
                time.sleep(wait)
                continue
            status = answer.status_code
            if status < 400:
                return _json(answer)
            told = _json(answer)
            if is_last or not _may_again(status, told, again):
                raise _error(status, told)
            time.sleep(max(wait, _pause(answer.headers.get("retry-after"))))
        raise AssertionError("unreachable")


def _may_again(status: int, told: Any, again: bool) -> bool:
    if again:
        return status in (*_NOTHING_WAS_DONE, *_PERHAPS_DONE)
    word = told.get("reason") if isinstance(told, dict) else None
    return status in _NOTHING_WAS_DONE and word != _PERHAPS_IN_PART


def _pause(text: str | None) -> float:
    """Seconds that `retry-after` asks for, a minute at most; it may be a date."""
    if not text:
        return 0.0
    try:
        asked = float(text) if text.isdigit() else _until(parsedate_to_datetime(text))
    except ValueError:
        return 0.0
    return min(max(asked, 0.0), _LONGEST_ASKED)


def _until(moment: datetime) -> float:
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - time.time()


def _json(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        if answer.status_code < 400:
            raise ServiceError(
                f"{answer.url} did not answer with JSON; is it a samespace service?",
                status=answer.status_code,
            ) from None
        return None


def _error(status: int, problem: Any) -> SamespaceError:
    """What a refusal stands for; also of a proxy that knows nothing of problems."""
    told = problem if isinstance(problem, dict) else {}
    detail = str(told.get("detail") or f"the service answered with the status {status}")
    reason = REASONS.get(str(told.get("reason")))
    if reason is None:
        busy = status in _NOTHING_WAS_DONE
        kind = ServiceBusyError if busy else KeyRefusedError if status == 401 else ServiceError
        return kind(detail, status=status)
    if issubclass(reason.error, ServiceError):
        return reason.error(detail, status=status, reason=reason.word)
    return reason.error(detail)
