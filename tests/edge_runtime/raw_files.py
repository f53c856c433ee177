"""Picture files byte by byte, for what no encoder writes on purpose."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION = 0x0112
BYTE, ASCII, SHORT, LONG = 1, 2, 3, 4
_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Field = tuple[int, int, int, bytes]
"""Tag, type, count and value of a field of EXIF; values of up to 4 bytes."""


def short(tag: int, value: int, order: str = "<") -> Field:
    """A field with one 16-bit number."""
    return tag, SHORT, 1, struct.pack(order + "H", value)


def exif(*fields: Field, order: str = "<") -> bytes:
    """An EXIF block with one directory, without the prefix of JPEG."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    rows = [
        struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")
        for tag, kind, count, value in fields
    ]
    directory = struct.pack(order + "H", len(rows)) + b"".join(rows) + bytes(4)
    return head + directory


def jpeg(pixels: NDArray[np.uint8], block: bytes = b"") -> bytes:
    """A JPEG with an EXIF block."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    plain = buffer.getvalue()
    if not block:
        return plain
    segment = b"Exif\0\0" + block
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


def chunk(kind: bytes, data: bytes, wrong: bool = False) -> bytes:
    """A chunk of a PNG, with a right or a wrong checksum."""
    checksum = zlib.crc32(kind + data) ^ (1 if wrong else 0)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(
    samples: NDArray[np.uint8] | NDArray[np.uint16],
    depth: int = 8,
    before: Sequence[bytes] = (),
    after: Sequence[bytes] = (),
    is_interlaced: bool = False,
) -> bytes:
    """A PNG of samples (H, W) or (H, W, C), each of `depth` bits.

    Args:
        before: chunks between the header and the pixels.
        after: chunks behind the pixels.
    """
    height, width, *rest = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[rest[0] if rest else 1]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(is_interlaced))
    passes = _adam7(samples) if is_interlaced else [samples]
    rows = b"".join(b"\0" + _packed(row, depth) for part in passes for row in part)
    chunks = [
        chunk(b"IHDR", header),
        *before,
        chunk(b"IDAT", zlib.compress(rows)),
        *after,
        chunk(b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(chunks)


def _packed(row: NDArray[np.generic], depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    if depth == 8:
        return row.astype(np.uint8).tobytes()
    bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
    return np.packbits(bits.ravel()).tobytes()


def _adam7(samples: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """The seven passes of an interlaced PNG, section 8.2 of its specification."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    passes = [samples[y::dy, x::dx] for y, x, dy, dx in (*starts, (1, 0, 2, 1))]
    return [part for part in passes if part.size]
