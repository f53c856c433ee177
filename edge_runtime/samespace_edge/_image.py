"""From whatever the user has to the pixels that the graph takes: decode, then resize.

Both steps are part of the bundle's contract (see edge_runtime/README.md): every runtime on every
device has to arrive at the same pixels, and `bundle check` tells which step departs.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from samespace_edge import _jpeg, _png
from samespace_edge._errors import (
    DecodeError,
    ImageError,
    ImageTooLargeError,
)
from samespace_edge._exif import ORIENTATION, TURNS, read_orientation
from samespace_edge._kinds import HEAD, is_heif, name_kind
from samespace_edge._resize import Pixels

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""A path, an encoded file's bytes, a PIL image, or uint8 RGB pixels (H, W, 3)."""

MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, in pixels: 192 MB as RGB."""

_WHITE = (255, 255, 255)
# Not all that Pillow knows: some of its readers start other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_READ_KINDS = ("a JPEG", "a PNG", "a WebP", "a GIF")
_NO_EXIF = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")


# Pillow reads a file when its pixels are first asked for. Two threads that ask the same image at
# once may get a half of it, or an error. Images share a few locks, so they seldom share one.
_TURNS = [threading.Lock() for _ in range(16)]


def turn_of(image: Image.Image) -> threading.Lock:
    """Return the lock to hold while reading a PIL image that other threads may be reading too."""
    return _TURNS[id(image) // 16 % len(_TURNS)]


def _after_fork() -> None:
    _TURNS[:] = [threading.Lock() for _ in _TURNS]  # who held one is not there any more


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)


def decode(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode to upright uint8 RGB (H, W, 3).

    EXIF orientation is applied; transparency is laid on white; 16-bit grey keeps its upper 8
    bits; of an animation the first frame counts; CMYK is converted without colour management.

    Raises `DecodeError` for what is no image, is damaged or has an array type that pixels do not
    come in, `ImageTooLargeError` for more than `max_pixels`.
    """
    return np.asarray(decode_image(source, max_pixels))


def decode_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `decode`, but to a PIL image of mode RGB, which `Resize` takes without a copy."""
    if isinstance(source, np.ndarray):
        return Image.fromarray(_checked_array(source, max_pixels))
    if isinstance(source, Image.Image):
        try:
            with turn_of(source):
                return _to_rgb(source, "the PIL image", max_pixels)
        except (OSError, SyntaxError, ValueError, EOFError) as error:  # read only now
            raise _damaged("the PIL image", error) from None
    name = f"the {len(source)} bytes given" if isinstance(source, bytes) else str(source)
    head = b""
    try:
        with _opened(source) as file:
            head = file.read(HEAD)
            file.seek(0)
            if head.startswith(_png.SIGNATURE):
                png = _png.read_png(file.read(), name)
                with Image.open(io.BytesIO(png.content), formats=("PNG",)) as image:
                    return _to_rgb(image, name, max_pixels, png.exif, png)
            if head.startswith(_jpeg.SIGNATURE):
                jpeg = _jpeg.read_jpeg(file.read())
                with Image.open(io.BytesIO(jpeg.content), formats=("JPEG",)) as image:
                    return _to_rgb(image, name, max_pixels, jpeg.exif)
            if is_heif(head):
                return _to_rgb(_open_heif(file, name), name, max_pixels)
            with Image.open(file, formats=_FORMATS) as image:
                return _to_rgb(image, name, max_pixels)
    except FileNotFoundError:
        raise DecodeError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise DecodeError(f"{name} is a folder, not a picture") from None
    except PermissionError:
        raise DecodeError(f"{name} may not be read by this user") from None
    except UnidentifiedImageError:
        raise DecodeError(_unidentified(name, head)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, None, max_pixels) from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        raise _damaged(name, error, name_kind(head)) from None


@contextmanager
def _opened(source: ImageSource) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            yield file if file.seekable() else io.BytesIO(file.read())  # a pipe is not
    else:
        raise DecodeError(
            f"cannot read a picture from {type(source).__name__}; "
            "give a path, bytes, a PIL image or a uint8 array (H, W, 3)"
        )


def _open_heif(file: BinaryIO, name: str) -> Image.Image:
    """Return a HEIC or HEIF picture, upright; raise `DecodeError` where no decoder is installed."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise DecodeError(
            f"{name}: this is a HEIC/HEIF picture, as iPhones make them, under any name. Install a "
            "decoder with 'pip install \"samespace[heif]\"', or convert the picture to JPEG"
        ) from None
    image: Image.Image = HeifImageFile(file)  # type: ignore[no-untyped-call]
    return image


