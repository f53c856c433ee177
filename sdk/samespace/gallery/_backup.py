"""Copies of a gallery that can be relied on, taken while it is used."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from samespace.gallery._gallery import Gallery
from samespace.gallery._store import DATABASE
from samespace_edge import GalleryError, GalleryStorageError
from samespace_edge._temporary import temporary_for

_EXTRAS = ("clusters",)
"""What belongs to a gallery besides its database. The index is made from that again."""


def backup_gallery(path: str | Path, out: str | Path) -> int:
    """Copy a gallery into the new folder `out`, while others search it and write to it.

    The copy is the gallery at one instant: every call that was acknowledged before is in it whole.
    It is opened and checked, row by row, before it gets its name. It has no index; the first search
    in it makes one.

    Args:
        path: folder of the gallery.
        out: folder to make.

    Returns: how many items it holds.

    Raises `GalleryError` where `out` is there already or `path` holds no gallery in a folder,
    `GalleryDamagedError` where what was copied is not what was written, `GalleryStorageError`.
    """
    for place in map(str, (path, out)):
        if "://" in place:
            raise GalleryError(
                f"{place} is no folder: a gallery in Milvus is copied by Milvus's own backup"
            )
    source, out = Path(path), Path(out)
    if not (source / DATABASE).exists():
        raise GalleryError(f"there is no gallery at {source}: it has no {DATABASE}")
    with _appearing(out) as folder:
        _snapshot(source / DATABASE, folder / DATABASE)
        for name in _EXTRAS:
            if (source / name).is_dir():
                shutil.copytree(source / name, folder / name)
        # Opening reads every row, since the copy has no checksum yet; closing writes one.
        with Gallery.open(folder) as copy:
            count = len(copy)
    return count


def restore_gallery(backup: str | Path, path: str | Path) -> int:
    """Make the gallery `path` from a backup, which stays as it is.

    `path` must not be there: move a damaged gallery aside first, so that nothing is overwritten.
    Returns and raises as `backup_gallery`.
    """
    return backup_gallery(backup, path)


@contextlib.contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when all went well and is removed otherwise."""
    if out.exists():
        raise GalleryError(f"there is already something at {out}; name a new folder")
    temporary = temporary_for(out)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(out)
    except OSError as error:
        raise GalleryStorageError(f"cannot write {out}: {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _snapshot(source: Path, target: Path) -> None:
    """SQLite's online backup, all of it in one reading, so that writers need not wait for it."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{_uri(source)}?mode=ro", uri=True)) as read,
            contextlib.closing(sqlite3.connect(target)) as write,
        ):
            read.backup(write)
            write.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise GalleryStorageError(f"cannot copy {source} to {target}: {error}") from None
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _uri(path: Path) -> str:
    return path.absolute().as_uri()
