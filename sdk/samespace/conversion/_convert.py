"""`convert`: from a download to a manifest beside it."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samespace.conversion._formats import Progress, Request, Row
from samespace.conversion._read import failed
from samespace.conversion._table import CONVERTERS
from samespace_edge import ConfigError, DataError, UnsafePathError
from samespace_edge._bundle import safe_member
from samespace_edge._temporary import temporary_for

_HEADER = ("path", "label", "split", "role")


@dataclass(frozen=True)
class Conversion:
    """A manifest that was written.

    Attributes:
        manifest: its path.
        name: of the dataset.
        protocol: that was followed.
        open_set: whether the test labels are absent from train (see `Dataset.validate`).
        counts: pictures and labels, named as `samespace data check` names them.
        notes: what the reader of its figures has to know.
        warnings: counts that are not those of the whole dataset.
    """

    manifest: Path
    name: str
    protocol: str
    open_set: bool
    counts: Mapping[str, int]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def convert(
    name: str,
    folder: str | Path,
    out: str | Path,
    *,
    protocol: str | None = None,
    crops: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Conversion:
    """Write the manifest of a downloaded dataset, with its usual protocol.

    The pictures stay where they are. The CSV has to lie in their folder or in one around it, for
    its paths may not leave its own folder. It is written in one step, when all is well.

    Args:
        name: a key of `CONVERTERS`.
        folder: the unpacked download.
        out: the CSV to write.
        protocol: one of the converter's; the first of them unless told.
        crops: folder for pictures that are cut out, for datasets with boxes. What is there
            already is not made again.
        overwrite: whether `out` may be replaced.
        progress: is told what is being done, and how much of how much is done.

    Raises `ConfigError` for options that do not fit and `DataError` for a download that does not,
    which lists everything that is wrong.
    """
    if name not in CONVERTERS:
        raise ConfigError(f"no dataset is called {name!r}; there are {', '.join(CONVERTERS)}")
    converter = CONVERTERS[name]
    protocol = protocol or converter.protocols[0]
    if protocol not in converter.protocols:
        known = ", ".join(converter.protocols)
        raise ConfigError(f"{name} has no protocol {protocol!r}; it has {known}")
    if converter.crops and crops is None:
        raise ConfigError(f"{name} has boxes that have to be cut out: add --crops FOLDER for them")
    if not converter.crops and crops is not None:
        raise ConfigError(f"{name} uses whole pictures; leave out --crops")
    # Lexically absolute: a link to a big disk beside the CSV stays a path below it.
    out, folder = Path(os.path.abspath(out)), Path(os.path.abspath(folder))
    _check_out(out, overwrite)
    cut = Path(os.path.abspath(crops)) if crops is not None else None
    for inside in (folder, cut):
        if inside is not None and not _below(out, inside):
            raise ConfigError(
                f"{inside} is not below {out.parent}, and a manifest's paths may not leave its "
                f"folder; write it to {folder / out.name} or to a folder around everything"
            )
    made = converter.convert(Request(folder, protocol, cut, progress))
    _write(out, _records(out, made.rows))
    counts = _counts(made.rows)
    published = converter.published.get(protocol, {})
    return Conversion(
        manifest=out,
        name=name,
        protocol=protocol,
        open_set=protocol not in converter.closed,
        counts=counts,
        notes=tuple(made.notes),
        warnings=tuple(_differences(counts, published)),
    )


def _below(out: Path, inside: Path) -> bool:
    """Whether what is in `inside` lies in or below the folder of `out`."""
    return inside.is_relative_to(out.parent)


def _check_out(out: Path, overwrite: bool) -> None:
    if out.suffix.lower() != ".csv":
        raise ConfigError(f"{out} has to end in .csv, for it is a manifest")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"{out} exists; add --overwrite to replace it, or name another file")


def _records(out: Path, rows: Sequence[Row]) -> list[dict[str, str]]:
    """The manifest's rows; raises `DataError` with every picture that cannot be listed."""
    records, problems = [], []
    seen = Counter(row.file for row in rows)
    for row in rows:
        inside = row.file.is_relative_to(out.parent)
        path = (row.file.relative_to(out.parent) if inside else row.file).as_posix()
        try:
            safe_member(path)
        except UnsafePathError as error:
            problems.append(f"{row.origin}: {error}")
            continue
        if not row.file.is_file():
            problems.append(f"{row.origin}: there is no picture {path}")
        elif seen[row.file] > 1:
            problems.append(f"{row.origin}: {path} is listed more than once")
        own = {"path": path, "label": row.label, "split": row.split, "role": row.role}
        records.append({**own, **row.columns})
    if problems:
        raise failed(str(out.parent), problems)
    return records


def _write(out: Path, records: Sequence[Mapping[str, str]]) -> None:
    free = dict.fromkeys(c for r in records for c in r if c not in _HEADER)
    temporary = temporary_for(out)
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*_HEADER, *free], restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
        os.replace(temporary, out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    train = [r for r in rows if r.split == "train"]
    gallery = [r for r in rows if r.role == "gallery"]
    counts = {"train": len(train), "train labels": _labels(train)}
    if val := sum(r.split == "val" for r in rows):
        counts["val"] = val
    counts["queries"] = sum(r.role == "query" for r in rows)
    return {**counts, "gallery": len(gallery), "test labels": _labels(gallery)}


def _labels(rows: Iterable[Row]) -> int:
    return len({r.label for r in rows})


def _differences(counts: Mapping[str, int], published: Mapping[str, int]) -> list[str]:
    here = {**counts, "queries and gallery": counts["queries"] + counts["gallery"]}
    return [
        f"{what}: {here.get(what, 0):,} here, {number:,} in the whole dataset"
        for what, number in published.items()
        if here.get(what, 0) != number
    ]
