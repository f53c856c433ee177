"""The pictures that the browser and Pillow both decode, by file name."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.edge_runtime import raw_files as raw

ORIENTATION = raw.ORIENTATION
SIDEWAYS = raw.short(ORIENTATION, 6)


def photo(width: int, height: int, seed: int = 1) -> NDArray[np.uint8]:
    """Something like a photograph: smooth colours, sharp edges, a little noise. uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth).astype(np.float64)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(12):
        a, b = rng.normal(size=2)
        centre = rng.uniform(0, 1, 2) * (width, height)
        inside = abs(a * (x - centre[0]) + b * (y - centre[1])) < rng.uniform(1, width / 20)
        pixels[inside] = 0.3 * pixels[inside] + 0.7 * rng.integers(0, 256, 3)
    pixels += rng.normal(0, 6, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)


def file(pixels: NDArray[Any] | Image.Image, kind: str, **how: Any) -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def jpegs() -> dict[str, bytes]:
    """JPEGs of every common kind; odd sizes, so that blocks are cut at the border."""
    image = Image.fromarray(photo(161, 119))
    made = {
        f"{ratio.replace(':', '')}-q{quality}{'-progressive' * progressive}.jpg": file(
            image, "jpeg", quality=quality, subsampling=ratio, progressive=progressive
        )
        for ratio in ("4:4:4", "4:2:2", "4:2:0")
        for quality in (92, 75)
        for progressive in (False, True)
    }
    for orientation in range(2, 9):
        made[f"exif-{orientation}.jpg"] = file(image, "jpeg", exif=_turned(orientation))
    made["grey.jpg"] = file(image.convert("L"), "jpeg")
    made["profile.jpg"] = file(image, "jpeg", icc_profile=_swapped_profile())
    return {**made, **_odd_jpegs()}


def _odd_jpegs() -> dict[str, bytes]:
    """JPEGs whose EXIF is odd: what of it is an orientation?"""
    blocks = {
        "unit": raw.exif(SIDEWAYS, (0x128, raw.BYTE, 1, b"\2")),
        "text": raw.exif(SIDEWAYS, (0x213, raw.ASCII, 2, b"1\0")),
        "unknown-type": raw.exif(SIDEWAYS, (0x9286, 99, 1, b"\0")),
        "big-endian": raw.exif(raw.short(ORIENTATION, 6, ">"), order=">"),
        "long": raw.exif((ORIENTATION, raw.LONG, 1, b"\6\0\0\0")),
        "two": raw.exif((ORIENTATION, raw.SHORT, 2, b"\6\0\6\0")),
        "nine": raw.exif(raw.short(ORIENTATION, 9)),
        "zero": raw.exif(raw.short(ORIENTATION, 0)),
        "cut-off": raw.exif(SIDEWAYS)[:14],
        "byte-order": b"XX" + raw.exif(SIDEWAYS)[2:],
        "magic": raw.exif(SIDEWAYS).replace(b"*\0", b"+\0", 1),
        "twice": raw.exif(raw.short(ORIENTATION, 3), SIDEWAYS),
        "second-valid": raw.exif(raw.short(ORIENTATION, 0), SIDEWAYS),
    }
    pixels = photo(64, 48)
    return {f"odd-{name}.jpg": raw.jpeg(pixels, block) for name, block in blocks.items()}


def lossless() -> dict[str, bytes]:
    """Files whose pixels have one reading only."""
    pixels = photo(61, 45)
    image = Image.fromarray(pixels)
    palette = image.quantize(16)
    return {
        "rgb.png": file(image, "png"),
        "rgb.bmp": file(image, "bmp"),
        "grey.png": file(image.convert("L"), "png"),
        "palette.png": file(palette, "png"),
        "palette-transparent.png": file(palette, "png", transparency=3),
        "bilevel.png": file(image.convert("1"), "png"),
        "grey16.png": file(np.arange(61 * 45, dtype=np.uint16).reshape(45, 61) * 23, "png"),
        "profile.png": file(image, "png", icc_profile=_swapped_profile()),
        "turned.png": file(image, "png", exif=_turned(6)),
        "animated.gif": file(
            palette, "gif", save_all=True, append_images=[image.rotate(90).quantize(16)]
        ),
        "lossless.webp": file(image, "webp", lossless=True),
        "black.png": file(np.zeros((45, 61, 3), np.uint8), "png"),
        # Larger than a tile of the canvas, and not a multiple of it.
        "tiles.png": file(np.tile(photo(210, 206), (10, 10, 1)), "png", compress_level=1),
        **_odd_pngs(),
    }


