"""torch's table of the operators that it can export, built once for all exports of a process."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def kept_operators() -> Iterator[None]:
    """Let `torch.onnx.export` keep its table of operators from one export to the next.

    torch builds the table for every export, and reads the source of 500 functions for that: most of
    the time that a small model takes. An export only reads the table, as long as it is given no
    `custom_translation_table`. With a torch that builds it in another way this does nothing.
    """
    try:
        import torch
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        # A library that brings operators makes another table.
        count = len(torch._C._dispatch_get_all_op_names())
        given = ONNXRegistry.__dict__["from_torchlib"]
    except (ImportError, KeyError, AttributeError):
        yield
        return
    build = functools.partial(_table, ONNXRegistry.from_torchlib, count)
    ONNXRegistry.from_torchlib = staticmethod(build)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = given  # type: ignore[method-assign]


@functools.lru_cache(maxsize=2)
def _table(build: Callable[..., Any], operators: int, **how: Any) -> Any:
    return build(**how)
