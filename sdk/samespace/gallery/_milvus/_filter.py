"""Payload filters -> Milvus expressions, so that Milvus filters while it searches.

What a filter means is told in `samespace.gallery._filter`, which also checks it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samespace.gallery._filter import Where, compile_where
from samespace.gallery._milvus._server import quoted

_SIGNS = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_NOTHING = 'id == ""'


def expression(where: Where) -> str:
    """An expression that the items of which all of `where` is true meet; raises `FilterError`."""
    compile_where(where)
    parts = []
    for key, wanted in where.items():
        tests = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
        parts += [f"({_one(_path(key), operator, value)})" for operator, value in tests.items()]
    return " and ".join(parts)


def _one(path: str, operator: str, value: Any) -> str:
    if operator == "exists":
        return f"exists {path}" if value else f"not exists {path}"
    if operator == "ne":
        # Without its own parentheses 'exists' takes all that follows.
        return f"(exists {path}) and (not ({path} == {_literal(value)}))"
    if operator == "in":
        return _any_of(path, list(value))
    return f"{path} {_SIGNS[operator]} {_literal(value)}"


def _any_of(path: str, values: list[Any]) -> str:
    """Milvus takes lists of one kind only."""
    texts = [v for v in values if isinstance(v, str)]
    numbers = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
    others = [v for v in values if isinstance(v, bool | float)]
    parts = [f"{path} == {_literal(v)}" for v in others]
    if texts:
        parts.append(f"{path} in {quoted(texts)}")
    if numbers:
        parts.append(f"{path} in {numbers}")
    return " or ".join(parts) or _NOTHING


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else repr(value)


def _path(key: str) -> str:
    return "payload" + "".join(f"[{quoted(part)}]" for part in key.split("."))
