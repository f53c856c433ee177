"""Float arrays in one file that cannot run code: the safetensors format, float32 only, in numpy.

Layout (github.com/huggingface/safetensors, "Format"): the header's length as a little-endian
64-bit number, the header as JSON, padded with spaces to a multiple of 8, then the arrays' bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge._identity import canonical_json

Tensors = Mapping[str, NDArray[np.float32]]

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"


def pack(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    """The file that holds these arrays and texts, the same bytes every time."""
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    parts = []
    start = 0
    for name, array in sorted(tensors.items()):
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        offsets = [start, start + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        parts.append(raw)
        start += len(raw)
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([_LENGTH.pack(len(text)), text, *parts])


def unpack(content: bytes) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """The arrays, read-only, and the texts of a file; `ValueError` where it is none."""
    if len(content) < _LENGTH.size:
        raise ValueError("it is shorter than a header's length")
    (length,) = _LENGTH.unpack_from(content)
    data = memoryview(content)[_LENGTH.size + length :]
    if length > len(content) - _LENGTH.size:
        raise ValueError("it ends within its header")
    header = json.loads(content[_LENGTH.size : _LENGTH.size + length].decode())
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are not a JSON object")
    tensors: dict[str, NDArray[np.float32]] = {}
    end = 0
    for name, entry in sorted(header.items()):
        tensors[name], end = _tensor(name, entry, data, end)
    if end != len(data):
        raise ValueError(f"it has {len(data)} bytes of arrays where its header lists {end}")
    return tensors, {str(k): str(v) for k, v in metadata.items()}


def _tensor(name: str, entry: Any, data: memoryview, start: int) -> tuple[NDArray[np.float32], int]:
    """An array that has to begin at `start`, and where it ends."""
    if not isinstance(entry, dict) or entry.get("dtype") != "F32":
        raise ValueError(f"array {name!r} is not float32")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"array {name!r} has no shape")
    end = start + 4 * prod(shape)
    if entry.get("data_offsets") != [start, end] or end > len(data):
        raise ValueError(f"array {name!r} does not lie where its header says")
    return np.frombuffer(data[start:end], "<f4").reshape(shape), end
