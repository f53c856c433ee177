"""Converters: downloads of the published layouts, tiny, become manifests with their protocols."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

from samespace import Dataset
from samespace.conversion import CONVERTERS, Conversion, convert
from samespace_edge import ConfigError, DataError
from tests.conftest import picture


def shots(root: Path, names: Iterable[str]) -> None:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i, zlib.crc32(name.encode())).save(root / name)  # no picture twice


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


GROCERIES = [
    # name, coarse group, department
    ("Golden", "Apple", "Fruit"),
    ("Granny", "Apple", "Fruit"),
    ("Galia", "Melon", "Fruit"),
    ("Kiwi", "Kiwi", "Fruit"),
    ("Arla", "Milk", "Packages"),
    ("Oatly", "Oat", "Packages"),
]


def grocery_store(root: Path) -> None:
    data, coarse = root / "dataset", list(dict.fromkeys(g[1] for g in GROCERIES))
    classes = ["Class Name (str),Class ID (int),Coarse Class Name (str),Coarse,Iconic,Description"]
    listed: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for i, (name, group, department) in enumerate(GROCERIES):
        iconic = f"iconic-images-and-descriptions/{department}/{name}/{name}_Iconic.jpg"
        shots(data, [iconic])
        classes.append(f"{name},{i},{group},{coarse.index(group)},/{iconic},/x.txt")
        for split, count in (("train", 2), ("val", 1), ("test", 2)):
            photos = [f"{split}/{department}/{name}/{name}_{n}.jpg" for n in range(count)]
            shots(data, photos)
            listed[split] += [f"{p}, {i}, {coarse.index(group)}" for p in photos]
    write(data / "classes.csv", *classes)
    for split, lines in listed.items():
        write(data / f"{split}.txt", *lines)


def in_shop(root: Path) -> None:
    names = [f"img/WOMEN/Dresses/id_{i:08}/0{n}_1_front.jpg" for i in range(4) for n in range(2)]
    status = ["train"] * 4 + ["query", "gallery"] * 2
    lines = [f"{n}    {Path(n).parent.name}   {s}" for n, s in zip(names, status, strict=True)]
    shots(root / "Img", names)
    header = (f"{len(names)}", "image_name item_id evaluation_status")
    write(root / "Eval" / "list_eval_partition.txt", *header, *lines)


def sop(root: Path) -> None:
    for part, first in (("train", 1), ("test", 3)):
        lines = ["image_id class_id super_class_id path"]
        for label, count in ((first, 2), (first + 1, 3)):
            for n in range(count):
                name = f"bicycle_final/{label}_{n}.JPG"
                shots(root, [name])
                lines.append(f"{len(lines)} {label} 1 {name}")
        write(root / f"Ebay_{part}.txt", *lines)


def cub_200(root: Path) -> None:
    images, labels, boxes = [], [], []
    for number in (1, 100, 101, 200):
        for n in range(3):
            name = f"{number:03}.Bird/{n}.jpg"
            shots(root / "images", [name])
            images.append(f"{len(images) + 1} {name}")
            labels.append(f"{len(images)} {number}")
            boxes.append(f"{len(images)} 1.0 2.0 30.0 20.0")
    write(root / "images.txt", *images)
    write(root / "image_class_labels.txt", *labels)
    write(root / "bounding_boxes.txt", *boxes)
    write(root / "classes.txt", *(f"{i} {i:03}.Bird" for i in range(1, 201)))


def annotation(root: Path, where: str, source: str, pair: int, **items: object) -> None:
    part, stem = where.split("/")
    shots(root / part / "image", [f"{stem}.jpg"])
    value = {"source": source, "pair_id": pair, **items}
    write(root / part / "annos" / f"{stem}.json", json.dumps(value))


def piece(style: int, *box: float) -> dict[str, object]:
    return {"style": style, "bounding_box": box or [2, 4, 22, 30], "category_id": 1}


def deepfashion2(root: Path) -> None:
    annotation(root, "train/000001", "user", 1, item1=piece(1), item2=piece(0))
    annotation(root, "train/000002", "shop", 1, item1=piece(1), item2=piece(2))
    annotation(root, "validation/000001", "user", 1, item1=piece(1, -5, 4, 22, 900))
    annotation(root, "validation/000002", "user", 1, item1=piece(7))  # no shop sells it
    annotation(root, "validation/000003", "shop", 1, item1=piece(1), item2=piece(2))
    annotation(root, "validation/000004", "user", 2, item1=piece(0))


MAKERS: dict[str, Callable[[Path], None]] = {
    "grocery-store": grocery_store,
    "deepfashion2": deepfashion2,
    "in-shop": in_shop,
    "sop": sop,
    "cub-200": cub_200,
}
CASES = [(name, protocol) for name, c in CONVERTERS.items() for protocol in c.protocols]
COUNTS = {  # train, train labels, queries, gallery, test labels; then val
    "photo-to-photo": (18, 3, 9, 6, 3),
    "photo-to-shop": (15, 3, 9, 6, 6),
    "classify": (12, 6, 12, 6, 6, 6),
    "consumer-to-shop": (3, 2, 1, 2, 2),
    "standard": (4, 2, 2, 2, 2),
    "sop": (5, 2, 2, 3, 2),
    "cub-200": (6, 2, 2, 4, 2),
}


def converted(name: str, root: Path, protocol: str | None = None, **more: object) -> Conversion:
    crops = root / "crops" if CONVERTERS[name].crops else None
    return convert(name, root, root / "m.csv", protocol=protocol, crops=crops, **more)


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def by_path(manifest: Path) -> dict[str, tuple[str, str, str]]:
    return {r["path"]: (r["label"], r["split"], r["role"]) for r in rows(manifest)}


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_every_protocol_makes_a_valid_dataset(name: str, protocol: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    done = converted(name, tmp_path, protocol)
    data = Dataset.open(done.manifest)
    data.validate(open_set=done.open_set, repeats=name != "deepfashion2")  # one box, cut twice
    assert done.open_set == (protocol != "classify")
    names = ("train", "train labels", "queries", "gallery", "test labels", "val")
    expected = COUNTS[name if protocol == "split" else protocol]
    assert {n: done.counts[n] for n in names[: len(expected)]} == dict(
        zip(names, expected, strict=False)
    )
    assert len(data.queries) == done.counts["queries"]
    assert bool(done.warnings) == bool(CONVERTERS[name].published)
    assert any("CANNOT be compared" in n for n in done.notes) == (protocol == "split")
    before = done.manifest.read_bytes()
    assert converted(name, tmp_path, protocol, overwrite=True) == done
    assert done.manifest.read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


def test_whole_groups_of_groceries_are_train_or_test(tmp_path: Path) -> None:
    grocery_store(tmp_path)
    made = by_path(converted("grocery-store", tmp_path).manifest)
    # Apple, the largest, goes to test; Kiwi and Melon even it out in train; Milk is before Oat.
    assert {label for label, split, _ in made.values() if split == "test"} == {
        "Golden",
        "Granny",
        "Arla",
    }


def test_roles_of_groceries(tmp_path: Path) -> None:
    grocery_store(tmp_path)
    photo = by_path(converted("grocery-store", tmp_path).manifest)
    for part, role in (("train", "gallery"), ("val", "query"), ("test", "query")):
        found = photo[f"dataset/{part}/Fruit/Golden/Golden_0.jpg"]
        assert found == ("Golden", "test", role)
    shop = converted("grocery-store", tmp_path, "photo-to-shop", overwrite=True)
    iconic = "dataset/iconic-images-and-descriptions"
    made = by_path(shop.manifest)
    assert made[f"{iconic}/Fruit/Golden/Golden_Iconic.jpg"] == ("Golden", "test", "gallery")
    assert made[f"{iconic}/Packages/Oatly/Oatly_Iconic.jpg"][0] == "Oatly (distractor)"
    assert not any(p.startswith("dataset/train/Fruit/Golden") for p in made)
    assert rows(shop.manifest)[0].keys() >= {"coarse_label", "department", "domain"}


def test_in_shop_without_its_outer_folders(tmp_path: Path) -> None:
    in_shop(tmp_path / "full")
    made = by_path(converted("in-shop", tmp_path / "full").manifest)
    path = "Img/img/WOMEN/Dresses/id_00000002/00_1_front.jpg"
    assert made[path] == ("id_00000002", "test", "query")
    flat = tmp_path / "flat"
    flat.mkdir()
    (tmp_path / "full/Img/img").rename(flat / "img")
    (tmp_path / "full/Eval/list_eval_partition.txt").rename(flat / "list_eval_partition.txt")
    assert by_path(converted("in-shop", flat).manifest)[path.removeprefix("Img/")] == made[path]


def test_halves_alternate_and_drop_single_pictures(tmp_path: Path) -> None:
    sop(tmp_path)
    with (tmp_path / "Ebay_test.txt").open("a") as file:
        file.write("99 9 1 bicycle_final/9_0.JPG\n")
    shots(tmp_path, ["bicycle_final/9_0.JPG"])
    done = converted("sop", tmp_path)
    made = by_path(done.manifest)
    roles = [made[f"bicycle_final/4_{n}.JPG"][2] for n in range(3)]
    assert roles == ["gallery", "query", "gallery"]
    assert "bicycle_final/9_0.JPG" not in made
    assert "1 test labels with one picture are left out" in done.notes


def test_birds_are_split_by_class_number_and_boxes_are_optional(tmp_path: Path) -> None:
    cub_200(tmp_path)
    made = rows(converted("cub-200", tmp_path).manifest)
    assert {r["label"] for r in made if r["split"] == "train"} == {"001.Bird", "100.Bird"}
    assert made[0]["box"] == "1.0 2.0 30.0 20.0"
    (tmp_path / "bounding_boxes.txt").unlink()
    assert "box" not in rows(converted("cub-200", tmp_path, overwrite=True).manifest)[0]


def test_crops_have_their_boxes_sizes_and_are_resumed(tmp_path: Path) -> None:
    deepfashion2(tmp_path)
    told: list[tuple[str, int, int]] = []
    done = converted("deepfashion2", tmp_path, progress=lambda *a: told.append(a))
    made = by_path(done.manifest)
    assert made["crops/validation/000001_item1.jpg"] == ("validation-1-1", "test", "query")
    assert made["crops/validation/000003_item2.jpg"] == ("validation-1-2", "test", "gallery")
    assert made["crops/train/000001_item1.jpg"][0] == "train-1-1"
    assert "1 boxes of users are left out: no shop's picture matches them" in done.notes
    assert not (tmp_path / "crops/validation/000002_item1.jpg").exists()
    assert told[-1][0] == "cut out"
    assert told[-1][1] == told[-1][2]
    sizes = {"train/000001_item1": (20, 26), "validation/000001_item1": (22, 28)}  # cut at borders
    for name, size in sizes.items():
        with Image.open(tmp_path / f"crops/{name}.jpg") as image:
            assert (image.format, image.size) == ("JPEG", size)
    kept, gone = (tmp_path / f"crops/{n}.jpg" for n in sizes)
    os.utime(kept, (1, 1))
    gone.unlink()
    converted("deepfashion2", tmp_path, overwrite=True)
    assert kept.stat().st_mtime == 1
    assert gone.exists()


def test_boxes_outside_their_picture_are_left_out_with_what_they_matched(tmp_path: Path) -> None:
    deepfashion2(tmp_path)
    outside = piece(1, 500, 500, 600, 600)
    annotation(tmp_path, "validation/000003", "shop", 1, item1=outside, item2=piece(2))
    annotation(tmp_path, "validation/000005", "user", 1, item1=piece(2))
    done = converted("deepfashion2", tmp_path)
    made = by_path(done.manifest)
    assert "crops/validation/000003_item1.jpg" not in made
    assert "crops/validation/000001_item1.jpg" not in made
    assert made["crops/validation/000005_item1.jpg"][2] == "query"
    assert "1 boxes are left out: they lie outside their picture" in done.notes


def test_a_damaged_picture_is_named_and_the_others_are_cut_out(tmp_path: Path) -> None:
    deepfashion2(tmp_path)
    (tmp_path / "train/image/000001.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000001\.jpg"):
        converted("deepfashion2", tmp_path)
    assert (tmp_path / "crops/validation/000001_item1.jpg").exists()
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_missing_is_named_and_where_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks .* Point to the folder .* to be had from") as error:
        converted(name, tmp_path)
    assert error.value.problems
    with pytest.raises(DataError, match="is not a folder"):
        converted(name, tmp_path / "nowhere")


SPOILED = [
    ("sop", "Ebay_test.txt", "7 8\nx 3 1 a.JPG", ["line 7: has 2 fields", "line 8: image_id is"]),
    ("sop", "Ebay_test.txt", "7 4 1 ../../x.JPG", ["does not stay inside"]),
    ("sop", "Ebay_test.txt", "7 4 1 /etc/x.JPG", ["does not stay inside"]),
    ("sop", "Ebay_test.txt", "7 4 1 none.JPG", ["line 7: there is no picture none.JPG"]),
    ("sop", "Ebay_test.txt", "7 4 1 bicycle_final/4_0.JPG", ["listed more than once"]),
    ("in-shop", "Eval/list_eval_partition.txt", "img/a.jpg id_1 rent", ["status is 'rent'"]),
    ("cub-200", "images.txt", "1 a.jpg\nx b.jpg", ["line 14: image_id is 'x'"]),
    ("cub-200", "images.txt", "1 a.jpg", ["image_id 1 stands in images.txt line 1 already"]),
    ("cub-200", "images.txt", "77 a.jpg", ["image_id 77 has no class"]),
    ("cub-200", "image_class_labels.txt", "77 999", ["class_id 999 is not in classes.txt"]),
    ("grocery-store", "dataset/test.txt", "a.jpg, 1", ["test.txt line 13: has 2 fields"]),
    ("grocery-store", "dataset/test.txt", "a.jpg, 77, 1", ["fine_id 77 is not in classes.csv"]),
    ("grocery-store", "dataset/classes.csv", "A,b,C,1,/i/F/A.jpg,/x", ["Class ID is 'b'"]),
    ("deepfashion2", "train/annos/000001.json", "}", ["train/annos/000001.json: "]),
]


@pytest.mark.parametrize(("name", "file", "more", "expected"), SPOILED)
def test_bad_lines_are_all_named(
    name: str, file: str, more: str, expected: list[str], tmp_path: Path
) -> None:
    MAKERS[name](tmp_path)
    with (tmp_path / file).open("a") as out:
        out.write(more + "\n")
    with pytest.raises(DataError) as error:
        converted(name, tmp_path)
    problems = "\n".join(error.value.problems)
    for text in expected:
        assert text in problems
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"style": 1, "category_id": 1}, "lacks 'bounding_box'"),
        ({**piece(1), "bounding_box": [1, 2, 3]}, "not 4 numbers"),
        ({**piece(1), "bounding_box": [1, 2, 3, float("nan")]}, "not 4 numbers"),
        ({**piece(1), "style": None}, "int"),
        ({**piece(1), "style": float("inf")}, "infinity"),
        (None, "NoneType"),
    ],
)
def test_bad_annotations(item: object, message: str, tmp_path: Path) -> None:
    deepfashion2(tmp_path)
    annotation(tmp_path, "train/000001", "user", 1, item1=item)
    annotation(tmp_path, "train/000002", "thief", 1)
    with pytest.raises(DataError) as error:
        converted("deepfashion2", tmp_path)
    first, second = error.value.problems
    assert first.startswith("train/annos/000001.json: ")
    assert message in first
    assert second == "train/annos/000002.json: source is 'thief', not 'user' or 'shop'"


def test_item_keys_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    deepfashion2(tmp_path)
    annotation(tmp_path, "train/000001", "user", 1, **{"item/../../../x": piece(1)})
    made = by_path(converted("deepfashion2", tmp_path).manifest)
    assert not any(".." in path or "000001" in path for path in made if "train" in path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("9", "image_name item_id evaluation_status"), "says 9 pictures, but 8 are listed"),
        (("many", "image_name item_id evaluation_status"), "'many', not a number"),
        (("8", "image_name item_id"), "line 2 is"),
    ],
)
def test_bad_headers_of_in_shop(header: tuple[str, str], message: str, tmp_path: Path) -> None:
    in_shop(tmp_path)
    path = tmp_path / "Eval" / "list_eval_partition.txt"
    path.write_text("\n".join([*header, *path.read_text().splitlines()[2:]]))
    with pytest.raises(DataError, match=message):
        converted("in-shop", tmp_path)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    sop(tmp_path / "sop")
    folder, out = tmp_path / "sop", tmp_path / "m.csv"
    with pytest.raises(ConfigError, match="there are grocery-store, deepfashion2, in-shop"):
        convert("imagenet", folder, out)
    with pytest.raises(ConfigError, match="it has split"):
        convert("sop", folder, out, protocol="leave-one-out")
    with pytest.raises(ConfigError, match="leave out --crops"):
        convert("sop", folder, out, crops=tmp_path)
    with pytest.raises(ConfigError, match="add --crops FOLDER"):
        convert("deepfashion2", folder, out)
    with pytest.raises(ConfigError, match=r"end in \.csv"):
        convert("sop", folder, tmp_path / "m.txt")
    with pytest.raises(ConfigError, match="is not below"):
        convert("sop", folder, tmp_path / "elsewhere" / "m.csv")
    convert("sop", folder, out)
    assert rows(out)[0]["path"].startswith("sop/bicycle_final/")
    out.write_text("mine")
    with pytest.raises(ConfigError, match="add --overwrite"):
        convert("sop", folder, out)
    assert out.read_text() == "mine"
    convert("sop", folder, out, overwrite=True)
    assert len(rows(out)) == 10


def test_only_counts_that_differ_bring_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sop(tmp_path)
    whole = {"train": 5, "train labels": 2, "queries and gallery": 5, "test labels": 3}
    monkeypatch.setitem(CONVERTERS["sop"].published, "split", whole)
    assert converted("sop", tmp_path).warnings == ("test labels: 2 here, 3 in the whole dataset",)


def test_command(tmp_path: Path) -> None:
    sop(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from samespace.cli import main; main()", "data"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path)

    shown = run("convert", "--help").stdout
    assert "Example" in shown
    assert "--json" in shown
    assert "CUB-200-2011 (Wah et al. 2011)" in shown
    done = run("convert", "sop", ".", "--out", "m.csv")
    assert done.returncode == 0, done.stderr
    assert "train\ttrain labels\tqueries\tgallery\ttest labels\n5\t2\t2\t3\t2\n" in done.stdout
    assert "CANNOT be compared" in done.stdout
    assert "warning: train: 5 here, 59,551 in the whole dataset" in done.stderr
    refused = run("convert", "sop", ".", "--out", "m.csv")
    assert refused.returncode == 3
    assert "add --overwrite" in refused.stderr
    value = json.loads(run("convert", "sop", ".", "--out", "m.csv", "--overwrite", "--json").stdout)
    assert value["pictures"]["queries"] == 2
    assert value["protocol"] == "split"
    assert run("check", "m.csv").returncode == 0
    assert run("convert", "none", ".", "--out", "n.csv").returncode == 3
