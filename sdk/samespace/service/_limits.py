"""How often a key may ask: a token bucket per key, one for all workers.

With several workers the buckets lie in a small file that all of them map, under a lock of the
system that dies with its process. A worker's own share of the rate would not do: a client with one
connection only ever meets one worker.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SLOT = struct.Struct("<16sdd")  # hash of the key's id, tokens, when they were counted
_SLOTS = 1024
_EMPTY = bytes(16)


class RateLimit:
    """Token buckets.

    Args:
        rate: requests a second that a bucket is filled with; 0 for no limit.
        burst: requests that it holds.
        shared: a file for all workers; None for this process alone.
    """

    def __init__(self, rate: float, burst: int, shared: Path | None = None) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._file: int | None = None
        size = _SLOT.size * _SLOTS
        if shared is None:
            self._memory: bytearray | mmap.mmap = bytearray(size)
            return
        self._file = os.open(shared, os.O_CREAT | os.O_RDWR, 0o600)
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)

    def close(self) -> None:
        """Let the file go."""
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def wait(self, key: str, now: float | None = None) -> float:
        """Take a token: 0, or the seconds until there is one."""
        if not self._rate:
            return 0.0
        now = time.time() if now is None else now
        name = hashlib.blake2b(key.encode(), digest_size=16).digest()
        with self._alone():
            place, tokens, then = self._bucket(name, now)
            # A clock that was set back is no reason to wait.
            tokens = min(self._burst, tokens + max(0.0, now - then) * self._rate)
            taken = 1.0 if tokens >= 1 else 0.0
            _SLOT.pack_into(self._memory, place, name, tokens - taken, now)
        return 0.0 if taken else (1 - tokens) / self._rate

    def _bucket(self, name: bytes, now: float) -> tuple[int, float, float]:
        """Place, tokens and time of a key's bucket: its own, or the first free or oldest one."""
        oldest = (now + 1, 0)
        for place in range(0, _SLOT.size * _SLOTS, _SLOT.size):
            owner, tokens, then = _SLOT.unpack_from(self._memory, place)
            if owner == name:
                return place, tokens, then
            if owner == _EMPTY:
                return place, self._burst, now
            oldest = min(oldest, (then, place))
        return oldest[1], self._burst, now

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._file is None:  # one process, whose event loop is one thread
            yield
            return
        import fcntl

        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
