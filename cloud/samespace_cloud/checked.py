"""What every frozen value of settings checks alike."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

_SEEDS = 2**32


def not_numbers(settings: Any) -> list[str]:
    """`name = value` of a dataclass's fields of the type int or float that hold another thing.

    Floats have to be finite, and fields whose name ends in `seed` from 0 to below 2^32. A field of
    the type `int | None` or `float | None` may be None.
    """
    wrong = []
    for field in fields(settings):
        kind, _, none = str(field.type).partition(" | ")
        value = getattr(settings, field.name)
        if kind not in ("int", "float") or (none and value is None):
            continue
        fits = isinstance(value, int if kind == "int" else (int, float))
        fits &= not isinstance(value, bool)
        if fits and kind == "float":
            fits = math.isfinite(value)
        if fits and field.name.endswith("seed"):
            fits = 0 <= value < _SEEDS
        if not fits:
            wrong.append(f"{field.name} = {value!r}")
    return wrong
