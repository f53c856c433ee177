"""Datasets: read from every accepted form, and every problem reported at once."""

from __future__ import annotations

import logging
import os
import unicodedata
import zipfile
from pathlib import Path

import pytest

from samespace import Dataset
from samespace_edge import DataError
from tests.conftest import picture

HEADER = "path,label,split,role\n"


def folder_of(tmp_path: Path, names: list[str]) -> Path:
    root = tmp_path / "data"
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i, i).save(root / name)
    return root


def test_manifest(shop: Dataset) -> None:
    assert len(shop.train) == 48
    assert len(shop.queries) == 32
    assert len(shop.gallery) == 16
    assert shop.train[0].columns == {"aisle": "0"}
    shop.validate()


def test_zip_is_the_same_as_its_folder(shop: Dataset, shop_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.write(shop_csv, "manifest.csv")
        for item in shop.items:
            out.write(shop_csv.parent / item.path, item.path)
    zipped = Dataset.open(path)
    zipped.validate()
    assert zipped.items == shop.items
    assert zipped.sha256(zipped.queries) == shop.sha256(shop.queries)


def test_label_folders_are_split_by_label(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [f"{label}/{i}.png" for label in "abcd" for i in range(4)])
    data = Dataset.open(root)
    data.validate()
    assert {i.label for i in data.train} == {"a", "c"}
    assert {i.label for i in data.queries} == {i.label for i in data.gallery} == {"b", "d"}
    assert len(data.queries) == len(data.gallery) == 4


def test_query_and_gallery_folders(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ["query/a/1.png", "gallery/a/2.png", "train/b/3.png"])
    data = Dataset.open(root)
    data.validate()
    assert [i.path for i in data.queries] == ["query/a/1.png"]
    assert [i.label for i in data.gallery] == ["a"]
    assert [i.label for i in data.train] == ["b"]


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ["a/0.png", "a/1.png", "b/0.png", "c/0.png"])
    (root / "b/0.png").write_bytes(b"")
    (root / "m.csv").write_text(
        HEADER + "a/0.png,a,train,train\na/1.png,a,test,query\nb/0.png,b,test,gallery\n"
        "c/0.png,c,test,shelf\nnone.png,d,train,\na/0.png,a,train,train\n"
    )
    with pytest.raises(DataError) as error:
        Dataset.open(root / "m.csv").validate()
    text = "\n".join(error.value.problems)
    for expected in (
        "a/0.png: listed more than once",
        "role in test is 'shelf'",
        "label 'a' is in train and in test",
        "label 'a' is queried but not in the gallery",
        "b/0.png: ",
        "none.png: there is no such file",
    ):
        assert expected in text
    assert str(error.value).startswith(f"{root / 'm.csv'} has {len(error.value.problems)} problems")


