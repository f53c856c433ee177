"""CUB-200-2011 birds (Wah et al. 2011), as metric learning uses it since Song et al. 2016.

Classes 1 to 100 are train and 101 to 200 test; the dataset's own train_test_split.txt, which is for
classification, is not used. Figures are published with each test picture searched among all other
test pictures, which a manifest cannot say. Protocol `split` divides the test pictures instead, see
`halves`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from samespace.conversion._formats import Converted, Converter, Request, Row, halved
from samespace.conversion._read import failed, fields, layout, lines, whole

_SOURCE = "Caltech's vision group, or CaltechDATA (CUB_200_2011.tgz, unpacked)"
_LAYOUTS = [
    {
        "images": f"{around}images.txt",
        "labels": f"{around}image_class_labels.txt",
        "classes": f"{around}classes.txt",
        "pictures": f"{around}images/",
    }
    for around in ("", "CUB_200_2011/")
]
_BOXES = "bounding_boxes.txt"
_LAST_TRAIN_CLASS = 100


def _convert(request: Request) -> Converted:
    found = layout(request.folder, _LAYOUTS, _SOURCE)
    images = _by_id(found["images"], "image_id path")
    labels = _by_id(found["labels"], "image_id class_id")
    classes = _by_id(found["classes"], "class_id name")
    boxes_file = found["images"].with_name(_BOXES)
    boxes = _by_id(boxes_file, "image_id x y width height") if boxes_file.is_file() else {}
    _check(found["labels"], images, labels, classes)
    train: list[Row] = []
    test: list[Row] = []
    for image, (origin, name) in images.items():
        number = labels[image][1]
        columns = {"box": boxes[image][1]} if image in boxes else {}
        learnt = int(number) <= _LAST_TRAIN_CLASS
        row = Row(
            found["pictures"] / name,
            classes[number][1],
            "train" if learnt else "test",
            "train",
            origin,
            columns,
        )
        (train if learnt else test).append(row)
    return halved(train, test)


def _by_id(path: Path, form: str) -> dict[str, tuple[str, str]]:
    """The rest of every line, with where it stands, by the number in front of it."""
    found: dict[str, tuple[str, str]] = {}
    problems = []
    what = form.split()[0]

    def parse(line: str) -> tuple[str, str]:
        first, *rest = fields(line, form)
        whole(first, what)
        if form.endswith("class_id"):
            whole(rest[0], "class_id")
        return first, " ".join(rest)

    for origin, (first, rest) in lines(path, parse):
        if first in found:
            problems.append(f"{origin}: {what} {first} stands in {found[first][0]} already")
        found[first] = (origin, rest)
    if problems:
        raise failed(str(path), problems)
    return found


def _check(
    path: Path,
    images: Mapping[str, tuple[str, str]],
    labels: Mapping[str, tuple[str, str]],
    classes: Mapping[str, tuple[str, str]],
) -> None:
    """Every picture has a class, and every class has a name."""
    problems = [f"{images[i][0]}: image_id {i} has no class" for i in images if i not in labels]
    problems += [
        f"{origin}: class_id {number} is not in classes.txt"
        for origin, number in labels.values()
        if number not in classes
    ]
    if problems:
        raise failed(str(path), problems)


CONVERTER = Converter(
    convert=_convert,
    title="CUB-200-2011 (Wah et al. 2011)",
    protocols=("split",),
    published={
        "split": {
            "train": 5_864,
            "train labels": 100,
            "queries and gallery": 5_924,
            "test labels": 100,
        }
    },
)
