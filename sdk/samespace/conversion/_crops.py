"""Boxes cut out of pictures, in parallel; what is there already is not made again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from samespace.conversion._formats import Progress
from samespace.conversion._read import failed
from samespace_edge import DataError, ImageError
from samespace_edge._image import decode_image
from samespace_edge._temporary import temporary_for

QUALITY = 95
"""Of the JPEGs."""


@dataclass(frozen=True)
class Crop:
    """A box (left, upper, right, lower) of a picture, and the file it goes to."""

    file: Path
    box: tuple[float, float, float, float]


def cut_out(pictures: Sequence[tuple[Path, Sequence[Crop]]], progress: Progress) -> set[Path]:
    """Write every crop that is not there yet.

    A file appears when it is whole, so an interrupted run is resumed by running it again. Boxes
    are cut off at the picture's border.

    Args:
        pictures: each with its crops.
        progress: is told how many pictures are done.

    Returns the files that were not made because nothing of their box is in the picture. Raises
    `DataError` that lists every picture that cannot be read, after all others are done.
    """
    problems: list[str] = []
    empty: set[Path] = set()
    for folder in {crop.file.parent for _, crops in pictures for crop in crops}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder} cannot be made: {error}") from None
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        for done, (problem, none) in enumerate(pool.map(_cut_one, pictures), 1):
            empty |= none
            if problem:
                problems.append(problem)
            progress("cut out", done, len(pictures))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all of them
    if problems:
        raise failed("the download", problems)
    return empty


def _cut_one(job: tuple[Path, Sequence[Crop]]) -> tuple[str | None, set[Path]]:
    picture, crops = job
    todo = [crop for crop in crops if not crop.file.exists()]
    if not todo:
        return None, set()
    try:
        image = decode_image(picture)
    except ImageError as error:
        return str(error), set()
    empty = set()
    for crop in todo:
        left, upper = (max(0, round(v)) for v in crop.box[:2])
        right, lower = min(image.width, round(crop.box[2])), min(image.height, round(crop.box[3]))
        if right <= left or lower <= upper:
            empty.add(crop.file)
            continue
        temporary = temporary_for(crop.file)
        try:
            image.crop((left, upper, right, lower)).save(temporary, "JPEG", quality=QUALITY)
            os.replace(temporary, crop.file)
        except OSError as error:
            raise DataError(f"{crop.file} cannot be written: {error}") from None
        finally:
            temporary.unlink(missing_ok=True)
    return None, empty
