"""CSV files as spreadsheets write them: read where they can mean one thing, refused by name."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import pytest

from samespace import Dataset
from samespace._csv import HEAD, find_form, read_rows, to_number
from samespace.indexing import Manifest
from samespace.regressions import read_predictions
from samespace_edge import DataError
from tests.conftest import picture

HEADER = ("path", "label", "split", "role", "note")
ROWS = [
    ("a/0.png", "x", "train", "train", "one, two"),
    ("b/0.png", "y", "test", "gallery", "half; quarter"),
    ("b/1.png", "y", "test", "query", ""),
]


def written(separator: str = ",", header: tuple[str, ...] = HEADER, ends: str = "\r\n") -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=separator, lineterminator=ends)
    writer.writerows([header, *ROWS])
    return stream.getvalue()


def rows_of(content: bytes) -> list[tuple[str, ...]]:
    form = find_form(content[:HEAD], "m.csv", HEADER[:4])
    assert form.columns == HEADER
    return [tuple(fields) for _, fields in read_rows(io.BytesIO(content), form, "m.csv")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_separator_in_every_encoding(separator: str, encoding: str, ends: str) -> None:
    assert rows_of(written(separator, ends=ends).encode(encoding)) == ROWS


@pytest.mark.parametrize("declared", ["sep=;", "SEP=;", '"sep=;"', "sep=^", "sep=\t"])
def test_a_first_line_that_names_the_separator(declared: str) -> None:
    separator = declared.strip('"')[-1]
    content = f"{declared}\r\n{written(separator)}".encode("utf-8-sig")
    assert rows_of(content) == ROWS


@pytest.mark.parametrize(
    "header",
    [
        ("path", " label", " split", " role", " note"),
        ("path ", "label ", "split", "role\xa0", "note"),
        ("Path", "LABEL", "Split", "Role", "note"),
    ],
    ids=["before", "behind", "capitals"],
)
def test_spaces_and_capitals_in_the_header(header: tuple[str, ...]) -> None:
    assert rows_of(written(header=header).encode()) == ROWS


def test_spaces_behind_separators_belong_to_no_field() -> None:
    content = b'path, label, split, role, note\na.png, x, train, train, "one, two"\n'
    assert rows_of(content) == [("a.png", "x", "train", "train", "one, two")]


def test_empty_columns_and_rows_at_the_end_are_left_out() -> None:
    content = "path;label;split;role;note;;\na;x;train;train;n;;\n;;;;;;\n\nb;x;train;train;;;\n"
    assert rows_of(content.encode()) == [
        ("a", "x", "train", "train", "n"),
        ("b", "x", "train", "train", ""),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"lacks the column\(s\) path, label, split, role.*It is ''"),
        (b"path:label:split:role\n", r"lacks the column\(s\).*a comma, a semicolon, a tab, a bar"),
        (
            "path,label,split,role\ncafé.png,x,train,\n".encode("latin-1"),
            "not UTF-8 text: byte 0xe9",
        ),
        (
            b"path,label,split,role,path\n",
            "two columns of one name; rename one: path,label,split,role,path",
        ),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"m.csv.*{message}"):
        find_form(content, "m.csv", HEADER[:4])


def test_a_character_may_lie_across_the_end_of_the_head() -> None:
    line = "path,label,split,role," + "ü" * HEAD
    assert find_form(line.encode()[:HEAD], "m.csv", HEADER[:4]).columns[:4] == HEADER[:4]


def test_numbers() -> None:
    assert [to_number(t) for t in ("5", " 7.5 ", "-1e3", "", " ")] == [5, 7.5, -1000.0, None, None]
    with pytest.raises(ValueError, match="'7,5' is no number; write decimals with a point"):
        to_number("7,5")
    for text in ("nan", "inf", "cheap"):
        with pytest.raises(ValueError, match=f"'{text}' is no"):
            to_number(text)


def manifest(folder: Path, content: bytes) -> Path:
    for i, row in enumerate(ROWS):
        (folder / row[0]).parent.mkdir(exist_ok=True)
        picture(i, i).save(folder / row[0])
    (folder / "m.csv").write_bytes(content)
    return folder / "m.csv"


@pytest.mark.parametrize(
    "content",
    [
        written(";").encode("utf-16"),
        f"sep=,\n{written()}".encode(),
        written().replace("/", "\\").encode(),
        written().replace("train", " Train ").replace("query", "QUERY").encode(),
    ],
    ids=["utf-16", "sep", "backslashes", "keywords"],
)
def test_datasets_and_manifests_are_read_alike(tmp_path: Path, content: bytes) -> None:
    path = manifest(tmp_path, content)
    data = Dataset.open(path)
    data.validate()
    assert [i.path for i in data.items] == [row[0] for row in ROWS]
    assert [i.label for i in data.queries] == ["y"]
    assert data.items[0].columns == {"note": "one, two"}
    listed = Manifest(path)
    for row in listed.rows():
        assert Path(listed.located(row)).is_file()
        assert row.problem is None


def test_predictions_with_semicolons(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id;label;prediction;score\na;x;x;0.5\nb;x;y;0.25\n")
    found = read_predictions(tmp_path / "p.csv")
    assert found.ids == ("a", "b")
    assert found.scores is not None
    assert found.scores.tolist() == [0.5, 0.25]


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_are_found(tmp_path: Path, listed: str, stored: str) -> None:
    names = ["grön/ä.png", "blå/0.png", "blå/1.png"]
    lines = ["path,label,split,role"]
    for i, name in enumerate(names):
        path = tmp_path / unicodedata.normalize(stored, name)
        path.parent.mkdir(exist_ok=True)
        picture(i, i).save(path)
        role = ("train,train", "test,gallery", "test,query")[i]
        # One label in two forms is one label.
        label = unicodedata.normalize(("NFC", "NFD", "NFC")[i], ("grün", "blå", "blå")[i])
        lines.append(f"{unicodedata.normalize(listed, name)},{label},{role}")
    (tmp_path / "m.csv").write_text("\n".join(lines), encoding="utf-8")
    data = Dataset.open(tmp_path / "m.csv")
    data.validate()
    assert len({i.label for i in data.items}) == 2
    found = Manifest(tmp_path / "m.csv")
    assert all(Path(found.located(row)).is_file() for row in found.rows())


def test_two_names_that_look_alike_are_two_files(tmp_path: Path) -> None:
    for i, form in enumerate(("NFC", "NFD")):
        picture(i, i).save(tmp_path / unicodedata.normalize(form, "ä.png"))
    lines = [f"{unicodedata.normalize(form, 'ä.png')},x,train,train" for form in ("NFC", "NFD")]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,split,role", *lines]), encoding="utf-8")
    one, other = Dataset.open(tmp_path / "m.csv").items
    data = Dataset.open(tmp_path / "m.csv")
    assert data.read(one) != data.read(other)


def test_a_line_break_in_a_header_that_is_quoted() -> None:
    content = b'path,label,split,role,"note\n(any)"\na,x,train,train,"one\ntwo"\n'
    form = find_form(content, "m.csv", HEADER[:4])
    assert form.columns == (*HEADER[:4], "note\n(any)")
    (row,) = [tuple(f) for _, f in read_rows(io.BytesIO(content), form, "m.csv")]
    assert row == ("a", "x", "train", "train", "one\ntwo")


def test_columns_that_may_be_there_are_known_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("ID,Label,Prediction,Score\na,x,x,0.5\n")
    scores = read_predictions(tmp_path / "p.csv").scores
    assert scores is not None
    assert scores.tolist() == [0.5]
    (tmp_path / "m.csv").write_text("Path,Label,Split,Role,ID,Shop\na.png,x,test,gallery,7,s\n")
    listed = Manifest(tmp_path / "m.csv")
    (row,) = listed.rows()
    assert row.id == "7"
    assert listed.payload(row) == {"label": "x", "Shop": "s"}
    # A column whose name is exact is not confused with another one.
    content = b"path,label,split,role,Label\na,x,train,train,free\n"
    assert find_form(content, "m.csv", HEADER[:4]).columns == (*HEADER[:4], "Label")


def test_one_odd_path_does_not_end_a_run(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path\n" + "a" * 300 + ".jpg\n")
    listed = Manifest(tmp_path / "m.csv")
    (row,) = listed.rows()
    assert listed.located(row).endswith("a.jpg")
