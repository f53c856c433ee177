"""API keys: made here, shown once, kept as hashes.

A key is `sks_ID_SECRET`; the secret is 256 random bits. Nothing about it can be guessed, so one
SHA-256 keeps it as well as a slow hash would, and no request can make the service compute for long.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from samespace_edge import ConfigError, DuplicateIdError, UnknownIdError
from samespace_edge._temporary import temporary_for

SCOPES = ("read", "write")
_SCHEMA = 1
_LOOK_AGAIN = 1.0  # seconds between two looks at the file
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NOBODY = "0" * 64


@dataclass(frozen=True)
class Key:
    """A key as it is kept.

    Attributes:
        id: its public part.
        name: a label, which the logs show.
        scopes: `read`, `write` or both.
        sha256: of the whole key.
        made: date and time, ISO 8601, UTC.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    sha256: str
    made: str


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file, none where there is no file; raises `ConfigError` if it is malformed."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["schema"] != _SCHEMA:
            raise ValueError(f"schema {value['schema']}")
        return tuple(Key(**{**k, "scopes": tuple(k["scopes"])}) for k in value["keys"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read the keys in {path}: {error}") from None


def add_key(path: Path, name: str, scopes: Sequence[str]) -> str:
    """Make a key and return it: the only time that it is seen. Raises `DuplicateIdError`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a key's name is up to 64 letters, digits, dots, dashes and underscores, not {name!r}"
        )
    if not scopes or set(scopes) - set(SCOPES):
        raise ConfigError(f"a key's scopes are of {', '.join(SCOPES)}, not {list(scopes)}")
    with _changing(path):
        keys = read_keys(path)
        if any(k.name == name for k in keys):
            raise DuplicateIdError(f"{path} already has a key {name!r}; revoke it first")
        id_ = secrets.token_hex(6)
        key = f"sks_{id_}_{secrets.token_urlsafe(32)}"
        made = datetime.now(UTC).isoformat(timespec="seconds")
        ordered = tuple(s for s in SCOPES if s in scopes)
        _write(path, (*keys, Key(id_, name, ordered, _digest(key), made)))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Forget a key, by its name or id; raises `UnknownIdError`."""
    with _changing(path):
        keys = read_keys(path)
        left = tuple(k for k in keys if name not in (k.name, k.id))
        if len(left) == len(keys):
            raise UnknownIdError(f"{path} has no key {name!r}")
        _write(path, left)


class KeyRing:
    """The keys of a running service; follows the file within a second.

    Once there was a file, one that is empty, gone or malformed lets nobody in. Without a path
    there are no keys.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, ...] | None = None
        self._look_at = 0.0
        self._is_needed = False

    @property
    def is_needed(self) -> bool:
        """Whether a key has to be shown: there is a file, or was."""
        self._follow()
        return self._is_needed

    def find(self, shown: str) -> Key | None:
        """The key that was shown, in a time that does not tell how much of it was right."""
        self._follow()
        parts = shown.split("_", 2)
        key = self._keys.get(parts[1]) if len(parts) == 3 else None
        same = hmac.compare_digest(_digest(shown), key.sha256 if key else _NOBODY)
        return key if same else None

    def _follow(self) -> None:
        now = time.monotonic()
        if self._path is None or now < self._look_at:
            return
        self._look_at = now + _LOOK_AGAIN
        try:
            found = self._path.stat()
            stamp: tuple[int, ...] | None = (found.st_mtime_ns, found.st_ino, found.st_size)
        except OSError:
            stamp = None
        if stamp == self._stamp and stamp is not None:
            return
        self._stamp = stamp
        try:
            self._keys = {k.id: k for k in read_keys(self._path)}
        except ConfigError:
            self._keys = {}
        self._is_needed = self._is_needed or stamp is not None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One process at a time changes the file."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where two at once may lose a key that was just made
        yield
        return
    try:
        handle = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write keys beside {path}: {error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, keys: Sequence[Key]) -> None:
    text = json.dumps({"schema": _SCHEMA, "keys": [asdict(k) for k in keys]}, indent=1) + "\n"
    temporary = temporary_for(path)
    mode = stat.S_IRUSR | stat.S_IWUSR
    handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
