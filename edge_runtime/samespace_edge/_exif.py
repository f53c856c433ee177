"""Read the one field of EXIF that changes what a viewer shows: the orientation.

Other fields are not looked at, so that an odd one cannot make a good picture unreadable.
"""

from __future__ import annotations

import struct
from types import MappingProxyType

from PIL import Image

ORIENTATION = 0x0112
_SHORT = 3
_PREFIX = b"Exif\0\0"
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}

TURNS = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""What makes a picture upright, by its EXIF orientation. An orientation of 1 needs nothing."""


def read_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, in an EXIF block; 1 where it has none that is valid.

    A valid orientation is one 16-bit number (SHORT, count 1) in the first directory, as the EXIF
    standard has it and as Chromium reads it.

    Args:
        exif: the block, with or without the prefix that JPEG puts before it.
    """
    block = exif.removeprefix(_PREFIX)
    order = _BYTE_ORDERS.get(block[:2])
    if order is None:
        return 1
    try:
        magic, directory = struct.unpack_from(order + "HI", block, 2)
        (count,) = struct.unpack_from(order + "H", block, directory)
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", block, at)
            is_one = (tag, kind, values) == (ORIENTATION, _SHORT, 1)
            if is_one and magic == 42 and 1 <= value <= 8:
                return int(value)
    except struct.error:  # the block ends too early
        pass
    return 1
