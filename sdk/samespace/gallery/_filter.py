"""Payload filters -> SQL. Every name and value travels as a parameter, never as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from samespace_edge import FilterError

Where = Mapping[str, Any]

_COMPARE = {"eq": "=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_OPERATORS = (*_COMPARE, "ne", "in", "exists")
_KINDS_OF = {"boolean": ("true", "false"), "text": ("text",), "number": ("integer", "real")}
"""What SQLite calls the types of JSON."""

_MOST = 900  # comparisons; SQLite takes a thousand in a row


def compile_where(where: Where) -> tuple[str, list[Any]]:
    """An SQL condition on `payload`, and its parameters.

    `{"colour": "red", "price": {"lt": 100}, "size": {"in": ["s", "m"]}, "sale": {"exists": True}}`
    keeps the items of which all of it is true; a dot descends: `{"maker.country": "SE"}`. Numbers
    are compared with numbers and texts with texts; an item without the key passes only
    `exists: False`. Raises `FilterError` naming what cannot be read.
    """
    if not isinstance(where, Mapping) or not where:
        raise FilterError(f"a filter is a non-empty mapping of payload keys, not {where!r}")
    conditions: list[str] = []
    parameters: list[Any] = []
    for key, wanted in where.items():
        tests = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
        if not tests:
            raise FilterError(f"the filter on {key!r} says nothing; give a value or an operator")
        for operator, value in tests.items():
            condition, values = _compile_one(_json_path(key), operator, value, key)
            conditions.append(f"({condition})")
            parameters += values
    condition = " AND ".join(conditions)
    if condition.count("json_type") > _MOST:
        raise FilterError(f"the filter compares with more than {_MOST} values")
    try:
        "".join(p for p in parameters if isinstance(p, str)).encode()
    except UnicodeEncodeError as error:
        raise FilterError(f"a filter's {error.object[error.start]!r} is no valid text") from None
    return condition, parameters


def compared_kinds(where: Where) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return every key that `where` compares with a value: its name, its JSON path, and the JSON
    types of SQLite that can pass. The filter has to compile."""
    found = []
    for key, wanted in where.items():
        tests = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
        values = [
            value
            for operator, given in tests.items()
            if operator not in ("exists", "ne")
            for value in (given if operator == "in" else [given])
        ]
        kinds = sorted({kind for v in values for kind in _KINDS_OF[_kind(v, key)]})
        if kinds:
            found.append((str(key), _json_path(key), tuple(kinds)))
    return found


def _compile_one(path: str, operator: str, value: Any, key: str) -> tuple[str, list[Any]]:
    if operator == "exists":
        return f"json_type(payload, ?) IS {'NOT NULL' if value else 'NULL'}", [path]
    if operator == "in":
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise FilterError(f"'in' for {key!r} needs a list, not {value!r}")
        alternatives = [_compare(path, "=", v, key) for v in value]
        if not alternatives:
            return "0", []
        return " OR ".join(c for c, _ in alternatives), [p for _, ps in alternatives for p in ps]
    if operator == "ne":
        condition, values = _compare(path, "=", value, key)
        return f"json_type(payload, ?) IS NOT NULL AND NOT ({condition})", [path, *values]
    if operator not in _COMPARE:
        raise FilterError(
            f"unknown operator {operator!r} for {key!r}; there are: {', '.join(_OPERATORS)}"
        )
    return _compare(path, _COMPARE[operator], value, key)


def _compare(path: str, sign: str, value: Any, key: str) -> tuple[str, list[Any]]:
    """A comparison that only values of the same kind can pass: SQLite alone would sort every
    text above every number."""
    kinds = _kinds(value, key)
    stored = int(value) if isinstance(value, bool) else value
    condition = f"json_type(payload, ?) IN ({kinds}) AND json_extract(payload, ?) {sign} ?"
    return condition, [path, path, stored]


def _json_path(key: Any) -> str:
    if not isinstance(key, str) or set(key) & {'"', "\0"} or "" in key.split("."):
        raise FilterError(f"{key!r} is not the name of a payload key")
    return "$" + "".join(f'."{part}"' for part in key.split("."))


def _kinds(value: Any, key: str) -> str:
    return ", ".join(f"'{kind}'" for kind in _KINDS_OF[_kind(value, key)])


def _kind(value: Any, key: str) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int) and abs(value) < 2**63:
        return "number"
    if isinstance(value, float) and math.isfinite(value):
        return "number"
    raise FilterError(
        f"{key!r} is compared with {value!r}: only text, booleans and numbers of 64 bits"
    )