def _unidentified(name: str, head: bytes) -> str:
    kind = name_kind(head)
    formats = "JPEG, PNG, WebP, GIF, BMP, TIFF and PPM"
    if kind is None:
        return f"{name}: not an image in a format that is read ({formats})"
    if kind in _READ_KINDS or kind.startswith("a TIFF"):
        return f"{name}: this begins as {kind}, but is not an image that can be read: it is damaged"
    return f"{name}: this is {kind}, not an image in a format that is read ({formats})"


def _damaged(name: str, error: Exception, kind: str | None = None) -> DecodeError:
    begins = f"; it begins as {kind}" if kind else ""
    return DecodeError(f"{name}: the picture is damaged or incomplete{begins} ({error})")


def _checked_array(array: NDArray[Any], max_pixels: int) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise DecodeError(
            f"pixels have to be a uint8 RGB array (H, W, 3), not {array.dtype} {array.shape}; "
            "scale floats to 0..255 and convert to uint8 first"
        )
    if array.shape[0] * array.shape[1] > max_pixels:
        raise _too_large("the array", (array.shape[1], array.shape[0]), max_pixels)
    return np.ascontiguousarray(array)


def _too_large(name: str, size: tuple[int, int] | None, limit: int) -> ImageTooLargeError:
    is_size = f"{size[0]}x{size[1]} pixels" if size else "far too many pixels"
    return ImageTooLargeError(
        f"{name} has {is_size}; the limit is {limit:,} pixels. Reduce it before embedding it."
    )


def _to_rgb(
    image: Image.Image,
    name: str,
    max_pixels: int,
    exif: bytes | None = None,
    png: _png.Png | None = None,
) -> Image.Image:
    if image.width * image.height > max_pixels:
        raise _too_large(name, image.size, max_pixels)
    image.load()
    orientation = _orientation(image) if exif is None else read_orientation(exif)
    flat = _flat(image, name)
    is_transparent = png.is_transparent(image) if png else None
    if is_transparent is not None:
        pixels = np.array(flat)
        pixels[is_transparent] = _WHITE
        flat = Image.fromarray(pixels)
    turn = TURNS.get(orientation)
    if turn is not None:
        flat = flat.transpose(turn)
    elif flat is image:  # which may be the caller's
        flat = image.copy()
    flat.info.pop("exif", None)  # its orientation is applied
    return flat


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image that Pillow has read, or that was set in memory.

    By EXIF alone: Pillow would also follow XMP and PNG's texts, which no browser and no phone does.
    """
    if isinstance(block := image.info.get("exif"), bytes):
        return read_orientation(block)
    hidden = {key: image.info.pop(key) for key in _NO_EXIF if key in image.info}
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises errors of any type for odd metadata
        return 1
    finally:
        image.info.update(hidden)


def _flat(image: Image.Image, name: str) -> Image.Image:
    """Return an image of mode RGB: transparency on white, the upper 8 of 16 bits."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.int64)
        high = np.clip(grey, 0, 65535) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        canvas = Image.new("RGBA", over.size, (*_WHITE, 255))
        return Image.alpha_composite(canvas, over).convert("RGB")
    if image.mode in ("1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB"):
        return image.convert("RGB")
    raise DecodeError(f"{name}: pictures of mode {image.mode!r} are not supported; convert to RGB")
