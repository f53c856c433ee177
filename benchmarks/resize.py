"""What does another resize than the bundle's do to pixels, vectors and a search?

    python -m benchmarks.resize --edge edge.bundle --cloud cloud.bundle --data manifest.csv

Every test query is decoded once and brought to the model's input by what developers reach for.
The canvas needs `npm run build` in edge_runtime/web and Chromium, and is left out without them.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks._result import write
from samespace import Dataset, metrics
from samespace_edge import Embedder, Pixels, decode
from tests.edge_runtime.reference_resize import triangle

COLUMNS = {
    "resize": "what took the place of the bundle's resize",
    "max": "largest difference of a pixel, levels of 255",
    "mean": "mean absolute difference of the pixels, levels",
    "cosine_mean": "mean cosine of the vectors to those of the bundle's resize",
    "cosine_min": "smallest of them",
    "same_first_hit": "share of the queries that find the same picture first",
    "recall_at_1": "share of the queries whose first hit is right",
    "difference": "of recall_at_1 to the bundle's resize",
    "difference_ci": "its 95 % interval, paired, cluster-robust over labels",
}

WEB = Path(__file__).parent.parent / "edge_runtime" / "web"


def pillow(how: Image.Resampling) -> Callable[[Pixels, int], Pixels]:
    return lambda p, size: np.asarray(Image.fromarray(p).resize((size, size), how))


def opencv(how: int) -> Callable[[Pixels, int], Pixels]:
    return lambda p, size: np.asarray(cv2.resize(p, (size, size), interpolation=how), np.uint8)


def in_torch(antialias: bool) -> Callable[[Pixels, int], Pixels]:
    def run(pixels: Pixels, size: int) -> Pixels:
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
        y = torch.nn.functional.interpolate(
            x, (size, size), mode="bilinear", align_corners=False, antialias=antialias
        )
        rounded: Pixels = y[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return rounded

    return run


RESIZES: dict[str, Callable[[Pixels, int], Pixels]] = {
    "the definition, in numpy": lambda p, size: triangle(p, size, size),
    "Pillow BILINEAR, both axes in one call": pillow(Image.Resampling.BILINEAR),
    "Pillow BICUBIC": pillow(Image.Resampling.BICUBIC),
    "Pillow LANCZOS": pillow(Image.Resampling.LANCZOS),
    "torch bilinear, antialias": in_torch(True),
    "torch bilinear": in_torch(False),
    "OpenCV INTER_AREA": opencv(cv2.INTER_AREA),
    "OpenCV INTER_LINEAR": opencv(cv2.INTER_LINEAR),
    "OpenCV INTER_NEAREST": opencv(cv2.INTER_NEAREST),
}


def square(pixels: Pixels) -> Pixels:
    """The centred square, as the bundle cuts it."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def canvases(pictures: list[Pixels], size: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """What a canvas makes of the pictures, in headless Chromium."""
    if not (WEB / "dist").exists():
        print("the canvas is left out: no edge_runtime/web/dist (make test-web makes it)")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / "in" / f"{i:05}.png")
        command = ["node", "test/canvas_resize.mjs", str(folder / "in"), "--size", str(size)]
        command += ["--pixels", str(folder / "out")]
        subprocess.run(command, cwd=WEB, check=True, stdout=subprocess.DEVNULL)
        for quality in ("low", "high"):
            drawn = np.fromfile(folder / f"out-{size}-{quality}.rgb", np.uint8)
            yield f"canvas, smoothing {quality}", drawn.reshape(-1, size, size, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", required=True)
    parser.add_argument("--cloud", required=True)
    parser.add_argument("--data", required=True)
    asked = parser.parse_args()
    edge, cloud, data = Embedder(asked.edge), Embedder(asked.cloud), Dataset.open(asked.data)
    resize = edge.bundle.manifest.resize
    assert resize.width == resize.height
    assert resize.policy == "crop"
    size = resize.width

    pictures = [decode(data.read(item)) for item in data.queries]
    expected = np.stack([resize(picture) for picture in pictures])
    gallery = cloud.embed([data.read(item) for item in data.gallery])
    names = {label: i for i, label in enumerate(sorted({i.label for i in data.gallery}))}
    gallery_labels = np.array([names[i.label] for i in data.gallery])
    labels = np.array([names[i.label] for i in data.queries])
    intervals = metrics.ClusterRobust(labels)

    def search(pixels: NDArray[np.uint8]) -> tuple[Any, Any, Any]:
        vectors = np.concatenate([edge.embed_pixels(p[None]) for p in pixels])
        ranking = metrics.rank(vectors, gallery, labels, gallery_labels, keep=1)
        return vectors, ranking.top[:, 0], ranking.hits(1).astype(float)

    reference, first, right = search(expected)
    made = {"the bundle's resize": expected}
    for name, function in RESIZES.items():
        made[name] = np.stack([function(square(picture), size) for picture in pictures])
    made |= dict(canvases(pictures, size))
    rows = []
    for name, pixels in made.items():
        difference = np.abs(pixels.astype(int) - expected)
        vectors, found, correct = search(pixels)
        cosine = (vectors.astype(float) * reference).sum(1)
        interval = intervals.difference(correct - right)
        rows.append(
            {
                "resize": name,
                "max": int(difference.max()),
                "mean": float(difference.mean()),
                "cosine_mean": float(cosine.mean()),
                "cosine_min": float(cosine.min()),
                "same_first_hit": float((found == first).mean()),
                "recall_at_1": float(correct.mean()),
                "difference": float(correct.mean() - right.mean()),
                "difference_ci": [interval.low, interval.high],
            }
        )
    sides = sorted(min(p.shape[:2]) for p in pictures)
    notes = [
        f"{data.name}: {len(pictures)} queries, shorter side {sides[0]} to {sides[-1]} pixels "
        f"(median {sides[len(sides) // 2]}), to {size}x{size}"
    ]
    write("resize", COLUMNS, rows, notes=notes)


if __name__ == "__main__":
    main()
