"""Pictures of three classes and two customers, and the commands that tune on them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from PIL import Image

from samespace_cloud.cli.tune import tune

CLASSES = ("blue", "green", "red")
NETWORK = ("--backbone", "ir-s4-1x4x1s1k3-2x4x1s2k3-f8", "--size", "16", "--init", "random")
EXACT = ("--solver", "exact", "--penalty", "0.2", "--json")
HEADER = ("path", "label", "split", "customer")

Row = tuple[str, str, str, str]


def write_pictures(folder: Path) -> list[Row]:
    """Of each class 3 of ours, 6 train pictures of customers and 3 for test; weakly coloured."""
    noise = np.random.default_rng(0)
    rows = []
    for i, label in enumerate(("red", "green", "blue")):
        for shot in range(12):
            pixels = noise.normal(90, 40, (20, 20, 3))
            pixels[..., i] += 15
            path = f"{label}{shot}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path)
            owner = "us" if shot < 3 else "acme" if shot < 6 else "bob"
            rows.append((path, label, "train" if shot < 9 else "test", owner))
    return rows


def manifest(folder: Path, name: str, rows: Sequence[Row]) -> Path:
    """A manifest of these rows beside the pictures."""
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return folder / name


def run(*arguments: object) -> dict[str, Any]:
    """What `samespace tune` prints as JSON; errors of its own are raised."""
    found: dict[str, Any] = json.loads(text(*arguments))
    return found


def text(*arguments: object) -> str:
    """What `samespace tune` prints."""
    ran = CliRunner().invoke(tune, [str(a) for a in arguments])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def refused(*arguments: object) -> str:
    """What `samespace tune` says of wrong usage."""
    ran = CliRunner().invoke(tune, [str(a) for a in arguments])
    assert ran.exit_code == 2, ran.output
    return ran.output
