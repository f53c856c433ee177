"""Say what a file is when it is not a picture that can be decoded."""

from __future__ import annotations

HEAD = 64
"""How many of a file's first bytes decide what it is."""

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")

# Where the bytes are, the bytes, what a file with them is.
_KINDS = (
    (0, b"\xff\xd8\xff", "a JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG"),
    (0, b"GIF8", "a GIF"),
    (8, b"WEBP", "a WebP"),
    (0, b"II*\0", "a TIFF or a camera's raw file"),
    (0, b"MM\0*", "a TIFF or a camera's raw file"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\x01\0", "an icon (ICO)"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska video"),
    (8, b"AVI ", "an AVI video"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file (run 'git lfs pull')"),
    (0, b"{", "JSON text"),
)
_MARKUP = (
    (b"<!doctype html", "a web page (HTML), perhaps an error page of the server"),
    (b"<html", "a web page (HTML), perhaps an error page of the server"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "XML text, perhaps an SVG drawing"),
)


def is_heif(head: bytes) -> bool:
    """Return whether a file with these first bytes is a HEIC or HEIF picture, as phones make."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def name_kind(head: bytes) -> str | None:
    """Return what a file with these first bytes is, such as `a PDF document`; None if unknown."""
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp":
        if is_heif(head):
            return "a HEIC/HEIF picture"
        return "an AVIF picture" if head[8:12] in _AVIF_BRANDS else "an MP4 or QuickTime video"
    for at, magic, kind in _KINDS:
        if head[at : at + len(magic)] == magic:
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, kind in _MARKUP:
        if text.startswith(start):
            return kind
    return None
