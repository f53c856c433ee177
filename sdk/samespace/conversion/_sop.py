"""Stanford Online Products (Song et al., CVPR 2016).

Its own protocol searches each test picture among all other test pictures, which a manifest cannot
say: a picture is a query or in the gallery. Protocol `split` divides the test pictures instead, see
`halves`; train and test labels are the published ones.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from samespace.conversion._formats import Converted, Converter, Request, Row, halved
from samespace.conversion._read import fields, layout, lines, whole

_SOURCE = (
    "the project page of 'Deep Metric Learning via Lifted Structured Feature Embedding' at "
    "Stanford (Stanford_Online_Products.zip, unpacked)"
)
_LAYOUTS = [
    {"train": f"{around}Ebay_train.txt", "test": f"{around}Ebay_test.txt"}
    for around in ("", "Stanford_Online_Products/")
]


def _convert(request: Request) -> Converted:
    found = layout(request.folder, _LAYOUTS, _SOURCE)
    return halved(_rows(found["train"], "train"), _rows(found["test"], "test"))


def _rows(path: Path, split: str) -> list[Row]:
    return [
        Row(path.parent / name, label, split, "train", origin, {"category": _category(name)})
        for origin, (label, name) in lines(path, _line, skip=1)
    ]


def _line(line: str) -> tuple[str, str]:
    image, label, group, name = fields(line, "image_id class_id super_class_id path")
    for word, what in ((image, "image_id"), (label, "class_id"), (group, "super_class_id")):
        whole(word, what)
    return label, name


def _category(name: str) -> str:
    """`bicycle` of bicycle_final/111085122871_0.JPG."""
    return PurePosixPath(name).parts[0].removesuffix("_final")


CONVERTER = Converter(
    convert=_convert,
    title="Stanford Online Products (Song et al. 2016)",
    protocols=("split",),
    published={
        "split": {
            "train": 59_551,
            "train labels": 11_318,
            "queries and gallery": 60_502,
            "test labels": 11_316,
        }
    },
)
