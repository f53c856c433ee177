"""Parts of the OpenAPI document that FastAPI cannot tell from the routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samespace._reasons import REASONS
from samespace.service._models import Problem

Schema = dict[str, Any]


def _refused() -> dict[int | str, dict[str, Any]]:
    words: dict[int, list[str]] = {}
    for reason in REASONS.values():
        words.setdefault(reason.status, []).append(reason.word)
    words.setdefault(400, ["bad-request"])
    return {
        status: {
            "description": ", ".join(sorted(found)),
            "content": {"application/problem+json": {"schema": _REFERENCE}},
        }
        for status, found in sorted(words.items())
    }


_REFERENCE = {"$ref": "#/components/schemas/Problem"}
REFUSED = _refused()
"""What every route may be refused with."""

SECURITY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "Of 'samespace serve keys add'. Searching and looking take the scope "
        "`read`, adding and deleting the scope `write`.",
    }
}


def file_of(description: str = "a picture: JPEG, PNG, WebP, GIF, BMP, TIFF or PPM") -> Schema:
    """The schema of bytes."""
    return {"type": "string", "format": "binary", "description": description}


def form_of(properties: Mapping[str, Schema]) -> Schema:
    """The schema of a form."""
    needed = [name for name in properties if name != "payload"]
    return {"type": "object", "properties": dict(properties), "required": needed}


def body_of(contents: Mapping[str, Schema]) -> dict[str, Any]:
    """A body that is needed, in one of several types."""
    content = {kind: {"schema": schema} for kind, schema in contents.items()}
    return {"requestBody": {"required": True, "content": content}}


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with keys, and without what FastAPI says of its own errors."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema()
    document["components"]["securitySchemes"] = SECURITY
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path.startswith("/v1/") or path == "/metrics":
                operation["security"] = [{"key": []}]
    return document