def _odd_pngs() -> dict[str, bytes]:
    """PNGs with a transparent colour, with EXIF in odd places, and with wrong checksums."""
    pixels = photo(61, 45)
    made = {}
    for depth in (1, 2, 4, 8, 16):
        samples = np.arange(61 * 45).reshape(45, 61) * 7 % 2**depth
        if depth == 16:
            samples = samples * 300 % 2**16
        clear = struct.pack(">H", samples[9, 9])
        for is_interlaced in (False, True):
            name = f"clear-grey-{depth}{'-interlaced' * is_interlaced}.png"
            made[name] = raw.png(
                samples.astype(np.uint16),
                depth,
                [raw.chunk(b"tRNS", clear)],
                is_interlaced=is_interlaced,
            )
    for depth in (8, 16):
        samples = pixels.astype(np.uint16) * (257 if depth == 16 else 1)
        samples[3, 3] = samples[2, 2] = samples[9, 9]
        samples[3, 3, 2] ^= 1  # of 16 bits, the upper byte is the same
        clear = raw.chunk(b"tRNS", samples[9, 9].astype(">u2").tobytes())
        made[f"clear-rgb-{depth}.png"] = raw.png(samples, depth, [clear])
    block = raw.exif(SIDEWAYS)
    turn, stay = raw.chunk(b"eXIf", block), raw.chunk(b"eXIf", raw.exif(raw.short(ORIENTATION, 1)))
    profile = b"\nexif\n%8d\n" % (len(block) + 6) + (b"Exif\0\0" + block).hex().encode() + b"\n"
    text = raw.chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))
    made |= {
        "exif-before.png": raw.png(pixels, before=[turn]),
        "exif-behind.png": raw.png(pixels, after=[turn]),
        "exif-twice.png": raw.png(pixels, before=[stay], after=[turn]),
        "exif-as-text.png": raw.png(pixels, before=[text]),
        "exif-wrong-behind.png": raw.png(pixels, after=[raw.chunk(b"eXIf", block, wrong=True)]),
        "exif-wrong-before.png": raw.png(pixels, before=[raw.chunk(b"eXIf", block, wrong=True)]),
    }
    for kind in (b"tEXt", b"iCCP", b"gAMA", b"pHYs"):
        odd = raw.chunk(kind, b"Comment\0hi", wrong=True)
        made[f"wrong-{kind.decode()}.png"] = raw.png(pixels, before=[odd])
    return made


def transparent() -> dict[str, bytes]:
    """Files with every opacity; a canvas premultiplies, so levels may differ by rounding."""
    rgba = np.dstack([photo(256, 40), np.broadcast_to(np.arange(256), (40, 256))])
    image = Image.fromarray(rgba.astype(np.uint8))
    return {
        "rgba.png": file(image, "png"),
        "grey-alpha.png": file(image.convert("LA"), "png"),
        "rgba.webp": file(image, "webp", lossless=True),
    }


def lossy() -> dict[str, bytes]:
    """Lossy files other than JPEG."""
    image = Image.fromarray(photo(161, 119))
    turned = {
        f"exif-{orientation}.webp": file(image, "webp", quality=80, exif=_turned(orientation))
        for orientation in range(2, 9)
    }
    return {"lossy.webp": file(image, "webp", quality=80), **turned}


def foreign() -> dict[str, bytes]:
    """Files that a browser is known to read otherwise."""
    image = Image.fromarray(photo(161, 119))
    return {"cmyk.jpg": file(image.convert("CMYK"), "jpeg")}


def damaged() -> dict[str, bytes]:
    """Files that are refused."""
    jpeg, png = file(photo(161, 119), "jpeg"), file(photo(61, 45), "png")
    half = len(png) // 2
    flipped = png[:half] + bytes([png[half] ^ 0xFF]) + png[half + 1 :]
    return {
        "empty.png": b"",
        "text.jpg": b"this is no picture, whatever its name says " * 9,
        "header-only.jpg": jpeg[:200],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": png[:half],
        "flipped.png": flipped,
        "huge.png": file(Image.new("1", (8001, 8000)), "png"),
    }


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _swapped_profile() -> bytes:
    """sRGB with red and green exchanged: who applies it shows other colours altogether."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return (
        profile.replace(b"rXYZ", b"\0tmp", 1)
        .replace(b"gXYZ", b"rXYZ", 1)
        .replace(b"\0tmp", b"gXYZ", 1)
    )
