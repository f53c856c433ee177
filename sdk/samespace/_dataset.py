"""Labelled pictures, split into what is trained on and what is searched (format: sdk/README.md)."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from samespace._files import Files, FolderFiles, ZipFiles
from samespace_edge import DataError, ImageError, SamespaceError, decode
from samespace_edge._bundle import safe_member

_REQUIRED = ("path", "label", "split", "role")
_SPLITS = ("train", "val", "test")
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_SHOWN = 20


@dataclass(frozen=True)
class Item:
    """One picture of a dataset.

    Attributes:
        path: relative to the manifest, with `/`.
        label: what it shows; two pictures of one label are a match.
        split: `train`, `val` or `test`.
        role: in test, `query` or `gallery`.
        columns: the manifest's free columns.
    """

    path: str
    label: str
    split: str
    role: str
    columns: Mapping[str, str] = field(default_factory=dict)


class Dataset:
    """Pictures with labels, splits and roles.

    Open one with `Dataset.open`, which reads the list, and check it with `validate`, which reads
    the pictures.
    """

    def __init__(
        self,
        name: str,
        items: Sequence[Item],
        files: Files,
        source: str,
        problems: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.items = tuple(items)
        self._problems = tuple(problems)
        self.source = source
        self._files = files

    @classmethod
    def open(cls, path: str | Path, *, lenient: bool = False) -> Dataset:
        """Read a dataset's list of pictures.

        Args:
            path: a manifest CSV (`path,label,split,role` and free columns, paths relative to
                the CSV); a folder with one `manifest.csv` in it; a folder of `label/picture.jpg`; a
                folder with `query/label/...` and `gallery/label/...` (and `train/label/...`);
                or a zip of any of these.
            lenient: leave out rows that cannot be read, and have `validate` report them with
                everything else.

        Raises `DataError` that lists every row that cannot be read.
        """
        path = Path(path)
        if not path.exists():
            raise DataError(f"there is no dataset at {path}")
        if path.suffix.lower() == ".csv":
            files: Files = FolderFiles(path.parent)
            items, problems = _read_manifest(path.read_bytes(), str(path))
        else:
            if path.is_dir():
                files = FolderFiles(path)
            elif path.suffix.lower() == ".zip":
                files = ZipFiles(path)
            else:
                raise DataError(f"{path} is neither a CSV, nor a zip, nor a folder")
            items, problems = _from_files(files, str(path))
        if problems and not lenient:
            raise _error(str(path), problems)
        return cls(path.stem, items, files, str(path), problems)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {len(self.train)} train, "
            f"{len(self.queries)} queries, {len(self.gallery)} gallery)"
        )

    @property
    def train(self) -> tuple[Item, ...]:
        """What is trained on."""
        return tuple(i for i in self.items if i.split == "train")

    @property
    def val(self) -> tuple[Item, ...]:
        """What is validated on; where there is none, labels are carved out of train."""
        return tuple(i for i in self.items if i.split == "val")

    @property
    def queries(self) -> tuple[Item, ...]:
        """What is searched for, in test."""
        return tuple(i for i in self.items if i.split == "test" and i.role == "query")

    @property
    def gallery(self) -> tuple[Item, ...]:
        """What is searched in, in test."""
        return tuple(i for i in self.items if i.split == "test" and i.role == "gallery")

    def subset(self, items: Sequence[Item]) -> Dataset:
        """The same dataset with only these items."""
        return Dataset(self.name, items, self._files, self.source)

    def read(self, item: Item) -> bytes:
        """The encoded picture; raises `DataError` naming it."""
        try:
            return self._files.read(item.path)
        except OSError as error:
            raise DataError(f"{item.path} of {self.source} cannot be read: {error}") from None

    def sha256(self, items: Iterable[Item]) -> str:
        """Hash of these items: what they show, and the content of their files, in any order."""
        lines = sorted(
            "\0".join((i.path, i.label, i.role, hashlib.sha256(self.read(i)).hexdigest()))
            for i in items
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def validate(
        self,
        *,
        open_set: bool = True,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Read every picture and check that the dataset can be trained and searched.

        Args:
            open_set: whether the test labels have to be absent from train, as in retrieval of
                products never seen.
            progress: is told how many pictures of how many are read.

        Raises `DataError`, whose `problems` lists everything that is wrong.
        """
        problems = [
            *self._problems,
            *_list_problems(self, open_set),
            *self._picture_problems(progress),
        ]
        if problems:
            raise _error(self.source, problems)

    def _picture_problems(self, progress: Callable[[int, int], None]) -> list[str]:
        def check(item: Item) -> str | None:
            try:
                decode(self._files.read(item.path))
            except FileNotFoundError:
                return f"{item.path}: there is no such file"
            except OSError as error:
                return f"{item.path}: cannot be read ({error})"
            except ImageError as error:
                return f"{item.path}: {error}"
            except SamespaceError as error:
                return str(error)
            return None

        problems = []
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for done, problem in enumerate(pool.map(check, self.items), 1):
                if problem:
                    problems.append(problem)
                progress(done, len(self.items))
        return problems


