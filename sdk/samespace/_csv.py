"""Read CSV files as spreadsheets and people write them.

Any of four separators, UTF-8 or UTF-16, a first line `sep=;`, spaces around names in the header,
empty columns and rows at the end: all of these can mean one thing only, so they are read. What can
mean several things is refused with its cause.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from samespace_edge import DataError

HEAD = 2**16
"""How many of a file's first bytes say in which form it is written; the header is in them."""

_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(r'[ ]*"?sep=(.)"?[ ]*(?:\r?\n|\r)', re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """How a CSV is written.

    Attributes:
        encoding: a codec's name.
        separator: one character.
        before: lines before the header.
        columns: names in the header, without spaces around them.
        is_spaced: whether spaces stand behind separators.
    """

    encoding: str
    separator: str
    before: int
    columns: tuple[str, ...]
    is_spaced: bool


def find_form(head: bytes, source: str, needed: Sequence[str], known: Sequence[str] = ()) -> Form:
    """Return how a CSV is written, from its first `HEAD` bytes.

    Args:
        source: the file's name, for errors.
        needed: columns that have to be there. The separator is the one that finds them all.
        known: columns that may be there. For these and for `needed`, case and spaces around them do
            not count, unless the header has them as they are written here too.

    Raises `DataError` for a file that is no text, and for a header without `needed` columns.
    """
    encoding = _encoding(head)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError as error:
        raise not_text(source, error) from None
    before, separators = 0, tuple(_SEPARATORS)
    if declared := _DECLARED.match(text):
        before, separators = 1, (declared[1],)
        text = text[declared.end() :]
    names = (*needed, *known)
    forms = [_form(encoding, separator, before, text, names) for separator in separators]
    best = max(forms, key=lambda f: sum(name in f.columns for name in needed))
    line = re.split(r"\r?\n|\r", text, maxsplit=1)[0]
    shown = line if len(line) <= 120 else f"{line[:120]}…"
    if missing := [name for name in needed if name not in best.columns]:
        separated = ", ".join(_SEPARATORS.values())
        raise DataError(
            f"{source} lacks the column(s) {', '.join(missing)}; its first line has to be "
            f"{','.join(needed)} and columns of your own. It is {shown!r}. Columns may be "
            f"separated by {separated}"
        )
    present = [name for name in best.columns if name]
    if len(set(present)) < len(present):
        raise DataError(f"{source} has two columns of one name; rename one: {shown}")
    return best


def read_rows(file: IO[bytes], form: Form, source: str) -> Iterator[tuple[int, list[str]]]:
    """Yield every row's line number and fields, in order; close the file at the end.

    Rows without any text are left out.

    A row has as many fields as the header has columns, unless something is wrong with it.

    Raises `DataError` where the file cannot be read on.
    """
    line = 0
    try:
        with io.TextIOWrapper(file, form.encoding, newline="") as text:
            reader = csv.reader(
                text, delimiter=form.separator, strict=True, skipinitialspace=form.is_spaced
            )
            for _ in range(form.before + 1):
                next(reader, None)
            for fields in reader:
                line = reader.line_num
                if not any(fields):
                    continue
                while len(fields) > len(form.columns) and not fields[-1].strip():
                    fields.pop()
                yield line, [f.strip() for f in fields] if form.is_spaced else fields
    except UnicodeDecodeError as error:
        raise not_text(source, error) from None
    except csv.Error as error:
        raise DataError(
            f"{source} is not a readable CSV: it cannot be read on after line {line}: {error}"
        ) from None


def to_number(text: str) -> int | float | None:
    """Return the number that a field holds; None for an empty one.

    Raises `ValueError`, whose text says why, for a field that holds no finite number.
    """
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        hint = "; write decimals with a point" if "," in text else ""
        raise ValueError(f"{text!r} is no number{hint}") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no finite number")
    return number


def not_text(source: str, error: UnicodeDecodeError) -> DataError:
    """Return the error for a file in an encoding that is not read."""
    if not error.encoding.lower().startswith("utf-8") and error.encoding != "utf8":
        return DataError(
            f"{source} begins as {error.encoding} text and cannot be read as that: {error.reason}. "
            "Save it as 'CSV UTF-8' in your spreadsheet"
        )
    byte = error.object[error.start]
    return DataError(
        f"{source} is not UTF-8 text: byte 0x{byte:02x} cannot be read. Save it as 'CSV UTF-8' in "
        "your spreadsheet, or convert it with 'iconv -f cp1252 -t utf-8', if cp1252 is its encoding"
    )


def _encoding(head: bytes) -> str:
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    # Without a mark: the first character of a header is ASCII, so its other byte is zero.
    if head[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if head[:1] == b"\0" else "utf-8"


def _form(encoding: str, separator: str, before: int, text: str, names: Sequence[str]) -> Form:
    def header(skips: bool) -> list[str]:
        lines = io.StringIO(text, newline="")
        return next(csv.reader(lines, delimiter=separator, skipinitialspace=skips), [])

    try:
        fields, bare = header(True), header(False)
    except csv.Error:
        return Form(encoding, separator, before, (), is_spaced=False)
    found = [field.strip() for field in fields]
    while found and not found[-1]:
        found.pop()
    by_case = {name.casefold(): name for name in names if name not in found}
    columns = tuple(by_case.get(name.casefold(), name) for name in found)
    is_spaced = any(field != field.lstrip() for field in bare)
    return Form(encoding, separator, before, columns, is_spaced)
