"""Decoding and resizing: every kind of picture gives the right pixels or a clear error."""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samespace_edge import BundleFormatError, DecodeError, ImageTooLargeError, Resize, decode
from samespace_edge._image import decode_image
from samespace_edge._resize import ResizePolicy
from tests.edge_runtime.raw_files import (
    ASCII,
    BYTE,
    LONG,
    ORIENTATION,
    SHORT,
    Field,
    chunk,
    exif,
    jpeg,
    png,
    short,
)
from tests.edge_runtime.reference_resize import triangle

RED_TO_BLUE = np.zeros((20, 30, 3), np.uint8)
RED_TO_BLUE[:, :15, 0] = 200
RED_TO_BLUE[:, 15:, 2] = 200


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def plain() -> Image.Image:
    return Image.fromarray(RED_TO_BLUE)


def test_all_sources_give_the_same_pixels(plain: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    plain.save(path)
    for source in (path, str(path), path.read_bytes(), plain, RED_TO_BLUE):
        assert np.array_equal(decode(source), RED_TO_BLUE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(plain: Image.Image, orientation: int) -> None:
    # What a viewer shows for each orientation, from the EXIF standard.
    shown = {
        1: RED_TO_BLUE,
        2: RED_TO_BLUE[:, ::-1],
        3: RED_TO_BLUE[::-1, ::-1],
        4: RED_TO_BLUE[::-1],
        5: RED_TO_BLUE.transpose(1, 0, 2),
        6: np.rot90(RED_TO_BLUE, -1),
        7: RED_TO_BLUE.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(RED_TO_BLUE),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(plain, "png", exif=exif)
    assert np.array_equal(decode(content), shown[orientation])


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    grey = (np.arange(600, dtype=np.uint16).reshape(20, 30) * 109).astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(grey)))
    assert pixels.shape == (20, 30, 3)
    assert np.array_equal(pixels[..., 0], (grey >> 8).astype(np.uint8))


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (10, 20, 30, 255)
    pixels = decode(encoded(Image.fromarray(rgba)))
    assert (pixels[:2] == (10, 20, 30)).all()
    assert (pixels[2:] == 255).all()


def test_palette_with_and_without_transparency(plain: Image.Image) -> None:
    palette = plain.convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.abs(decode(encoded(palette)).astype(int) - RED_TO_BLUE).max() <= 2
    clear = palette.copy()
    clear.info["transparency"] = palette.getpixel((0, 0))
    assert (decode(encoded(clear))[:, :15] == 255).all()


def test_cmyk_jpeg(plain: Image.Image) -> None:
    pixels = decode(encoded(plain.convert("CMYK"), "jpeg", quality=95))
    assert pixels[10, 3, 0] > 150 > 60 > pixels[10, 3, 2]


def test_first_frame_of_an_animation(plain: Image.Image) -> None:
    other = Image.fromarray(255 - RED_TO_BLUE)
    content = encoded(plain, "webp", save_all=True, append_images=[other], lossless=True)
    assert np.array_equal(decode(content), RED_TO_BLUE)


def test_one_pixel() -> None:
    one = np.full((1, 1, 3), 77, np.uint8)
    assert np.array_equal(
        Resize(8, 8)(decode(encoded(Image.fromarray(one)))), np.full((8, 8, 3), 77)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image"),
        (b"hello, this is text" * 20, "not an image"),
        (encoded(Image.fromarray(RED_TO_BLUE))[:60], "damaged or incomplete"),
        (encoded(Image.fromarray(RED_TO_BLUE), "jpeg")[:-200], "damaged or incomplete"),
    ],
    ids=["0-byte", "text", "truncated png", "truncated jpeg"],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=message) as error:
        decode(path)
    assert "broken.jpg" in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="there is no file"):
        decode(tmp_path / "none.png")
    with pytest.raises(DecodeError, match="is a folder"):
        decode(tmp_path)


def test_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 10_000)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(ImageTooLargeError, match="limit is 64,000,000 pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(ImageTooLargeError, match="30x20 pixels"):
        decode(RED_TO_BLUE, max_pixels=500)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["float", "grey", "rgba", "empty"],
)
def test_arrays_that_are_no_pixels(array: np.ndarray) -> None:
    with pytest.raises(DecodeError, match="uint8 RGB array"):
        decode(array)


def test_other_objects_are_refused() -> None:
    with pytest.raises(DecodeError, match="cannot read a picture from int"):
        decode(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["crop", "squash"])
