"""Payload filters -> SQL. Every name and value travels as a parameter, never as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from samespace_edge import FilterError

Where = Mapping[str, Any]

_COMPARE = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_OPERATORS = (*_COMPARE, "in", "exists")


def compile_where(where: Where) -> tuple[str, list[Any]]:
    """An SQL condition on `payload`, and its parameters.

    `{"colour": "red", "price": {"lt": 100}, "size": {"in": ["s", "m"]}, "sale": {"exists": True}}`
    keeps the items of which all of it is true; a dot descends: `{"maker.country": "SE"}`.
    Raises `FilterError` naming what cannot be read.
    """
    if not isinstance(where, Mapping) or not where:
        raise FilterError(f"a filter is a non-empty mapping of payload keys, not {where!r}")
    conditions: list[str] = []
    parameters: list[Any] = []
    for key, wanted in where.items():
        tests = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
        for operator, value in tests.items():
            condition, values = _compile_one(_json_path(key), operator, value, key)
            conditions.append(condition)
            parameters += values
    return " AND ".join(conditions), parameters


def _compile_one(path: str, operator: str, value: Any, key: str) -> tuple[str, list[Any]]:
    extract = "json_extract(payload, ?)"
    if operator == "exists":
        return f"json_type(payload, ?) IS {'NOT NULL' if value else 'NULL'}", [path]
    if operator == "in":
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise FilterError(f"'in' for {key!r} needs a list, not {value!r}")
        values = [_scalar(v, key) for v in value]
        return f"{extract} IN (SELECT value FROM json_each(?))", [path, json.dumps(values)]
    if operator not in _COMPARE:
        raise FilterError(
            f"unknown operator {operator!r} for {key!r}; there are: {', '.join(_OPERATORS)}"
        )
    return f"{extract} {_COMPARE[operator]} ?", [path, _scalar(value, key)]


def _json_path(key: Any) -> str:
    if not isinstance(key, str) or not key or '"' in key or "" in key.split("."):
        raise FilterError(f"{key!r} is not the name of a payload key")
    return "$" + "".join(f'."{part}"' for part in key.split("."))


def _scalar(value: Any, key: str) -> str | int | float:
    if isinstance(value, bool):
        return int(value)  # SQLite's json_extract gives 1 and 0
    if not isinstance(value, str | int | float):
        raise FilterError(f"{key!r} is compared with {value!r}: only text, numbers and booleans")
    return value
