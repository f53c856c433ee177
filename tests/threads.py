"""Many threads at one object, all at the same moment and taking turns as often as Python can."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

THREADS = 8
_PATIENCE = 120.0  # seconds, after which something waits for ever


def at_once(act: Callable[[int], T], threads: int = THREADS) -> list[T]:
    """What `act` returns in each of the threads, which are numbered; raises the first error."""
    made: dict[int, T] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(threads)

    def work(number: int) -> None:
        try:
            start.wait(_PATIENCE)
            made[number] = act(number)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(threads)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # instead of 5 ms: threads meet in many more places
    try:
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(_PATIENCE)
    finally:
        sys.setswitchinterval(before)
    if errors:
        raise errors[0]
    assert len(made) == threads, "a thread waits for ever"
    return [made[n] for n in range(threads)]
