"""Where a dataset's pictures come from: a folder or a zip, read by relative path."""

from __future__ import annotations

import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol

from samespace_edge import DataError
from samespace_edge._bundle import safe_member

MAX_FILE = 256 * 2**20
"""Largest file that is unpacked from a zip, in bytes."""

PICTURES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif",
    }
)  # fmt: skip
"""Endings of files that are taken for pictures, in lower case. HEIC needs the extra `heif`."""


class Files(Protocol):
    """Read-only files by relative path with `/`."""

    def names(self) -> list[str]:
        """Every file, sorted."""

    def read(self, name: str) -> bytes:
        """Content of a file; `FileNotFoundError` or `UnsafePathError` otherwise."""


def is_picture(name: str) -> bool:
    """Return whether a file's ending is one of `PICTURES`."""
    return PurePosixPath(name).suffix.lower() in PICTURES


def is_text(text: str) -> bool:
    """Return whether UTF-8 can hold a text. It cannot hold the name of a file that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain_form(text: str) -> str:
    """Return a text in Unicode's composed form (NFC), in which equal-looking names are equal.

    macOS and its zips write decomposed names, spreadsheets composed ones.
    """
    return unicodedata.normalize("NFC", text)


def find_file(folder: Path, name: str) -> Path:
    """Return where a file of a list is: below `folder` by its name.

    Where there is none, and only one other name means the same, that one is returned: with `/` for
    the `\\` of Windows, or in another Unicode form.
    """
    path = folder / name
    if _is_there(path):
        return path
    name = name.replace("\\", "/")
    if name.isascii():
        return folder / name
    found = folder
    for part in PurePosixPath(name).parts:
        if not _is_there(found / part):
            try:
                alike = _by_plain_form(found, found.stat().st_mtime_ns).get(plain_form(part), ())
            except OSError:
                return path
            if len(alike) != 1:
                return path
            (part,) = alike
        found = found / part
    return found


def _is_there(path: Path) -> bool:
    """Whether a path exists. One that cannot be asked for, such as too long a name, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=256)
def _by_plain_form(folder: Path, changed: int) -> Mapping[str, Sequence[str]]:
    """Names in a folder by their composed form. A folder that changed is read again."""
    return _grouped([entry.name for entry in folder.iterdir()])


def _grouped(names: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(plain_form(name), []).append(name)
    return groups


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
        return find_file(self.root, safe_member(name).as_posix()).read_bytes()


class ZipFiles:
    """Files of a zip; nothing is extracted, so nothing can land outside."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is not a readable zip: {error}") from None
        self._lock = threading.Lock()
        self._plain = _grouped(self.names())

    def names(self) -> list[str]:
        """Every file, sorted."""
        return sorted(i.filename for i in self._zip.infolist() if not i.is_dir())

    def read(self, name: str) -> bytes:
        """Content of a file."""
        safe_member(name)
        alike = self._plain.get(plain_form(name), [])
        if len(alike) == 1:
            (name,) = alike
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
