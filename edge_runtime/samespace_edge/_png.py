"""Reduce a PNG file to its picture, and find what is transparent in it.

Pillow refuses a PNG whose text has a wrong checksum, and compares a transparent colour with samples
that it has scaled already. Browsers do neither.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samespace_edge._errors import DecodeError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_IS_OPTIONAL = 0x20  # in the first letter of a chunk's name
_CHANNELS = {0: 1, 2: 3}
"""Channels of pictures that have a transparent colour, by colour type: grey and RGB."""


@dataclass(frozen=True)
class Png:
    """A PNG without its metadata.

    Attributes:
        content: a PNG file with the same samples, without anything about transparent colours.
        exif: the EXIF block; empty where there is none.
        transparent: the colour that a grey or RGB picture has for transparent: a sample for each
            channel, at the picture's own bit depth. None where there is none.
        depth: bits of a sample.
    """

    content: bytes
    exif: bytes
    transparent: tuple[int, ...] | None
    depth: int

    def is_transparent(self, image: Image.Image) -> NDArray[np.bool_] | None:
        """Return which pixels (H, W) have the transparent colour; None where there is none.

        Args:
            image: the loaded `content`.
        """
        if self.transparent is None:
            return None
        samples, clear = np.asarray(image), np.array(self.transparent)
        if image.mode == "1":
            clear = clear != 0
        elif self.depth < 8:  # Pillow has scaled the samples to 8 bits
            clear = clear * 255 // (2**self.depth - 1)
        if samples.ndim == 3 and self.depth == 16:
            # Pillow keeps the upper byte of 16 bits. A second look, as if the order of bytes were
            # the other one, finds the lower one.
            with Image.open(io.BytesIO(self.content), formats=("PNG",)) as again:
                again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
                samples = np.concatenate([samples, np.asarray(again)], -1)
            clear = np.concatenate([clear >> 8, clear & 255])
        is_clear: NDArray[np.bool_] = samples == clear
        return np.logical_and.reduce(is_clear, -1) if is_clear.ndim == 3 else is_clear


def read_png(content: bytes, name: str) -> Png:
    """Return a PNG without its metadata.

    A chunk that the picture can do without is left out where its checksum is wrong, as the PNG
    specification recommends and browsers do. An EXIF block counts wherever it stands.

    Raises `DecodeError` for a wrong checksum of a chunk that the picture needs.
    """
    kept, exif, transparent = [SIGNATURE], b"", None
    depth, channels = 8, 0
    seen: set[bytes] = set()
    has_all_rows = False
    for kind, chunk, data, is_right in _chunks(content):
        if not is_right and not kind[0] & _IS_OPTIONAL:
            raise DecodeError(
                f"{name}: the picture is damaged (the checksum of its PNG chunk "
                f"{kind.decode('ascii', 'backslashreplace')} is wrong)"
            )
        has_all_rows |= b"IDAT" in seen and kind != b"IDAT"
        seen.add(kind)
        if not is_right or (kind == b"IDAT" and has_all_rows):
            continue
        if kind == b"IHDR" and len(data) == 13:
            depth, channels = data[8], _CHANNELS.get(data[9], 0)
        if kind == b"tRNS" and channels:
            is_first = transparent is None and b"IDAT" not in seen
            if len(data) == 2 * channels and is_first:
                transparent = struct.unpack(f">{channels}H", data)
        elif kind == b"eXIf":
            exif = exif or data
        elif kind in _NEEDED:
            kept.append(chunk)
    if transparent is not None:
        transparent = tuple(sample & (2**depth - 1) for sample in transparent)
    return Png(b"".join(kept), exif, transparent, depth)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Yield the name, all bytes and the data of every chunk, and whether its checksum is right.

    A needed chunk that is cut off counts as right: the decoder says what is wrong with it.
    """
    at = len(SIGNATURE)
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 12 + length
        data = content[at + 8 : end - 4]
        if end > len(content):
            is_right = not kind[0] & _IS_OPTIONAL
        else:
            checksum = int.from_bytes(content[end - 4 : end], "big")
            is_right = zlib.crc32(data, zlib.crc32(kind)) == checksum
        yield kind, content[at:end], data, is_right
        if kind == b"IEND":
            return
        at = end