@pytest.mark.parametrize("seed", range(30))
def test_resize_is_the_one_that_is_defined_to_the_bit(seed: int, policy: ResizePolicy) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 500, 2)
    resize = Resize(*(int(v) for v in rng.integers(1, 200, 2)), policy)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    cut = pixels
    if policy == "crop" and width * resize.height > height * resize.width:
        part = max(1, height * resize.width // resize.height)
        cut = pixels[:, (width - part) // 2 :][:, :part]
    elif policy == "crop":
        part = max(1, width * resize.height // resize.width)
        cut = pixels[(height - part) // 2 :][:part]
    assert np.array_equal(resize(pixels), triangle(cut, resize.width, resize.height))


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_orientation_is_exifs_alone(kind: str, plain: Image.Image) -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        b'syntax-ns#"><rdf:Description tiff:Orientation="6" xmlns:tiff="http://ns.adobe.com/tiff/'
        b'1.0/"/></rdf:RDF></x:xmpmeta>'
    )
    with Image.open(io.BytesIO(encoded(plain, kind, xmp=xmp))) as image:
        assert decode(image).shape == RED_TO_BLUE.shape
        assert image.info["xmp"] == xmp


def test_what_is_cut_off_has_no_influence() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 100
    assert (Resize(4, 4, "crop")(pixels) == 100).all()


def test_crop_takes_the_centre_and_pad_keeps_everything() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 100
    assert (Resize(10, 10, "crop")(pixels) == 100).all()
    padded = Resize(30, 30, "pad")(pixels)
    assert np.array_equal(padded[10:20], pixels)
    assert (padded[:10] == 255).all()


def test_resize_policies_are_checked() -> None:
    with pytest.raises(BundleFormatError, match="choose crop, squash, pad"):
        Resize(8, 8, "stretch")  # type: ignore[arg-type]
    with pytest.raises(BundleFormatError, match="outside 1 to 4096"):
        Resize(0, 8)


def test_a_transparent_colour_of_an_rgb_png_is_white(plain: Image.Image) -> None:
    pixels = decode(encoded(plain, "png", transparency=(200, 0, 0)))
    assert (pixels[:, :15] == 255).all()
    assert (pixels[:, 15:] == RED_TO_BLUE[:, 15:]).all()


def test_formats_whose_readers_start_programs_are_not_read() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(DecodeError, match="not an image"):
        decode(eps)


def test_a_lazy_pil_image_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path.write_bytes(encoded(Image.fromarray(noise), "jpeg")[:-900])
    with Image.open(path) as lazy, pytest.raises(DecodeError, match="the PIL image"):
        decode(lazy)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_never_end_in_anything_but_our_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    kind = ["jpeg", "png", "webp", "gif", "tiff"][seed % 5]
    options = {"exif": exif} if kind in ("jpeg", "webp", "tiff") else {}
    content = bytearray(encoded(Image.fromarray(RED_TO_BLUE), kind, **options))
    for place in rng.integers(0, len(content), 6):
        content[place] = rng.integers(256)
    try:
        pixels = decode(bytes(content))
    except (DecodeError, ImageTooLargeError):
        return
    assert pixels.dtype == np.uint8


TURNED = np.rot90(RED_TO_BLUE, -1)  # what a viewer shows for orientation 6
SIDEWAYS = short(ORIENTATION, 6)


def is_close(pixels: np.ndarray, expected: np.ndarray) -> bool:
    return pixels.shape == expected.shape and bool(np.abs(pixels.astype(int) - expected).mean() < 4)


@pytest.mark.parametrize(
    "odd",
    [
        (0x0128, BYTE, 1, b"\2"),
        (0x0213, ASCII, 2, b"1\0"),
        (0x02BC, ASCII, 4, b"<x/>"),
        (0x011A, ASCII, 3, b"72\0"),
        (0x9286, 99, 1, b"\0"),
        (0x0100, LONG, 2**31, b"\xff\xff\xff\xff"),
        (0x8769, LONG, 1, struct.pack("<I", 2**32 - 1)),
    ],
    ids=["unit", "positioning", "xmp", "resolution", "unknown type", "far away", "directory"],
)
def test_fields_of_exif_that_are_odd_change_nothing(odd: Field) -> None:
    fields = sorted((SIDEWAYS, odd))
    assert is_close(decode(jpeg(RED_TO_BLUE, exif(*fields))), TURNED)
    upright = sorted((short(ORIENTATION, 1), odd))
    assert is_close(decode(jpeg(RED_TO_BLUE, exif(*upright))), RED_TO_BLUE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, of what it reads when it opens a file
        with Image.open(io.BytesIO(jpeg(RED_TO_BLUE, exif(*fields)))) as image:
            assert is_close(decode(image), TURNED)


@pytest.mark.parametrize(
    "block",
    [
        exif((ORIENTATION, LONG, 1, struct.pack("<I", 6))),
        exif((ORIENTATION, SHORT, 2, struct.pack("<HH", 6, 6))),
        exif(short(ORIENTATION, 9)),
        exif(short(ORIENTATION, 0)),
        exif(SIDEWAYS)[:12],
        b"XX" + exif(SIDEWAYS)[2:],
        exif(SIDEWAYS).replace(b"*\0", b"+\0", 1),
        b"II",
    ],
    ids=["long", "two", "nine", "zero", "cut off", "byte order", "magic", "short"],
)
def test_an_orientation_that_is_not_valid_is_none(block: bytes) -> None:
    assert is_close(decode(jpeg(RED_TO_BLUE, block)), RED_TO_BLUE)


def test_the_first_valid_orientation_counts_in_either_byte_order() -> None:
    twice = exif(short(ORIENTATION, 0), SIDEWAYS, short(ORIENTATION, 3))
    assert is_close(decode(jpeg(RED_TO_BLUE, twice)), TURNED)
    big = exif(short(ORIENTATION, 6, ">"), order=">")
    assert is_close(decode(jpeg(RED_TO_BLUE, big)), TURNED)


def test_orientation_of_a_png_counts_wherever_its_exif_stands() -> None:
    block = chunk(b"eXIf", exif(SIDEWAYS))
    assert np.array_equal(decode(png(RED_TO_BLUE, before=[block])), TURNED)
    assert np.array_equal(decode(png(RED_TO_BLUE, after=[block])), TURNED)
    first = chunk(b"eXIf", exif(short(ORIENTATION, 1)))
    assert np.array_equal(decode(png(RED_TO_BLUE, before=[first], after=[block])), RED_TO_BLUE)


def test_orientation_in_the_text_of_a_png_is_none() -> None:
    block = b"Exif\0\0" + exif(SIDEWAYS)
    profile = b"\nexif\n%8d\n" % len(block) + block.hex().encode() + b"\n"
    raw = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))
    assert np.array_equal(decode(png(RED_TO_BLUE, before=[raw])), RED_TO_BLUE)
    text = chunk(b"tEXt", b"exif\0" + block)
    assert np.array_equal(decode(png(RED_TO_BLUE, before=[text])), RED_TO_BLUE)


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_compared_at_the_pictures_own_depth(
    depth: int, is_interlaced: bool
) -> None:
    most = 2**depth - 1
    rng = np.random.default_rng(depth)
    samples = rng.integers(0, most + 1, (13, 11)).astype(np.uint16)
    clear = int(samples[6, 5])
    if depth == 16:
        samples[0, 0] = clear ^ 1  # the same upper byte
    # Bits above the depth do not count.
    stored = struct.pack(">H", clear if depth == 16 else clear | 1 << depth)
    content = png(samples, depth, [chunk(b"tRNS", stored)], is_interlaced=is_interlaced)
    grey = samples >> 8 if depth == 16 else samples * 255 // most
    shown = np.where(samples == clear, 255, grey).astype(np.uint8)
    assert np.array_equal(decode(content), np.repeat(shown[..., None], 3, 2))


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_compared_at_the_pictures_own_depth(
    depth: int, is_interlaced: bool
) -> None:
    rng = np.random.default_rng(depth)
    samples = rng.integers(0, 2**depth, (9, 10, 3)).astype(np.uint16)
    clear = samples[4, 4].copy()
    samples[0, 0] = clear ^ (0, 0, 1)
    samples[1, 1] = clear
    content = png(samples, depth, [chunk(b"tRNS", clear.astype(">u2").tobytes())],
                  is_interlaced=is_interlaced)  # fmt: skip
    shown = (samples >> (depth - 8)).astype(np.uint8)
    shown[(samples == clear).all(-1)] = 255
    assert np.array_equal(decode(content), shown)


def test_transparency_is_turned_with_the_picture() -> None:
    samples = np.zeros((2, 4), np.uint8)
    samples[0, 0] = 3
    chunks = [chunk(b"eXIf", exif(SIDEWAYS)), chunk(b"tRNS", struct.pack(">H", 3))]
    shown = np.zeros((4, 2, 3), np.uint8)
    shown[0, 1] = 255
    assert np.array_equal(decode(png(samples, before=chunks)), shown)


def test_a_transparent_colour_of_another_length_is_left_out() -> None:
    content = png(RED_TO_BLUE, before=[chunk(b"tRNS", b"\0\1")])
    assert np.array_equal(decode(content), RED_TO_BLUE)


@pytest.mark.parametrize(
    "kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"tRNS", b"pHYs", b"acTL"]
)
def test_a_wrong_checksum_of_what_a_png_can_do_without(kind: bytes) -> None:
    for place in ("before", "after"):
        content = png(RED_TO_BLUE, **{place: [chunk(kind, b"Comment\0hi", wrong=True)]})
        assert np.array_equal(decode(content), RED_TO_BLUE)


def test_a_wrong_checksum_of_the_pixels_is_named() -> None:
    content = png(RED_TO_BLUE)
    at = content.index(b"IDAT") + 6
    broken = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    with pytest.raises(DecodeError, match="checksum of its PNG chunk IDAT is wrong"):
        decode(broken)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF picture"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "an MP4 or QuickTime video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"%PDF-1.7", "a PDF document"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b'\xef\xbb\xbf  <svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"8BPS\0\1", "a Photoshop document"),
    ],
)
def test_files_that_are_something_else_are_named(head: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(head + bytes(200))
    with pytest.raises(DecodeError, match=f"photo.jpg: this is {kind}.*not an image"):
        decode(path)


def heic(image: Image.Image, **options: object) -> bytes:
    from pillow_heif import from_pillow

    buffer = io.BytesIO()
    from_pillow(image).save(buffer, quality=-1, chroma=444, **options)  # -1: lossless
    return buffer.getvalue()


def test_a_heic_picture_is_read_whatever_its_name_says(plain: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(heic(plain))
    pixels = decode(path)
    assert pixels.dtype == np.uint8
    assert is_close(pixels, RED_TO_BLUE)
    assert is_close(decode(path.read_bytes()), RED_TO_BLUE)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_heic_picture_is_turned_once(plain: Image.Image, orientation: int) -> None:
    """The decoder turns by the file's own property, and EXIF only repeats it."""
    block = exif(short(ORIENTATION, orientation))
    turned = {1: RED_TO_BLUE, 3: RED_TO_BLUE[::-1, ::-1], 6: TURNED, 8: np.rot90(RED_TO_BLUE)}
    assert is_close(decode(heic(plain, exif=b"Exif\0\0" + block)), turned[orientation])


def test_transparency_of_a_heic_picture_is_laid_on_white() -> None:
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[:16] = (10, 200, 30, 255)
    pixels = decode(heic(Image.fromarray(rgba)))
    assert (np.abs(pixels[:14].astype(int) - (10, 200, 30)) <= 3).all()
    assert (pixels[18:] >= 252).all()


def test_limits_and_damage_of_a_heic_picture(plain: Image.Image) -> None:
    content = heic(plain)
    with pytest.raises(ImageTooLargeError, match="30x20 pixels"):
        decode(content, max_pixels=500)
    for broken in (content[:60], content[: len(content) // 2], content[:-20]):
        with pytest.raises(DecodeError, match="it begins as a HEIC/HEIF picture"):
            decode(broken)


def test_without_its_extra_a_heic_picture_is_named(
    plain: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = heic(plain)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DecodeError, match=r"HEIC/HEIF picture.*pip install \"samespace\[heif\]\""):
        decode(content)


def test_a_picture_from_a_pipe() -> None:
    read, write = os.pipe()
    os.write(write, png(RED_TO_BLUE))
    os.close(write)
    try:
        assert np.array_equal(decode(f"/dev/fd/{read}"), RED_TO_BLUE)
    finally:
        os.close(read)


def test_stray_bytes_before_the_exif_of_a_jpeg() -> None:
    content = jpeg(RED_TO_BLUE, exif(SIDEWAYS))
    assert is_close(decode(content[:2] + b"\0\0" + content[2:]), TURNED)


def test_an_orientation_set_in_memory_and_pictures_that_are_decoded_twice() -> None:
    image = Image.fromarray(RED_TO_BLUE)
    image.getexif()[ORIENTATION] = 6
    assert np.array_equal(decode(image), TURNED)
    with Image.open(io.BytesIO(png(RED_TO_BLUE, before=[chunk(b"eXIf", exif(SIDEWAYS))]))) as file:
        once = decode_image(file)
    assert np.array_equal(np.asarray(once), TURNED)
    assert np.array_equal(decode(once), TURNED)
    plain = Image.fromarray(RED_TO_BLUE)
    assert decode_image(plain) is not plain


def test_chunks_of_a_png_that_are_cut_off_or_too_late_do_not_count() -> None:
    content = png(RED_TO_BLUE, after=[chunk(b"eXIf", exif(SIDEWAYS))])
    end = content.index(b"IEND") - 4
    assert np.array_equal(decode(content[: end - 6]), RED_TO_BLUE)
    late = [chunk(b"tRNS", b"\0\xc8\0\0\0\0")]
    assert np.array_equal(decode(png(RED_TO_BLUE, after=late)), RED_TO_BLUE)


def test_a_truncated_tiff_is_called_damaged() -> None:
    content = encoded(Image.fromarray(RED_TO_BLUE), "tiff")
    with pytest.raises(DecodeError, match="damaged"):
        decode(content[:8])
