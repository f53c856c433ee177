"""`clusters/NAME.json` in a gallery's folder; its format is in `schemas/clusters.schema.json`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from samespace.clusters._values import Clustering
from samespace.gallery import Gallery
from samespace_edge import (
    ConfigError,
    GalleryBusyError,
    GalleryDamagedError,
    GalleryError,
    GalleryStorageError,
    canonical_json,
)
from samespace_edge._temporary import temporary_for

SCHEMA = 1

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_FIELDS = (
    "name",
    "space",
    "settings",
    "method",
    "assignments",
    "next_number",
    "revision",
    "created",
    "version",
)


def read_clustering(gallery: Gallery | str | Path, name: str = "default") -> Clustering:
    """The last clustering of a name, checked.

    Args:
        gallery: an open one, or the folder of one.

    Raises `GalleryError` where there is none, `GalleryDamagedError` where the file does not hold
    what was written to it or is of another gallery's space.
    """
    if not isinstance(gallery, Gallery):
        with Gallery.open(gallery) as opened:
            return read_clustering(opened, name)
    found = stored(gallery, name)
    if found is None:
        raise GalleryError(
            f"gallery {gallery.name!r} has no clustering {name!r}; run 'samespace cluster'"
        )
    return found


def stored(gallery: Gallery, name: str) -> Clustering | None:
    """The clustering in its file, or None where there is no file."""
    path = _path(gallery, name)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GalleryStorageError(f"cannot read {path}: {error}") from None
    try:
        value = json.loads(content)
        if value["schema"] != SCHEMA:
            raise ValueError(f"its schema is {value['schema']!r}, not {SCHEMA}")
        clustering = Clustering(**{field: value[field] for field in _FIELDS})
        if value["sha256"] != _digest(clustering):
            raise ValueError("it was changed after it was written")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error) or repr(error)) from None
    if clustering.space != gallery.space.hex:
        raise _damaged(path, f"it is of a gallery of space {clustering.space[:12]}…")
    return clustering


def store(gallery: Gallery, clustering: Clustering) -> Path:
    """Write a clustering in one step; returns the file.

    Raises `GalleryBusyError` where another process has stored one of this name meanwhile, whose
    numbers this one does not know; `GalleryStorageError`.
    """
    path = _path(gallery, clustering.name)
    there = stored(gallery, clustering.name)
    if (there.revision if there else 0) != clustering.revision - 1:
        raise GalleryBusyError(
            f"{path} was written by another process meanwhile; cluster the gallery again"
        )
    temporary = temporary_for(path)
    try:
        path.parent.mkdir(exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({**_content(clustering), "sha256": _digest(clustering)}, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise GalleryStorageError(f"cannot write {path}: {error}") from None
    return path


def _path(gallery: Gallery, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a clustering is named with letters, digits, '.', '_' and '-', not {name!r}"
        )
    return Path(gallery.path) / "clusters" / f"{name}.json"


def _content(clustering: Clustering) -> dict[str, Any]:
    return {"schema": SCHEMA, **{field: getattr(clustering, field) for field in _FIELDS}}


def _digest(clustering: Clustering) -> str:
    return hashlib.sha256(canonical_json(_content(clustering)).encode()).hexdigest()


def _damaged(path: Path, why: str) -> GalleryDamagedError:
    return GalleryDamagedError(
        f"{path} cannot be used: {why}. Take it from a backup, or remove it, and clusters are "
        "numbered anew."
    )
