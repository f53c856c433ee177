"""Answers that say no: `application/problem+json` (RFC 9457) with a stable type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from samespace._reasons import REASONS, reason_of
from samespace_edge import SamespaceError

TYPE = "urn:samespace:problem:"
_SHOWN = 5


class Refusal(Exception):
    """A request is refused, for one of the reasons of `samespace._reasons`.

    Args:
        word: the reason.
        detail: a sentence for people: both sides, and the way out.
        headers: of the answer.
        status: another one than the reason's own.
    """

    def __init__(
        self,
        word: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = REASONS[word]
        self.headers = dict(headers or {})
        self.status = status or self.reason.status


def problem(refusal: Refusal, request_id: str) -> JSONResponse:
    """The answer for a refusal."""
    return JSONResponse(
        {
            "type": TYPE + refusal.reason.word,
            "title": refusal.reason.title,
            "status": refusal.status,
            "detail": str(refusal),
            "reason": refusal.reason.word,
            "request_id": request_id,
        },
        refusal.status,
        refusal.headers,
        "application/problem+json",
    )


def refusal_of(error: Exception) -> Refusal | None:
    """What an error of the gallery, of a check or of the framework is refused as, if at all."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, SamespaceError):
        reason = reason_of(error)
        if reason is None:
            return None
        again = {"retry-after": "1"} if reason.status == 503 else {}
        return Refusal(reason.word, str(error), headers=again)
    if isinstance(error, RequestValidationError | ValidationError):
        return Refusal("bad-request", _told(error.errors()))
    if isinstance(error, HTTPException):
        word = {404: "not-found", 405: "wrong-method"}.get(error.status_code, "bad-request")
        return Refusal(word, error.detail, headers=error.headers, status=error.status_code)
    return None


def _told(errors: Any) -> str:
    """Where and why a check failed; never what was sent."""
    lines = [f"{'.'.join(str(x) for x in e['loc']) or 'body'}: {e['msg']}" for e in errors]
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def answer_problems(app: FastAPI) -> None:
    """Make the app answer its errors as problems; those that are none of these go up."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        refusal = refusal_of(error)
        if refusal is None:
            raise error
        visit = request.scope["samespace.visit"]
        visit.reason = refusal.reason.word
        if refusal.reason.word == "wrong-method":
            # The framework only knows the methods of the first route that fits.
            known = app.openapi()["paths"].get(visit.route, {})
            refusal.headers["allow"] = ", ".join(sorted(m.upper() for m in known)) or "GET"
        return problem(refusal, visit.id)

    for kind in (
        Refusal,
        SamespaceError,
        RequestValidationError,
        ValidationError,
        HTTPException,
    ):
        app.add_exception_handler(kind, answer)
