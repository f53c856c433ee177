"""Where a dataset's pictures come from: a folder or a zip, read by relative path."""

from __future__ import annotations

import threading
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from samespace_edge import DataError
from samespace_edge._bundle import safe_member

MAX_FILE = 256 * 2**20
"""Largest file that is unpacked from a zip, in bytes."""


class Files(Protocol):
    """Read-only files by relative path with `/`."""

    def names(self) -> list[str]:
        """Every file, sorted."""

    def read(self, name: str) -> bytes:
        """Content of a file; `FileNotFoundError` or `UnsafePathError` otherwise."""


class FolderFiles:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Every file, sorted."""
        return sorted(
            p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()
        )

    def read(self, name: str) -> bytes:
        """Content of a file."""
        return (self.root / safe_member(name)).read_bytes()


class ZipFiles:
    """Files of a zip; nothing is extracted, so nothing can land outside."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is not a readable zip: {error}") from None
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Every file, sorted."""
        return sorted(i.filename for i in self._zip.infolist() if not i.is_dir())

    def read(self, name: str) -> bytes:
        """Content of a file."""
        safe_member(name)
        try:
            size = self._zip.getinfo(name).file_size
            if size > MAX_FILE:
                raise OSError(f"{name} unpacks to {size:,} bytes; the limit is {MAX_FILE:,}")
            with self._lock:
                return self._zip.read(name)
        except KeyError:
            raise FileNotFoundError(name) from None
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error) as error:
            raise OSError(f"{name} cannot be read from the zip: {error}") from None
