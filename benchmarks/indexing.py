"""How many pictures a second do pool and Ray bring into a gallery, and what costs a second run?

    OMP_NUM_THREADS=1 python -m benchmarks.indexing [--pictures 600] [--rounds 3]

Every run is the command `samespace index` in a process of its own, into a new gallery; the ways
take turns. The model is the quick start's cloud network with random weights: its cost is the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._result import OTHER_WORK, write
from samespace import Certificate, Embedder, Gallery
from samespace.indexing import PooledPictures

COLUMNS = {
    "what": "index: `samespace index` into an empty gallery; again: the same command once more, "
    "with nothing to do; upgrade: every item of a full gallery embedded again by another model",
    "how": "here: in the process itself; pool: processes; ray: actors of Ray Data, this machine",
    "workers": "processes or actors that embed",
    "pictures": "JPEGs of 640 x 480 pixels",
    "seconds": "of the run itself, s, median of the rounds",
    "rate": "pictures a second, median of the rounds",
    "rate_low": "least of the rounds",
    "rate_high": "most of the rounds",
    "around_seconds": "to start and to end the command, s, median; null where no command was run",
}

_WAYS = [("here", 0), ("pool", 1), ("pool", 2), ("ray", 2)]


def photograph(seed: int) -> Image.Image:
    """Blurred colours under fine noise, as hard on a decoder as a photograph."""
    chance = np.random.default_rng(seed)
    small = Image.fromarray(chance.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC), np.float32)
    noisy = pixels + chance.normal(0, 8, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def shop(folder: Path, pictures: int) -> Path:
    """Pictures, and their manifest."""
    (folder / "photos").mkdir()
    for n in range(pictures):
        photograph(n).save(folder / "photos" / f"{n}.jpg", quality=85)
    with (folder / "shop.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "shelf"])
        writer.writerows((f"photos/{n}.jpg", n % 100) for n in range(pictures))
    return folder / "shop.csv"


def network(out: Path, golden: Path, anchor: Path | None = None) -> Path:
    """A bundle of the quick start's cloud network, in a space of its own or in the anchor's."""
    import torch

    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.model import EmbeddingModel, ModelConfig
    from samespace_cloud.recipes import demo_recipe
    from samespace_export import export_bundle

    torch.manual_seed(0 if anchor is None else 1)
    recipe = demo_recipe()
    config = ModelConfig(recipe.cloud.model.backbone, recipe.cloud_size)
    space = None if anchor is None else Embedder(anchor).identity.space
    checkpoint = Checkpoint(EmbeddingModel(config).eval(), "cloud", space=space)
    export_bundle(
        checkpoint.model, checkpoint.export_spec(out.stem), out, golden=[golden.read_bytes()]
    )
    return out


def run_index(manifest: Path, gallery: Path, bundle: Path, how: str, workers: int) -> Any:
    """The command's own report, and the seconds around its work."""
    words = ["index", str(manifest), "--gallery", str(gallery), "--bundle", str(bundle), "--json"]
    words += ["--workers", str(workers), *(["--ray"] if how == "ray" else [])]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "samespace", *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wall = time.perf_counter() - start
    told = json.loads(done.stdout)
    return told, wall - told["seconds"]


def upgraded(gallery: Path, bundle: Path, photos: Path, pictures: int) -> float:
    """Seconds in which two processes bring every item to a newer model."""
    newer = Embedder(bundle)
    with Gallery.open(gallery) as opened:
        criterion = {
            "metric": "recall_at_1",
            "value": 0.6,
            "reference": "bench",
            "reference_value": 0.5,
            "difference_low": 0.05,
            "difference_high": 0.15,
        }
        anchor = next(m for m in opened.admitted if m.is_anchor)
        # Made up: what is measured is the work, and nobody searches this gallery.
        proof = Certificate(newer.identity, anchor, {}, criterion, {}, "0" * 64, "2026-01-01", "0")
        opened.admit(proof)
        start = time.perf_counter()
        status = opened.upgrade.run(PooledPictures(newer, photos, workers=2))
        seconds = time.perf_counter() - start
        assert status.done == pictures, status
    return seconds


def row(what: str, how: str, workers: int, pictures: int, took: list[float], around: Any) -> Any:
    rates = [pictures / s for s in took]
    return {
        "what": what,
        "how": how,
        "workers": workers,
        "pictures": pictures,
        "seconds": median(took),
        "rate": median(rates),
        "rate_low": min(rates),
        "rate_high": max(rates),
        "around_seconds": median(around) if around else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    pictures = arguments.pictures
    took: dict[tuple[str, str, int], list[float]] = {}
    around: dict[tuple[str, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = shop(folder, pictures)
        cloud = network(folder / "cloud.bundle", folder / "photos" / "0.jpg")
        newer = network(folder / "newer.bundle", folder / "photos" / "0.jpg", cloud)
        for number in range(arguments.rounds):
            for how, workers in _WAYS:
                gallery = folder / f"{how}{workers}-{number}"
                Gallery.create(gallery, cloud).close()
                for what, there in (("index", 0), ("again", pictures)):
                    told, rest = run_index(manifest, gallery, cloud, how, workers)
                    assert (told["there"], told["items"]) == (there, pictures), told
                    took.setdefault((what, how, workers), []).append(told["seconds"])
                    around.setdefault((what, how, workers), []).append(rest)
            seconds = upgraded(folder / f"pool2-{number}", newer, folder, pictures)
            took.setdefault(("upgrade", "pool", 2), []).append(seconds)
    rows = [row(*key, pictures, took[key], around.get(key)) for key in sorted(took, key=_order)]
    notes = [
        f"The cloud network of the quick start, one thread a process; {arguments.rounds} rounds in "
        f"turn. {OTHER_WORK}"
    ]
    write("indexing", COLUMNS, rows, notes=notes)


def _order(key: tuple[str, str, int]) -> tuple[int, int]:
    what, how, workers = key
    return ["index", "upgrade", "again"].index(what), _WAYS.index((how, workers))


if __name__ == "__main__":
    main()
