"""What the tests of indexing share: manifests of real pictures, and what a gallery then holds."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from samespace import Embedder, Gallery
from tests.conftest import picture

TRUNCATED, BOMB, MISSING, TEXT = "truncated.png", "bomb.png", "missing.png", "text.jpg"


def make_manifest(folder: Path, count: int, poison: bool = False) -> Path:
    """`count` pictures and a CSV of them with columns id, path, label, price."""
    (folder / "photos").mkdir(parents=True)
    rows = [("id", "path", "label", "price")]
    for n in range(count):
        picture(n % 50, n).save(folder / "photos" / f"{n:05}.png")
        rows.append((f"item-{n}", f"photos/{n:05}.png", f"label{n % 50}", f"{n}.5"))
    if poison:
        whole = (folder / "photos" / "00000.png").read_bytes()
        (folder / TRUNCATED).write_bytes(whole[: len(whole) // 2])
        (folder / BOMB).write_bytes(bomb())
        (folder / TEXT).write_text("this is no picture")
        at = 1 + count // 2
        rows[at:at] = [(name, name, "bad", "1") for name in (TRUNCATED, BOMB, MISSING, TEXT)]
    with (folder / "shop.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "shop.csv"


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 100,000 x 100,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def holds_exactly(gallery: Gallery, folder: Path, numbers: Sequence[int], model: Embedder) -> None:
    """Every picture once, none more, by its own vector."""
    found = gallery.search(vectors=np.eye(model.dim)[:1], model=model, k=10**6).ids[0]
    assert len(found) == len(set(found)) == len(gallery)
    assert set(found) == {f"item-{n}" for n in numbers}
    own = model.embed([folder / "photos" / f"{n:05}.png" for n in numbers])
    stored = np.stack([r.vector for r in gallery.get([f"item-{n}" for n in numbers])])
    assert np.abs(stored - own).max() < 1e-5
