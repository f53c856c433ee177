"""An item, and what Milvus can hold of it."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

from samespace.gallery._milvus._collections import MOST_ID, MOST_PAYLOAD
from samespace.gallery._protocols import StoredRow
from samespace_edge import ConfigError

_VALUE = "samespace:value"  # Milvus's JSON is an object or null; what else a payload is goes here
_LONG = re.compile(r"\d{19}")


@dataclass(frozen=True)
class Item:
    """An item as it is stored.

    Attributes:
        model: number of the model that made `vector`, float32, little-endian.
        text: the payload as JSON.
        upgrade: number of the upgrade that gave it this vector; 0 where its owner did.
    """

    id: str
    model: int
    vector: bytes
    text: str | None
    upgrade: int = 0

    @property
    def crc(self) -> int:
        """Of what must not change by itself. The payload is Milvus's own to write as it likes."""
        return zlib.crc32(self.vector, zlib.crc32(f"{self.model}\0{self.id}".encode()))

    @property
    def key(self) -> tuple[str, int]:
        """Names this state of the item: another one has another key."""
        return self.id, zlib.crc32((self.text or "").encode(), self.crc)

    @property
    def row(self) -> StoredRow:
        """As the gallery reads it."""
        return self.key, self.id, self.model, self.vector, self.text


def require_fits(item: Item) -> None:
    """Raise `ConfigError` for what Milvus would not take, or not give back as it was."""
    if len(item.id.encode()) > MOST_ID:
        raise ConfigError(
            f"the id {item.id[:40]!r}… has {len(item.id.encode())} bytes; in Milvus an id has up "
            f"to {MOST_ID}"
        )
    if item.text is None:
        return
    if (size := len(item.text.encode())) > MOST_PAYLOAD:
        raise ConfigError(
            f"the payload of {item.id!r} takes {size:,} bytes as JSON; in Milvus it may take "
            f"{MOST_PAYLOAD:,}"
        )
    if _LONG.search(item.text) and not _numbers_fit(json.loads(item.text)):
        raise ConfigError(
            f"the payload of {item.id!r} has a whole number beyond 64 bits, which Milvus does not "
            "keep; write it as text"
        )


def _numbers_fit(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_numbers_fit(v) for v in value.values())
    if isinstance(value, list):
        return all(_numbers_fit(v) for v in value)
    return not isinstance(value, int) or abs(value) < 2**63


def stored(text: str | None) -> str:
    """A payload's JSON text as Milvus takes it."""
    if text is None:
        return "null"
    plain = text.startswith("{") and f'"{_VALUE}"' not in text
    return text if plain else f'{{"{_VALUE}": {text}}}'


def text_of(payload: Any) -> str | None:
    """The opposite of `stored`, of what Milvus returns."""
    if payload is None:
        return None
    if _VALUE in payload:
        payload = payload[_VALUE]
    return json.dumps(payload, ensure_ascii=False)


def plain_payload(payload: Any) -> Any:
    """A payload as it was given, from what Milvus returns."""
    return payload[_VALUE] if isinstance(payload, dict) and _VALUE in payload else payload
