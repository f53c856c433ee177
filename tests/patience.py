"""How tests wait: for what has to come, and never for a number of seconds to pass.

A test that waits for seconds, or says how many of them something may take, fails on a machine that
is slow or busy. So it asks until the answer is there; only what hangs takes as long as `PATIENCE`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 900.0
"""Seconds after which what is waited for is taken to hang. No result depends on it."""

T = TypeVar("T")


def until(ask: Callable[[], T], every: float = 0.02) -> T:
    """Return the first answer that is true.

    Args:
        ask: what is asked again and again.
        every: seconds between two questions.

    Raises `AssertionError` with the last answer if none is true within `PATIENCE`.
    """
    ended = time.monotonic() + PATIENCE
    while not (answer := ask()):
        assert time.monotonic() < ended, f"it hangs: {ask} answers {answer!r}"
        time.sleep(every)
    return answer
