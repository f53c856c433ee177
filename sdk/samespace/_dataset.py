"""Labelled pictures, split into what is trained on and what is searched (format: sdk/README.md)."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from samespace._csv import HEAD, find_form, read_rows
from samespace._files import PICTURES, Files, FolderFiles, ZipFiles, is_picture, is_text, plain_form
from samespace._repeats import describe_repeats, picture_digest
from samespace_edge import DataError, ImageError, SamespaceError, UnsafePathError, decode
from samespace_edge._bundle import safe_member

_REQUIRED = ("path", "label", "split", "role")
_SPLITS = ("train", "val", "test")
_SHOWN = 20

_LOG = logging.getLogger("samespace")


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

    Attributes:
        items: the pictures.
        left_out: files of a folder or zip without a manifest that are not used: they have no
            picture's ending, or lie where no label is. Hidden files are not among them.
    """

    def __init__(
        self,
        name: str,
        items: Sequence[Item],
        files: Files,
        source: str,
        problems: Sequence[str] = (),
        left_out: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.items = tuple(items)
        self.left_out = tuple(left_out)
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
        left_out: Sequence[str] = ()
        if not path.exists():
            raise DataError(f"there is no dataset at {path}")
        if path.suffix.lower() == ".csv":
            files: Files = FolderFiles(path.parent)
            items, problems = read_manifest(path.read_bytes(), str(path))
        else:
            if path.is_dir():
                files = FolderFiles(path)
            elif path.suffix.lower() == ".zip":
                files = ZipFiles(path)
            else:
                raise DataError(f"{path} is neither a CSV, nor a zip, nor a folder")
            items, problems, left_out = _from_files(files, str(path))
        if problems and not lenient:
            raise problems_error(str(path), problems)
        if left_out and not lenient:
            _LOG.warning("%s: %s", path, describe_left_out(left_out))
        return cls(path.stem, items, files, str(path), problems, left_out)

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
        except (OSError, UnsafePathError) as error:
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
        repeats: bool = True,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Read every picture and check that the dataset can be trained and searched.

        Args:
            open_set: whether the test labels have to be absent from train, as in retrieval of
                products never seen.
            repeats: whether one picture, pixel by pixel, under several names is a problem: as a
                query and in the gallery, in train and in test, or under two labels.
            progress: is told how many pictures of how many are read.

        Raises `DataError`, whose `problems` lists everything that is wrong.
        """
        pictures, problems = self._examined(self.items, progress)
        problems = [
            *self._problems,
            *_list_problems(self, open_set),
            *problems,
            *(describe_repeats(pictures) if repeats else ()),
        ]
        if problems:
            raise problems_error(self.source, problems)

    def _picture_problems(self, progress: Callable[[int, int], None]) -> list[str]:
        return self._examined(self.items, progress)[1]

    def _examined(
        self, items: Sequence[Item], progress: Callable[[int, int], None]
    ) -> tuple[list[tuple[bytes, str, str, str]], list[str]]:
        """Read pictures: digest, path, label and side of each, and what is wrong with others."""

        def check(item: Item) -> bytes | str:
            try:
                return picture_digest(decode(self._files.read(item.path)))
            except FileNotFoundError:
                return f"{item.path}: there is no such file"
            except OSError as error:
                return f"{item.path}: cannot be read ({error})"
            except ImageError as error:
                return f"{item.path}: {error}"
            except SamespaceError as error:
                return str(error)

        pictures, problems = [], []
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for done, (item, found) in enumerate(
                zip(items, pool.map(check, items), strict=True), 1
            ):
                if isinstance(found, str):
                    problems.append(found)
                else:
                    side = item.role if item.split == "test" else item.split
                    pictures.append((found, item.path, item.label, side))
                progress(done, len(items))
        return pictures, problems


def problems_error(source: str, problems: Sequence[str]) -> DataError:
    """Return an error that lists the first problems and holds all of them."""
    shown = [f"  - {p}" for p in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  - and {len(problems) - _SHOWN} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DataError(f"{source} has {count}:\n" + "\n".join(shown), problems)


def count_endings(names: Sequence[str]) -> str:
    """Return how many files have which ending, such as `12 .jpg, 1 .png`."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without an ending" for name in names)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def describe_left_out(names: Sequence[str]) -> str:
    """Return one sentence on files that are not used, by their endings."""
    files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
    return (
        f"{files} left out ({count_endings(names)}; the first is {names[0]}). Pictures end in "
        f"{', '.join(sorted(PICTURES))} and lie in folders named after their labels"
    )


