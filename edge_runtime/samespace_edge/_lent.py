"""Lends what serves one call at a time, such as an interpreter, to the calls of many threads."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Lent:
    """Lends each thing to one call at a time, and makes another where none is idle.

    Args:
        make: makes one.
        most: how many there may be. When all of them are lent, calls wait in the order in which
            they came. With a plain lock the same few threads would go on and on, and others wait
            for seconds.
    """

    def __init__(self, make: Callable[[], Any], most: int) -> None:
        self.most = most
        self._make = make
        self._places: list[Any] = [None] * most  # the idle ones; None where none was made yet
        self._lock = threading.Lock()
        self._waiting: deque[SimpleQueue[Any]] = deque()
        _ALL.add(self)

    @property
    def idle(self) -> int:
        """How many were made and are not lent."""
        return sum(place is not None for place in self._places)

    def call(self, act: Callable[[Any], T]) -> T:
        """Return what `act` makes with one that it has for itself; raises what `make` raises."""
        lent = self._take()
        try:
            if lent is None:
                lent = self._make()
            return act(lent)
        finally:
            self._give(lent)

    def forked(self) -> None:
        """Start again in a forked child, where what the parent's threads borrowed stays away."""
        self._places = [None] * (self.most - len(self._places)) + self._places
        self._lock = threading.Lock()
        self._waiting = deque()

    def _take(self) -> Any:
        with self._lock:
            if self._places:
                return self._places.pop()
            turn: SimpleQueue[Any] = SimpleQueue()
            self._waiting.append(turn)
        try:
            return turn.get()
        except BaseException:  # Ctrl-C: what comes nevertheless goes to the next call
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise
            self._give(turn.get())
            raise

    def _give(self, lent: Any) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(lent)
            elif lent is None:
                self._places.insert(0, None)
            else:
                self._places.append(lent)  # the next to go: its memory is still in the caches


_ALL: WeakSet[Lent] = WeakSet()


def _after_fork() -> None:
    for lent in list(_ALL):
        lent.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