def test_empty_roles_are_problems(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ["a/0.png"])
    (root / "m.csv").write_text(HEADER + "a/0.png,a,train,train\n")
    with pytest.raises(DataError, match="there are no query pictures"):
        Dataset.open(root / "m.csv").validate()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "lacks the column"),
        (HEADER, "lists no pictures"),
        (HEADER + "x.png,a,holiday,query\n", "split is 'holiday'"),
        (HEADER + ",a,train,\n", "must not be empty"),
        (HEADER + "x.png,a\n", "another number of fields"),
        (HEADER + "../x.png,a,train,\n", "does not stay inside"),
        (HEADER + "/etc/passwd,a,train,\n", "does not stay inside"),
        (HEADER + "x.pkl,a,train,\n", "pickle"),
    ],
)
def test_malformed_manifests(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Dataset.open(path)


def test_paths_in_a_zip_stay_inside(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("manifest.csv", HEADER + "../../evil.png,a,train,\n")
        out.writestr("../../evil.png", b"x")
    with pytest.raises(DataError, match="does not stay inside"):
        Dataset.open(path)


def test_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no dataset"):
        Dataset.open(tmp_path / "none")
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not a readable zip"):
        Dataset.open(tmp_path / "x.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no manifest\.csv"):
        Dataset.open(tmp_path / "empty")
    (tmp_path / "x.txt").write_text("hi")
    with pytest.raises(DataError, match="neither a CSV"):
        Dataset.open(tmp_path / "x.txt")


def test_hash_is_of_the_content(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ["a/0.png", "a/1.png", "b/0.png", "b/1.png"])
    data = Dataset.open(root)
    before = data.sha256(data.gallery)
    assert before == data.sha256(reversed(data.gallery))
    picture(9, 9).save(root / data.gallery[0].path)
    assert data.sha256(data.gallery) != before


def test_a_manifest_may_lie_in_a_folder_of_its_zip(
    shop: Dataset, shop_csv: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nested.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.write(shop_csv, "shop/manifest.csv")
        for item in shop.items:
            out.write(shop_csv.parent / item.path, f"shop/{item.path}")
    nested = Dataset.open(path)
    nested.validate()
    assert nested.queries[0].path == f"shop/{shop.queries[0].path}"
    with zipfile.ZipFile(path, "a") as out:
        out.write(shop_csv, "manifest.csv")
    with pytest.raises(DataError, match="several manifests"):
        Dataset.open(path)


def test_a_folder_around_everything_is_no_label(tmp_path: Path) -> None:
    names = ["query/a/1.png", "gallery/a/2.png", "train/b/3.png"]
    folder_of(tmp_path, [f"shop/{n}" for n in names] + ["__MACOSX/a/1.png", ".cache/x/1.png"])
    data = Dataset.open(tmp_path / "data")
    data.validate()
    assert {i.label for i in data.gallery} == {"a"}
    assert {i.label for i in data.train} == {"b"}
    assert len(data.items) == 3


def test_rows_that_cannot_be_read_are_reported_with_everything_else(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ["a/0.png"])
    text = HEADER + "a/0.png,a,holiday,x\n./a/0.png,a,train,train\na/0.png,a,train,train\n"
    (root / "m.csv").write_text(text)
    with pytest.raises(DataError) as error:
        Dataset.open(root / "m.csv", lenient=True).validate()
    problems = "\n".join(error.value.problems)
    assert "line 2: split is 'holiday'" in problems
    assert "a/0.png: listed more than once" in problems
    assert "there are no query pictures" in problems


def test_a_csv_that_ends_in_a_quote_and_a_path_with_nul(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(HEADER + '"x.png,a,train,\n')
    with pytest.raises(DataError, match="not a readable CSV"):
        Dataset.open(path)
    path.write_bytes((HEADER + "x\0.png,a,train,\n").encode())
    with pytest.raises(DataError, match="NUL"):
        Dataset.open(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samespace._files.MAX_FILE", 10_000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("manifest.csv", HEADER + "b.png,a,train,\n")
        out.writestr("b.png", b"0" * 1_000_000)
    with pytest.raises(DataError, match="unpacks to 1,000,000 bytes"):
        Dataset.open(path).validate()


def test_every_file_of_a_folder_is_used_or_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder_of(tmp_path, [f"{label}/{i}.jpg" for label in "abcd" for i in range(2)])
    for label in "abcd":
        (root / label / "2.jfif").write_bytes((root / label / "0.jpg").read_bytes())
        picture(5, 5).save(root / label / "4.ppm")
        (root / label / "clip.MOV").write_bytes(b"")
    (root / "alone.jpg").write_bytes((root / "a/0.jpg").read_bytes())
    (root / ".DS_Store").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "samespace"):
        data = Dataset.open(root)
    used = {item.path for item in data.items}
    assert {"a/0.jpg", "a/2.jfif", "a/4.ppm"} <= used
    assert set(data.left_out) == {"alone.jpg", *(f"{label}/clip.MOV" for label in "abcd")}
    assert "5 files are left out (1 .jpg, 4 .mov; the first is a/clip.MOV)" in caplog.text
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert used | set(data.left_out) == present - {".DS_Store"}


def test_pictures_outside_of_query_and_gallery_are_named(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ["query/a/1.png", "gallery/a/2.png", "shelf/b/3.png", "query/4.png"])
    assert Dataset.open(root).left_out == ("query/4.png", "shelf/b/3.png")


def test_a_file_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [f"{label}/{i}.png" for label in "ab" for i in range(2)])
    picture(9, 9).save(root / "a" / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"caf\\xe9\.png'.*not UTF-8 text; rename the file"):
        Dataset.open(root)
    data = Dataset.open(root, lenient=True)
    assert len(data.items) == 4


def test_labels_of_folders_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "blå") for form in ("NFC", "NFD")]
    names = [f"query/{forms[0]}/0.png", f"gallery/{forms[1]}/1.png", "train/x/2.png"]
    data = Dataset.open(folder_of(tmp_path, names))
    data.validate()
    assert data.queries[0].label == data.gallery[0].label


def test_names_in_a_zip_in_another_unicode_form_are_found(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ["0.png"])
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as out:
        out.write(root / "0.png", unicodedata.normalize("NFD", "ä.png"))
        out.writestr("manifest.csv", HEADER + unicodedata.normalize("NFC", "ä.png,x,train,train"))
    data = Dataset.open(tmp_path / "d.zip")
    assert data.read(data.items[0]) == (root / "0.png").read_bytes()
