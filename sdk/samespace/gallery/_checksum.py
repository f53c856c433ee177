"""Checksums of whole files, so that what was not closed cleanly, or was changed, is noticed."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

_SUM = "gallery.sum"


def file_crc(path: Path) -> int:
    """CRC32 of a file's content."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


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
        return file_crc(self._path) == noted.get("crc")

    def write(self) -> None:
        """Note the database as it is now, unless somebody has it open."""
        if self._log.exists():
            return
        stamp = self._stamp()
        if stamp.items() <= self._read().items():
            return
        value = {**stamp, "crc": file_crc(self._path)}
        if self._stamp() != stamp or self._log.exists():
            return  # somebody came in between
        temporary = self._note.with_name(f".{_SUM}.{os.getpid()}")
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
