"""Reading of the lists that datasets come with: all that is wrong in a file is told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from samespace_edge import DataError

T = TypeVar("T")
_SHOWN = 20


def failed(source: str, problems: Sequence[str]) -> DataError:
    """The error that lists `problems`; its text stops after some, its `problems` does not."""
    shown = [f"  - {p}" for p in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  - and {len(problems) - _SHOWN} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DataError(f"{source} has {count}:\n" + "\n".join(shown), problems)


def layout(folder: Path, choices: Sequence[Mapping[str, str]], source: str) -> dict[str, Path]:
    """Where the parts of a download are, by name.

    Args:
        folder: of the download.
        choices: the layouts that are accepted: relative paths by name, folders with a `/` behind.
        source: where the download is to be had.

    Raises `DataError` that says what is missing from the layout that is nearest.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; point to the unpacked download, from {source}")
    missing = []
    for choice in choices:
        lacks = [p for p in choice.values() if not _there(folder, p)]
        if not lacks:
            return {name: folder / path for name, path in choice.items()}
        missing.append(lacks)
    nearest = min(missing, key=len)
    raise DataError(
        f"{folder} lacks {', '.join(nearest)}. Point to the folder that holds "
        f"{', '.join(choices[0].values())}; the download is to be had from {source}",
        [f"{path} is missing" for path in nearest],
    )


def _there(folder: Path, path: str) -> bool:
    return (folder / path).is_dir() if path.endswith("/") else (folder / path).is_file()


def text(path: Path) -> str:
    """A UTF-8 file; raises `DataError` naming it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def lines(path: Path, parse: Callable[[str], T], skip: int = 0) -> list[tuple[str, T]]:
    """Every line that is not empty, parsed, each with its file and line number.

    Args:
        path: of a text file.
        parse: raises `ValueError` with what is wrong.
        skip: how many lines the header has.

    Raises `DataError` that lists every line that cannot be parsed.
    """
    parsed, problems = [], []
    for number, line in enumerate(text(path).splitlines(), 1):
        if number <= skip or not line.strip():
            continue
        origin = f"{path.name} line {number}"
        try:
            parsed.append((origin, parse(line)))
        except ValueError as error:
            problems.append(f"{origin}: {error}")
    if problems:
        raise failed(str(path), problems)
    if not parsed:
        raise DataError(f"{path} lists nothing; is it whole?")
    return parsed


def fields(line: str, form: str) -> list[str]:
    """The words of a line that has to look like `form`; the last word may hold spaces."""
    expected = len(form.split())
    found = line.split(maxsplit=expected - 1)
    if len(found) != expected:
        raise ValueError(f"has {len(found)} fields, not the {expected} of {form!r}")
    found[-1] = found[-1].strip()
    return found


def whole(word: str, what: str) -> int:
    """A number without a sign."""
    if not word.isascii() or not word.isdigit():
        raise ValueError(f"{what} is {word!r}, not a number")
    return int(word)
