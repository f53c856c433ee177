"""Writes pictures, a bundle, and what Python makes of them, into a folder for the tests.

python test/make_expected.py FOLDER
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))  # for the helpers in tests/

from pictures import damaged, file, foreign, jpegs, lossless, lossy, photo, transparent  # noqa: E402

from samespace_edge import Embedder, ImageError, decode  # noqa: E402

GROUPS = {
    "jpeg": jpegs,
    "lossless": lossless,
    "transparent": transparent,
    "lossy": lossy,
    "foreign": foreign,
    "damaged": damaged,
}


def write_pictures(folder: Path) -> dict[str, str]:
    """`pictures/`; the group of each picture, by its name."""
    (folder / "pictures").mkdir()
    groups = {}
    for group, make in GROUPS.items():
        for name, encoded in make().items():
            (folder / "pictures" / name).write_bytes(encoded)
            groups[name] = group
    return groups


def make_bundle(folder: Path) -> None:
    """`edge.bundle`: every ONNX file, and golden pictures of the kinds that go wrong.

    `usual.onnx`: the int8 file as other quantisers write it. A process of its own exports both:
    torch has no place here.
    """
    pictures = folder / "pictures"
    golden = [folder / "photo.jpg", pictures / "rgba.png", pictures / "lossy.webp"]
    golden[0].write_bytes(file(photo(320, 240, seed=2), "jpeg", quality=85))
    targets = ("onnx-fp32", "onnx-fp16", "onnx-int8")
    make = [sys.executable, "-W", "ignore", "-m", "tests.make_bundle", folder / "edge.bundle"]
    more = ["--golden", *golden, "--usual", folder / "usual.onnx"]
    subprocess.run([*make, *targets, *more], cwd=ROOT, check=True)


def write_expected(folder: Path, groups: dict[str, str]) -> None:
    """The decoded pixels as `pictures/*.rgb`, and `expected.json` with the vectors."""
    embedder = Embedder(folder / "edge.bundle", variant="onnx-fp32")
    pictures: dict[str, Any] = {}
    for name, group in groups.items():
        encoded = (folder / "pictures" / name).read_bytes()
        pictures[name] = {"group": group}
        try:
            pixels = decode(encoded)
        except ImageError as error:
            pictures[name]["error"] = type(error).__name__
            continue
        (folder / "pictures" / f"{name}.rgb").write_bytes(pixels.tobytes())
        pictures[name] |= {
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "vector": embedder.embed(encoded)[0].tolist(),
        }
    expected = {"identity": embedder.identity.to_json(), "pictures": pictures}
    (folder / "expected.json").write_text(json.dumps(expected))


def main(out: str) -> None:
    """Write everything into the folder `out`, which is empty."""
    folder = Path(out).resolve()
    groups = write_pictures(folder)
    make_bundle(folder)
    write_expected(folder, groups)


if __name__ == "__main__":
    main(sys.argv[1])
