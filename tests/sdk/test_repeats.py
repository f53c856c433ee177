"""One picture under several names: an evaluation must not find itself."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from samespace import Dataset, Embedder
from samespace.verification import verify
from samespace_edge import DataError, VerificationError
from tests.conftest import picture

HEADER = "path,label,split,role\n"
LABELS = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3 * LABELS):
        picture(i % LABELS, i).save(tmp_path / f"{i}.png")
    return tmp_path


def rows() -> list[str]:
    """Of every label one picture in the gallery and one query; two labels to train on."""
    test = [f"{i}.png,L{i},test,gallery" for i in range(LABELS)]
    test += [f"{LABELS + i}.png,L{i},test,query" for i in range(LABELS)]
    return [*test, *(f"{2 * LABELS + i}.png,T{i % 2},train,train" for i in range(LABELS))]


def opened(folder: Path, *more: str) -> Dataset:
    (folder / "m.csv").write_text(HEADER + "\n".join([*rows(), *more]) + "\n")
    return Dataset.open(folder / "m.csv")


def copy_of(folder: Path, source: str, how: str) -> str:
    """A copy under another name: of the file, or of its pixels in another file."""
    if how == "bytes":
        shutil.copy(folder / source, folder / "copy.png")
        return "copy.png"
    with Image.open(folder / source) as image:
        image.save(folder / "copy.bmp")
    return "copy.bmp"


@pytest.mark.parametrize("how", ["bytes", "pixels"])
@pytest.mark.parametrize(
    ("source", "row", "message"),
    [
        ("4.png", "L0,test,gallery", r"4\.png \(query\) and copy\.\w+ \(gallery\) are the same"),
        ("4.png", "T0,train,train", r"copy\.\w+ \(train\) and 4\.png \(test\) are the same"),
        ("0.png", "T0,val,", r"copy\.\w+ \(val\) and 0\.png \(test\) are the same"),
        ("8.png", "T1,train,train", r"is under 2 labels: 8\.png \('T0'\) and copy\.\w+ \('T1'\)"),
        ("0.png", "L1,test,gallery", r"is under 2 labels: 0\.png \('L0'\) and copy\.\w+ \('L1'\)"),
    ],
    ids=["query in gallery", "query in train", "gallery in val", "train twice", "gallery twice"],
)
def test_repeats_are_reported(folder: Path, how: str, source: str, row: str, message: str) -> None:
    opened(folder).validate()
    data = opened(folder, f"{copy_of(folder, source, how)},{row}")
    with pytest.raises(DataError, match=message):
        data.validate()
    data.validate(repeats=False, open_set=False)


def test_doubles_on_one_side_under_one_label_are_no_problem(folder: Path) -> None:
    opened(folder, f"{copy_of(folder, '0.png', 'bytes')},L0,test,gallery").validate()
    opened(folder, f"{copy_of(folder, '8.png', 'bytes')},T0,train,train").validate()


@pytest.mark.parametrize("how", ["bytes", "pixels"])
def test_verify_leaves_out_queries_that_lie_in_the_gallery(
    folder: Path, how: str, bundles: dict[str, Path]
) -> None:
    edge, cloud = Embedder(bundles["edge"]), Embedder(bundles["cloud"])
    without = [r for r in rows() if not r.startswith("5.png")]
    (folder / "w.csv").write_text(HEADER + "\n".join(without) + "\n")
    fewer = verify([edge], [cloud], folder / "w.csv")
    copy = copy_of(folder, "5.png", how)
    found = verify([edge], [cloud], opened(folder, f"{copy},L1,test,gallery"))
    note = f"1 query is left out of 4: the same picture.* such as 5.png and {copy}"
    assert [n for n in found.notes if n.startswith("1 query is left out of 4")]
    assert any(copy in n and "5.png" in n for n in found.notes), note
    assert found.dataset["queries"] == fewer.dataset["queries"] == 3
    # The item that was the query's copy is in the gallery, and decides no query's first hit.
    assert not any("left out" in n for n in fewer.notes)


def test_verify_leaves_out_queries_that_are_listed_in_the_gallery(
    folder: Path, bundles: dict[str, Path]
) -> None:
    same = [f"{LABELS + i}.png,L{i},test,gallery" for i in range(2)]
    found = verify([bundles["edge"]], [bundles["cloud"]], opened(folder, *same))
    assert found.dataset["queries"] == 2


def test_a_gallery_of_the_queries_proves_nothing(folder: Path, bundles: dict[str, Path]) -> None:
    same = [f"{LABELS + i}.png,L{i},test,gallery" for i in range(LABELS)]
    with pytest.raises(VerificationError, match="every query is the same picture"):
        verify([bundles["edge"]], [bundles["cloud"]], opened(folder, *same))


def test_a_copy_in_memory_is_no_file(folder: Path) -> None:
    """Pixels decide, whatever the format."""
    with Image.open(folder / "4.png") as image:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", lossless=True)
    (folder / "copy.webp").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="same picture, pixel by pixel"):
        opened(folder, "copy.webp,L0,test,gallery").validate()
