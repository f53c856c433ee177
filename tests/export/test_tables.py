"""What the docs say of the files of a bundle is what the table of targets says."""

from __future__ import annotations

import re
from pathlib import Path

from samespace_export import TARGETS

ROOT = Path(__file__).parents[2]
ARITHMETIC = {name: target.arithmetic for name, target in TARGETS.items()}


def table(path: str, header: str) -> dict[str, list[str]]:
    """The rows below a header line of a Markdown file, by their first cell."""
    lines = (ROOT / path).read_text().splitlines()
    rows: dict[str, list[str]] = {}
    for line in lines[lines.index(header) + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name.strip("`")] = cells
    return rows


def spelled_out(cells: dict[str, str]) -> dict[str, str]:
    """Each cell, or the one that "as `NAME`" refers to."""
    return {
        name: cells[of[1]] if (of := re.fullmatch("as `(.+)`", cell)) else cell
        for name, cell in cells.items()
    }


def test_the_exporters_table() -> None:
    header = "| target | arithmetic | needs | run right after export by |"
    rows = table("export/README.md", header)
    assert list(rows) == list(TARGETS)
    assert spelled_out({name: cells[0] for name, cells in rows.items()}) == ARITHMETIC
    needs = ""
    for name, (_, extra, runtime) in rows.items():
        needs = extra or needs  # an empty cell is as the one above
        assert needs == f"`samespace[{TARGETS[name].extra}]`"
        assert runtime == TARGETS[name].runtime


def test_the_mobile_guides_table() -> None:
    rows = table("docs/mobile.md", "| variant | file | arithmetic | run by |")
    assert list(rows) == list(TARGETS)
    assert spelled_out({name: cells[1] for name, cells in rows.items()}) == ARITHMETIC
    files = {name: cells[0].strip("`/") for name, cells in rows.items()}
    assert files == {name: target.file for name, target in TARGETS.items()}


def test_a_target_computes_in_its_precision() -> None:
    for target in TARGETS.values():
        precision = "int8" if target.precision == "dynamic" else target.precision
        assert precision in target.arithmetic
