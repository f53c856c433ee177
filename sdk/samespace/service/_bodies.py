"""Vectors and pictures out of a request's body, in any of the ways that they may come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile

from samespace.service._models import AddVectors, QueryVectors
from samespace.service._problems import Refusal
from samespace_edge import ConfigError, DimensionError, FilterError

Vectors = NDArray[np.float32]
M = TypeVar("M", bound=BaseModel)

BINARY = "application/octet-stream"
JSON = "application/json"
FORM = "multipart/form-data"
PICTURES = "image/*"


def content_type(request: Request, taken: Sequence[str]) -> str:
    """Which of the types that are taken the body has; raises `Refusal`."""
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    for kind in taken:
        if given == kind or (kind == PICTURES and given.startswith("image/")):
            return kind
    raise Refusal(
        "wrong-type",
        f"a body of type {given or 'unknown'!r} is not taken here; {' or '.join(taken)} is.",
    )


def table(vectors: Sequence[Sequence[float]]) -> Vectors:
    """Rows of numbers as an array (N, D); raises `DimensionError` where they differ in width."""
    widths = sorted({len(v) for v in vectors})
    if len(widths) != 1:
        raise DimensionError(f"the vectors of one request have one width, not {widths}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return np.array(vectors, np.float64).astype(np.float32)


def floats(body: bytes, width: int, count: int | None) -> Vectors:
    """Little-endian float32 as an array (N, width); raises `DimensionError`."""
    if not body or len(body) % (4 * width) or count not in (None, len(body) // (4 * width)):
        raise DimensionError(
            f"{'' if count is None else f'{count} '}vectors of {width} float32 numbers take "
            f"{4 * width} bytes each; the body has {len(body)}"
        )
    return np.frombuffer(body, "<f4").reshape(-1, width).astype(np.float32)


async def query_vectors(request: Request, width: int, count: int | None) -> Vectors:
    """The queries of a search (N, D), from JSON or binary.

    Args:
        width: of the vectors, D.
        count: how many they are said to be, if it is said.
    """
    kind = content_type(request, (JSON, BINARY))
    body = await request.body()
    if kind == BINARY:
        return floats(body, width, count)
    made = table(QueryVectors.model_validate_json(body).vectors)
    if count not in (None, len(made)):
        raise DimensionError(f"the body has {len(made)} vectors, not {count}")
    return made


async def pictures(request: Request) -> list[bytes]:
    """Encoded pictures: the whole body, or the fields `image` of a form."""
    if content_type(request, (PICTURES, BINARY, FORM)) != FORM:
        return [await request.body()]
    return await _files(await _form(request))


async def new_pictures(request: Request) -> tuple[list[str], list[bytes], list[Any] | None]:
    """Ids, pictures and payloads out of a form."""
    content_type(request, (FORM,))
    form = await _form(request)
    ids = [str(v) for v in form.getlist("id")]
    texts = form.getlist("payload")
    return ids, await _files(form), [parsed(v) for v in texts] if texts else None


async def new_vectors(request: Request) -> AddVectors:
    """Items with their vectors, from JSON."""
    return await checked(request, AddVectors)


async def checked(request: Request, model: type[M]) -> M:
    """A JSON body as a model says; raises `ValidationError`."""
    content_type(request, (JSON,))
    return model.model_validate_json(await request.body())


def parsed(text: Any) -> Any:
    """JSON from a text in a form; raises `ConfigError`."""
    try:
        return from_json(str(text), allow_inf_nan=False)
    except ValueError as error:
        raise ConfigError(f"a payload is not JSON: {error}") from None


def condition(text: str | None) -> dict[str, Any] | None:
    """A filter from its JSON text; raises `FilterError`."""
    if text is None:
        return None
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise FilterError(f"the filter is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FilterError(f"a filter is a JSON object, not {json.dumps(value)[:40]}")
    return value


async def _form(request: Request) -> FormData:
    return await request.form(max_files=1000, max_fields=2000, max_part_size=2**20)


async def _files(form: FormData) -> list[bytes]:
    files = form.getlist("image")
    if not files or not all(isinstance(f, UploadFile) for f in files):
        raise ConfigError("the form has no files named 'image'")
    return [await f.read() for f in files if isinstance(f, UploadFile)]