def _error(source: str, problems: Sequence[str]) -> DataError:
    shown = [f"  - {p}" for p in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  - and {len(problems) - _SHOWN} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DataError(f"{source} has {count}:\n" + "\n".join(shown), problems)


def _from_files(files: Files, source: str) -> tuple[list[Item], list[str]]:
    names = [n for n in files.names() if not _hidden(n)]
    manifests = [n for n in names if PurePosixPath(n).name == "manifest.csv"]
    if len(manifests) > 1:
        raise DataError(f"{source} has several manifests: {', '.join(manifests)}; name one")
    if not manifests:
        return _from_folders(names, source), []
    items, problems = _read_manifest(files.read(manifests[0]), f"{source}/{manifests[0]}")
    parent = PurePosixPath(manifests[0]).parent
    return [replace(i, path=(parent / i.path).as_posix()) for i in items], problems


def _hidden(name: str) -> bool:
    """What operating systems leave in folders and zips besides what the user put there."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _read_manifest(content: bytes, source: str) -> tuple[list[Item], list[str]]:
    """The rows that can be read, and what is wrong with the others."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text: {error}") from None
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = reader.fieldnames or []
        rows = list(enumerate(reader, 2))
    except csv.Error as error:
        raise DataError(f"{source} is not a readable CSV: {error}") from None
    if missing := [c for c in _REQUIRED if c not in header]:
        raise DataError(
            f"{source} lacks the column(s) {', '.join(missing)}; "
            f"the header has to begin with {','.join(_REQUIRED)}"
        )
    items, problems = [], []
    for line, row in rows:
        if problem := _row_problem(row):
            problems.append(f"line {line}: {problem}")
            continue
        free = {k: v for k, v in row.items() if k not in _REQUIRED and v is not None}
        path = PurePosixPath(row["path"]).as_posix()
        items.append(Item(path, row["label"], row["split"], row["role"] or "", free))
    if not items and not problems:
        raise DataError(f"{source} lists no pictures")
    return items, problems


def _row_problem(row: Mapping[str | None, str | None]) -> str | None:
    if None in row or any(row[c] is None for c in _REQUIRED):
        return "has another number of fields than the header"
    if not row["path"] or not row["label"]:
        return "path and label must not be empty"
    try:
        safe_member(str(row["path"]))
    except SamespaceError as error:
        return str(error)
    if "\0" in str(row["path"]):
        return "the path holds a NUL character"
    if row["split"] not in _SPLITS:
        return f"split is {row['split']!r}, not one of {', '.join(_SPLITS)}"
    return None


def _from_folders(names: Sequence[str], source: str) -> list[Item]:
    pictures = [n for n in names if PurePosixPath(n).suffix.lower() in _IMAGES]
    around = _common_folder(pictures)
    inside = {name: PurePosixPath(name).parts[around:] for name in pictures}
    tops = {parts[0] for parts in inside.values() if parts}
    items: list[Item] = []
    if {"query", "gallery"} <= tops:
        for name, parts in inside.items():
            if len(parts) < 3 or parts[0] not in ("query", "gallery", "train"):
                continue
            split = "train" if parts[0] == "train" else "test"
            items.append(Item(name, "/".join(parts[1:-1]), split, parts[0]))
    else:
        labels: dict[str, list[str]] = {}
        for name, parts in inside.items():
            if len(parts) > 1:
                labels.setdefault("/".join(parts[:-1]), []).append(name)
        # Every second label is kept for test, so that search is measured on labels never seen;
        # of those, pictures alternate between the gallery and the queries.
        for i, label in enumerate(sorted(labels)):
            for j, name in enumerate(sorted(labels[label])):
                split = "test" if i % 2 else "train"
                role = "train" if split == "train" else ("query" if j % 2 else "gallery")
                items.append(Item(name, label, split, role))
    if not items:
        raise DataError(
            f"{source} has no manifest.csv and no pictures in folders named after their labels"
        )
    return items


def _common_folder(names: Sequence[str]) -> int:
    """How many folders lie around everything, as a zip's own folder does; a lone label's does
    not count."""
    folders = [PurePosixPath(n).parts[:-1] for n in names]
    depth = 0
    while len({f[depth] for f in folders if len(f) > depth}) == 1 and all(
        len(f) > depth + 1 for f in folders
    ):
        depth += 1
    return depth


def _repeated(dataset: Dataset) -> list[str]:
    counts = Counter(item.path for item in dataset.items)
    return [f"{path}: listed more than once" for path, count in counts.items() if count > 1]


def _list_problems(dataset: Dataset, open_set: bool) -> list[str]:
    problems = _repeated(dataset)
    for item in dataset.items:
        if item.split == "test" and item.role not in ("query", "gallery"):
            problems.append(f"{item.path}: role in test is {item.role!r}, not query or gallery")
    groups = {"train": dataset.train, "query": dataset.queries, "gallery": dataset.gallery}
    problems += [f"there are no {name} pictures" for name, items in groups.items() if not items]
    train = {i.label for i in dataset.train}
    gallery = {i.label for i in dataset.gallery}
    queries = {i.label for i in dataset.queries}
    if open_set:
        both = sorted(train & (gallery | queries))
        problems += [f"label {label!r} is in train and in test" for label in both]
    problems += [
        f"label {label!r} is queried but not in the gallery" for label in sorted(queries - gallery)
    ]
    return problems
