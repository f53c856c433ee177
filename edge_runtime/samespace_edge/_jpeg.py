"""Take the metadata out of a JPEG file: Pillow warns of odd fields, or fails, that no viewer
minds."""

from __future__ import annotations

from dataclasses import dataclass

SIGNATURE = b"\xff\xd8"

_EXIF = b"Exif\0\0"
_SCAN, _COMMENT = 0xDA, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length


@dataclass(frozen=True)
class Jpeg:
    """A JPEG without its metadata.

    Attributes:
        content: the same picture. JFIF's and Adobe's segments, which say what its colours are,
            are still there.
        exif: its first EXIF block; empty where there is none.
    """

    content: bytes
    exif: bytes


def read_jpeg(content: bytes) -> Jpeg:
    """Return a JPEG without its metadata. What cannot be followed is left as it is."""
    kept, exif = [content[:2]], b""
    at = 2
    while (at := content.find(0xFF, at)) >= 0 and at + 4 <= len(content):
        # Stray bytes before a marker are left out, as decoders leave them out.
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _SCAN or marker in _ALONE:
            break
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _APP1 and content.startswith(_EXIF, at + 4):
            exif = exif or content[at + 4 : end]
        if not (_APP0 < marker <= _APP15 and marker != _APP14) and marker != _COMMENT:
            kept.append(content[at:end])
        at = end
    return Jpeg(b"".join([*kept, content[at:] if at >= 0 else b""]), exif)
