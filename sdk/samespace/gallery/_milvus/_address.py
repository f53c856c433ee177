"""Where a Milvus is and how to talk to it: a URL that may be shown, and secrets that may not."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samespace_edge import ConfigError

_URL = re.compile(
    r"milvus:/{1,2}(?P<host>\[[0-9a-fA-F:]+\]|[^/:@\s]+)(:(?P<port>\d+))?/(?P<name>.*)"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_ENV = "SAMESPACE_MILVUS_"
_VARIABLES = (
    "CA",
    "CERT",
    "CONSISTENCY",
    "DATABASE",
    "KEY",
    "PASSWORD",
    "REPLICAS",
    "SERVER_NAME",
    "SHARDS",
    "TIMEOUT",
    "TLS",
    "TOKEN",
    "USER",
)


@dataclass(frozen=True)
class Address:
    """A gallery's place, from its URL and the environment.

    Attributes:
        host, port: of Milvus.
        name: of the gallery.
        strong: whether every search sees what others wrote the moment before.
        timeout: seconds until a call that is not answered is an error.
        shards, replicas: of collections that are created.
        options: for pymilvus, secrets among them.
    """

    host: str
    port: int
    name: str
    strong: bool
    timeout: float
    shards: int
    replicas: int
    options: Mapping[str, Any] = field(repr=False)

    @property
    def server(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """As `Gallery.open` takes it."""
        return f"milvus://{self.server}/{self.name}"

    @classmethod
    def parse(
        cls, url: str, timeout: float, environment: Mapping[str, str] = os.environ
    ) -> Address:
        """Read a URL, and the variables `SAMESPACE_MILVUS_*` that docs/milvus.md lists.

        Args:
            url: `milvus://host:19530/NAME`.
            timeout: in seconds, where the environment does not say.

        Raises `ConfigError`.
        """
        if "@" in url:
            raise ConfigError(
                "a Milvus URL holds no password, as URLs are logged: set "
                f"{_ENV}USER and {_ENV}PASSWORD, or {_ENV}TOKEN"
            )
        match = _URL.fullmatch(url)
        if match is None or not _NAME.fullmatch(match["name"]):
            raise ConfigError(
                f"{url!r} is not the place of a gallery in Milvus; it reads "
                "milvus://host:19530/NAME, NAME of letters, digits and underscores"
            )
        if not 1 <= int(match["port"] or 19530) <= 65_535:
            raise ConfigError(f"{url!r}: a port is a number from 1 to 65535")
        found = {v: environment.get(_ENV + v, "") for v in _VARIABLES}
        strange = {k for k in environment if k.startswith(_ENV)} - {_ENV + v for v in _VARIABLES}
        if strange:
            known = ", ".join(_ENV + v for v in _VARIABLES)
            raise ConfigError(f"there is no variable {min(strange)}; there are: {known}")
        consistency = found["CONSISTENCY"] or "session"
        if consistency not in ("session", "strong"):
            raise ConfigError(f"{_ENV}CONSISTENCY is session or strong, not {consistency!r}")
        address = cls(
            host=match["host"],
            port=int(match["port"] or 19530),
            name=match["name"],
            strong=consistency == "strong",
            timeout=_number(found, "TIMEOUT", timeout),
            shards=int(_number(found, "SHARDS", 1)),
            replicas=int(_number(found, "REPLICAS", 1)),
            options=_options(found),
        )
        secret = found["PASSWORD"] or found["TOKEN"]
        if secret and address.host not in _LOOPBACK and not found["TLS"]:
            raise ConfigError(
                f"a password would travel to {address.server} in the clear: set {_ENV}TLS=1, or "
                f"{_ENV}TLS=0 where something else protects the way"
            )
        return address


def _options(found: Mapping[str, str]) -> dict[str, Any]:
    if found["TLS"] not in ("", "0", "1"):
        raise ConfigError(f"{_ENV}TLS is 0 or 1, not {found['TLS']!r}")
    for variable in ("CA", "CERT", "KEY", "SERVER_NAME"):
        if found[variable] and found["TLS"] != "1":
            raise ConfigError(f"{_ENV}{variable} is for {_ENV}TLS=1")
    if found["USER"] and not found["PASSWORD"]:
        raise ConfigError(f"{_ENV}USER needs {_ENV}PASSWORD")
    if bool(found["CERT"]) != bool(found["KEY"]):
        raise ConfigError(f"{_ENV}CERT and {_ENV}KEY go together")
    if found["CERT"] and not found["CA"]:
        raise ConfigError(f"{_ENV}CERT needs {_ENV}CA, the authority that the server is checked by")
    for variable in ("CA", "CERT", "KEY"):
        if found[variable] and not Path(found[variable]).is_file():
            raise ConfigError(f"{_ENV}{variable} is {found[variable]!r}, where there is no file")
    options: dict[str, Any] = {
        "user": found["USER"],
        "password": found["PASSWORD"],
        "token": found["TOKEN"],
        "db_name": found["DATABASE"],
    }
    if found["TLS"] != "1":
        return options
    options["secure"] = True
    if found["SERVER_NAME"]:
        options["server_name"] = found["SERVER_NAME"]
    if found["CERT"]:
        options |= {
            "ca_pem_path": found["CA"],
            "client_pem_path": found["CERT"],
            "client_key_path": found["KEY"],
        }
    elif found["CA"]:
        options["server_pem_path"] = found["CA"]
    return options


def _number(found: Mapping[str, str], variable: str, default: float) -> float:
    text = found[variable]
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ConfigError(f"{_ENV}{variable} is a number above 0, not {text!r}")
    return value
