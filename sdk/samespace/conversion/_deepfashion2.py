"""DeepFashion2, consumer to shop (Ge et al., CVPR 2019).

Two pieces of clothing are the same if their pictures have one `pair_id` and they have one `style`,
which is not 0. Protocol `consumer-to-shop`: boxes of the train pictures are train; of the
validation pictures (the test pictures come without annotations) those that users took are queries,
those of shops the gallery. Pieces of style 0 match nothing and are left out. The boxes are the
annotated ones, so figures are those of retrieval alone; the challenge has clothes detected too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samespace.conversion._crops import Crop, cut_out
from samespace.conversion._formats import Converted, Converter, Progress, Request, Row
from samespace.conversion._read import failed, layout, text
from samespace_edge import DataError

_SOURCE = (
    "github.com/switchablenorms/DeepFashion2 (train.zip and validation.zip, unpacked with the "
    "password that its form sends)"
)
_ITEM = re.compile(r"item[0-9]+")
_PARTS = ("train", "validation")
_LAYOUTS = [{f"{part} {what}": f"{part}/{what}/" for part in _PARTS for what in ("image", "annos")}]


@dataclass(frozen=True)
class _Piece:
    crop: Crop
    label: str
    source: str
    columns: dict[str, str]


def _convert(request: Request) -> Converted:
    found = layout(request.folder, _LAYOUTS, _SOURCE)
    assert request.crops is not None  # `convert` saw to it
    jobs: list[tuple[Path, list[Crop]]] = []
    rows: list[Row] = []
    for part in _PARTS:
        to = request.crops / part
        files = sorted(found[f"{part} annos"].glob("[0-9]*.json"))
        for file, pieces in _annotations(files, part, to, request.progress):
            picture = found[f"{part} image"] / f"{file.stem}.jpg"
            jobs.append((picture, [p.crop for p in pieces]))
            rows += [_row(p, part, f"{part}/annos/{file.name}") for p in pieces]
    in_gallery = {r.label for r in rows if r.role == "gallery"}
    kept = [r for r in rows if r.role != "query" or r.label in in_gallery]
    wanted = {r.file for r in kept}
    empty = cut_out(
        [(picture, [c for c in crops if c.file in wanted]) for picture, crops in jobs],
        request.progress,
    )
    return _without(kept, empty, len(rows) - len(kept))


def _row(piece: _Piece, part: str, origin: str) -> Row:
    split, role = "train", "train"
    if part == "validation":
        split, role = "test", "query" if piece.source == "user" else "gallery"
    return Row(piece.crop.file, piece.label, split, role, origin, piece.columns)


def _without(rows: Sequence[Row], empty: set[Path], unmatched: int) -> Converted:
    """Leave out boxes outside their picture, and the queries that lost their match by it."""
    left = [r for r in rows if r.file not in empty]
    in_gallery = {r.label for r in left if r.role == "gallery"}
    kept = [r for r in left if r.role != "query" or r.label in in_gallery]
    unmatched += len(left) - len(kept)
    notes = []
    if unmatched:
        notes.append(f"{unmatched} boxes of users are left out: no shop's picture matches them")
    if empty:
        notes.append(f"{len(empty)} boxes are left out: they lie outside their picture")
    return Converted(kept, notes)


def _annotations(
    files: Sequence[Path], part: str, to: Path, progress: Progress
) -> list[tuple[Path, list[_Piece]]]:
    """Every picture that has pieces to be searched; raises `DataError` with all that is wrong."""
    if not files:
        raise DataError(f"{part}/annos holds no .json files; was {part}.zip unpacked whole?")
    found, problems = [], []
    for done, file in enumerate(files, 1):
        try:
            pieces = _pieces(json.loads(text(file)), file.stem, part, to)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"{part}/annos/{file.name}: {what}")
            continue
        if pieces:
            found.append((file, pieces))
        progress(f"read {part}", done, len(files))
    if problems:
        raise failed(str(files[0].parent), problems)
    return found


def _pieces(annotation: dict[str, Any], stem: str, part: str, to: Path) -> list[_Piece]:
    if not isinstance(annotation, dict):
        raise ValueError("is not an object")
    source, pair = annotation["source"], int(annotation["pair_id"])
    if source not in ("user", "shop"):
        raise ValueError(f"source is {source!r}, not 'user' or 'shop'")
    pieces = []
    for key, item in annotation.items():
        if not _ITEM.fullmatch(key) or int(item["style"]) <= 0:
            continue
        box = tuple(float(v) for v in item["bounding_box"])
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise ValueError(f"bounding_box of {key} is {item['bounding_box']}, not 4 numbers")
        crop = Crop(to / f"{stem}_{key}.jpg", (box[0], box[1], box[2], box[3]))
        # Nothing says that the two parts number their pairs in common.
        label = f"{part}-{pair}-{int(item['style'])}"
        columns = {"category_id": str(item["category_id"]), "source": source}
        pieces.append(_Piece(crop, label, source, columns))
    return pieces


CONVERTER = Converter(
    convert=_convert,
    title="DeepFashion2, consumer to shop (Ge et al. 2019)",
    protocols=("consumer-to-shop",),
    published={},  # the paper counts more pictures than were released
    crops=True,
)
