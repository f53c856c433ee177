"""Where pictures and manifests lie: paths of this machine, or URLs that fsspec reads."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeGuard
from urllib.parse import urlsplit

from samespace._files import MAX_FILE, find_file
from samespace_edge import ConfigError, DecodeError, ImageError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_AT_ONCE = 16
"""URLs that are asked for at the same time: most of what that takes is waiting."""


def is_url(source: object) -> TypeGuard[str]:
    """Whether this is a URL such as `s3://bucket/cup.jpg`, and not a path."""
    return isinstance(source, str) and _URL.match(source) is not None


def located(path: str, folder: str) -> str:
    """A path or URL as it stands in a manifest, from the folder or URL that the manifest is in."""
    if is_url(path) or os.path.isabs(path):
        return path
    if is_url(folder):
        return f"{folder.rstrip('/')}/{path}"
    return str(find_file(Path(folder), path))


def opened(where: str) -> IO[bytes]:
    """A file of this machine or of a URL, to be read in order; raises `OSError`."""
    if not is_url(where):
        return Path(where).open("rb")
    fs, inside = _filesystem(where)
    file: IO[bytes] = fs.open(inside, "rb")
    return file


def content(url: str) -> bytes:
    """What a URL holds; raises `ImageError` naming it."""
    try:
        fs, inside = _filesystem(url)
        size = fs.size(inside)
        if size is not None and size > MAX_FILE:
            raise DecodeError(f"{url} has {size:,} bytes; the limit is {MAX_FILE:,}")
        read: bytes = fs.cat_file(inside)
    except FileNotFoundError:
        raise DecodeError(f"there is no file {url}") from None
    except (ConfigError, ImageError):
        raise
    except Exception as error:  # every kind of storage has errors of its own
        raise DecodeError(f"{url} cannot be read: {error}") from None
    return read


def stamp(source: str) -> str:
    """What changes when a picture does: its ETag, or its size and time of change.

    Nothing of the picture is read. Raises `ImageError` where it is not there or is too large to
    be a picture, and `ConfigError` for a kind of URL that nothing installed reads.
    """
    try:
        if is_url(source):
            fs, inside = _filesystem(source)
            size, changed = _described(fs.info(inside))
        else:
            found = Path(source).stat()
            size, changed = found.st_size, str(found.st_mtime_ns)
    except FileNotFoundError:
        raise DecodeError(f"there is no file {source}") from None
    except ConfigError:
        raise
    except Exception as error:  # every kind of storage has errors of its own
        raise DecodeError(f"{source} cannot be read: {error}") from None
    if size > MAX_FILE:
        raise DecodeError(f"{source} has {size:,} bytes; the limit is {MAX_FILE:,}")
    return f"{size}-{changed}"


def stamps(sources: Sequence[str]) -> list[str | ImageError]:
    """`stamp` of every source, or why there is none; URLs are asked for side by side."""

    def one(source: str) -> str | ImageError:
        try:
            return stamp(source)
        except ImageError as error:
            return error

    if not any(map(is_url, sources)):
        return [one(s) for s in sources]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(one, sources))


def _described(info: dict[str, Any]) -> tuple[int, str]:
    names = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
    changed = next((info[n] for n in names if info.get(n) is not None), "")
    return int(info.get("size") or 0), str(changed).strip('"')


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ConfigError(
            f'{url} is read through fsspec, which is not installed: pip install "samespace[index]"'
        ) from None
    try:
        fs, inside = url_to_fs(url)
    except (ImportError, ValueError) as error:
        kind = urlsplit(url).scheme
        raise ConfigError(
            f"nothing that is installed reads {kind}:// ({error}). For s3:// pip install s3fs, for "
            "gs:// gcsfs, for abfs:// adlfs"
        ) from None
    return fs, inside
