"""Checksums of whole files, so that what was not closed cleanly, or was changed, is noticed."""

from __future__ import annotations

import json
import os
import threading
import zlib
from pathlib import Path

from samespace_edge._temporary import temporary_for

_SUM = "gallery.sum"


def file_crc(path: Path) -> int:
    """CRC32 of a file's content."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


class _Handles:
    """Reads databases without taking SQLite's locks from it.

    A lock on a file belongs to the process, and closing any handle on the file drops it ("How To
    Corrupt An SQLite Database File", section 2.2). Who opened the database next would then think
    himself alone, and take the log away under us, with all that we go on to write to it. So a
    handle on a database that this process has open is closed only after the database.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[tuple[int, int], int] = {}
        self._waiting: dict[tuple[int, int], list[int]] = {}

    def opened(self, path: Path) -> tuple[int, int]:
        """Note that SQLite has the database open; returns what to give to `closed`."""
        file = _file(os.stat(path))
        with self._lock:
            self._users[file] = self._users.get(file, 0) + 1
        return file

    def closed(self, file: tuple[int, int]) -> None:
        """Note that SQLite has closed it."""
        with self._lock:
            self._users[file] -= 1
            if not self._users[file]:
                del self._users[file]
                for handle in self._waiting.pop(file, []):
                    os.close(handle)

    def crc(self, path: Path) -> int:
        """CRC32 of a database."""
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            crc = 0
            while block := os.read(handle, 1 << 22):
                crc = zlib.crc32(block, crc)
            return crc
        finally:
            file = _file(os.fstat(handle))
            with self._lock:
                if file in self._users:
                    self._waiting.setdefault(file, []).append(handle)
                else:
                    os.close(handle)


def _file(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


HANDLES = _Handles()
"""Of this process."""


class FileSum:
    """Size, time and CRC32 of a database, noted beside it after a clean close.

    Args:
        path: the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._note = path.with_name(_SUM)
        self._log = path.with_name(f"{path.name}-wal")

    def log_left(self) -> bool:
        """Whether a write-ahead log with something in it lies beside the database."""
        return self._log.exists() and self._log.stat().st_size > 0

    def agrees(self) -> bool | None:
        """Whether the content is what was noted; None where the note does not speak of it."""
        noted = self._read()
        if self.log_left() or not noted or not self._stamp().items() <= noted.items():
            return None
        return HANDLES.crc(self._path) == noted.get("crc")

    def write(self) -> None:
        """Note the database as it is now, unless somebody has it open."""
        if self._log.exists():
            return
        stamp = self._stamp()
        if stamp.items() <= self._read().items():
            return
        value = {**stamp, "crc": HANDLES.crc(self._path)}
        if self._stamp() != stamp or self._log.exists():
            return  # somebody came in between
        temporary = temporary_for(self._note)
        temporary.write_text(json.dumps(value))
        temporary.replace(self._note)

    def _stamp(self) -> dict[str, int]:
        stat = self._path.stat()
        return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}

    def _read(self) -> dict[str, int]:
        try:
            value = json.loads(self._note.read_text())
            return value if isinstance(value, dict) else {}
        except (OSError, ValueError):
            return {}