def _from_files(files: Files, source: str) -> tuple[list[Item], list[str], list[str]]:
    """Return the pictures, what is wrong with others, and the files that are not used."""
    names = [n for n in files.names() if not _hidden(n)]
    manifests = [n for n in names if PurePosixPath(n).name == "manifest.csv"]
    if len(manifests) > 1:
        raise DataError(f"{source} has several manifests: {', '.join(manifests)}; name one")
    if not manifests:
        return _from_folders(names, source)
    items, problems = read_manifest(files.read(manifests[0]), f"{source}/{manifests[0]}")
    parent = PurePosixPath(manifests[0]).parent
    return [replace(i, path=(parent / i.path).as_posix()) for i in items], problems, []


def _hidden(name: str) -> bool:
    """What operating systems leave in folders and zips besides what the user put there."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def read_manifest(
    content: bytes, source: str, needed: Sequence[str] = _REQUIRED
) -> tuple[list[Item], list[str]]:
    """Return the rows that can be read, and what is wrong with the others.

    Raises `DataError` for a file that is no CSV, lacks a column of `needed`, or lists nothing.
    """
    form = find_form(content[:HEAD], source, needed, known=_REQUIRED)
    items, problems = [], []
    for line, fields in read_rows(io.BytesIO(content), form, source):
        row = dict(zip(form.columns, fields, strict=False))
        is_whole = len(fields) == len(form.columns)
        if problem := _row_problem(row, is_whole):
            problems.append(f"line {line}: {problem}")
            continue
        free = {k: v for k, v in row.items() if k not in _REQUIRED}
        items.append(
            Item(
                path=PurePosixPath(_with_slashes(row["path"])).as_posix(),
                label=_label(row["label"]),
                split=_keyword(row["split"]),
                role=_keyword(row.get("role", "")),
                columns=free,
            )
        )
    if not items and not problems:
        raise DataError(f"{source} lists no pictures")
    return items, problems


def _row_problem(row: Mapping[str, str], is_whole: bool) -> str | None:
    if not is_whole:
        return "has another number of fields than the header"
    if not row["path"].strip() or not row["label"].strip():
        return "path and label must not be empty"
    try:
        safe_member(_with_slashes(row["path"]))
    except SamespaceError as error:
        return f"{error}; paths are relative to the CSV"
    if "\0" in row["path"]:
        return "the path holds a NUL character"
    if _keyword(row["split"]) not in _SPLITS:
        return f"split is {row['split']!r}, not one of {', '.join(_SPLITS)}"
    return None


def _with_slashes(path: str) -> str:
    """A path as Windows writes it, with `/`."""
    return path.replace("\\", "/")


def _label(text: str) -> str:
    """One label for all spellings that look alike."""
    return plain_form(text.strip())


def _keyword(text: str) -> str:
    return text.strip().lower()


def _from_folders(names: Sequence[str], source: str) -> tuple[list[Item], list[str], list[str]]:
    problems = [
        f"{n.encode('utf-8', 'surrogateescape')!r}: the name is not UTF-8 text; rename the file"
        for n in names
        if is_picture(n) and not is_text(n)
    ]
    pictures = [n for n in names if is_picture(n) and is_text(n)]
    around = _common_folder(pictures)
    inside = {name: PurePosixPath(name).parts[around:] for name in pictures}
    tops = {parts[0] for parts in inside.values() if parts}
    items: list[Item] = []
    if {"query", "gallery"} <= tops:
        for name, parts in inside.items():
            if len(parts) < 3 or parts[0] not in ("query", "gallery", "train"):
                continue
            split = "train" if parts[0] == "train" else "test"
            items.append(Item(name, _label("/".join(parts[1:-1])), split, parts[0]))
    else:
        labels: dict[str, list[str]] = {}
        for name, parts in inside.items():
            if len(parts) > 1:
                labels.setdefault(_label("/".join(parts[:-1])), []).append(name)
        # Every second label is kept for test, so that search is measured on labels never seen;
        # of those, pictures alternate between the gallery and the queries.
        for i, label in enumerate(sorted(labels)):
            for j, name in enumerate(sorted(labels[label])):
                split = "test" if i % 2 else "train"
                role = "train" if split == "train" else ("query" if j % 2 else "gallery")
                items.append(Item(name, label, split, role))
    if not items and not problems:
        raise DataError(
            f"{source} has no manifest.csv and no pictures in folders named after their labels"
        )
    used = {item.path for item in items}
    return items, problems, [n for n in names if n not in used and is_text(n)]


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
