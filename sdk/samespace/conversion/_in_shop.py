"""DeepFashion In-shop Clothes Retrieval (Liu et al., CVPR 2016).

Protocol `standard`: as its `list_eval_partition.txt` says. Queries and gallery are pictures of the
same items in the same shop; no item is in train and in test.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from samespace.conversion._formats import Converted, Converter, Request, Row
from samespace.conversion._read import failed, fields, layout, lines, text, whole
from samespace_edge import DataError

_SOURCE = (
    "the DeepFashion project of the Multimedia Laboratory, CUHK (In-shop Clothes Retrieval "
    "Benchmark: Eval/list_eval_partition.txt, and Img/img.zip, unpacked)"
)
_LIST = "list_eval_partition.txt"
_LAYOUTS = [
    {"list": f"{folder}{_LIST}", "img": f"{pictures}img/"}
    for folder in ("Eval/", "")
    for pictures in ("Img/", "")
]
_ROLES = {"train": ("train", "train"), "query": ("test", "query"), "gallery": ("test", "gallery")}
_FORM = "image_name item_id evaluation_status"


def _convert(request: Request) -> Converted:
    found = layout(request.folder, _LAYOUTS, _SOURCE)
    listed = lines(found["list"], _line, skip=2)
    _check_header(text(found["list"]), len(listed), str(found["list"]))
    rows = []
    for origin, (name, item, status) in listed:
        split, role = _ROLES[status]
        category = "/".join(PurePosixPath(name).parts[1:-2])
        file = found["img"].parent / name
        rows.append(Row(file, item, split, role, origin, {"category": category}))
    return Converted(rows)


def _line(line: str) -> tuple[str, str, str]:
    name, item, status = fields(line, _FORM)
    if not name.startswith("img/"):
        raise ValueError(f"image_name is {name!r}, which does not begin with img/")
    if status not in _ROLES:
        raise ValueError(f"evaluation_status is {status!r}, not one of {', '.join(_ROLES)}")
    return name, item, status


def _check_header(content: str, listed: int, source: str) -> None:
    count, names = content.splitlines()[:2]
    if names.split() != _FORM.split():
        raise DataError(f"{source} line 2 is {names!r}, not {_FORM!r}")
    try:
        expected = whole(count.strip(), "the count of pictures")
    except ValueError as error:
        raise failed(source, [f"{_LIST} line 1: {error}"]) from None
    if expected != listed:
        raise DataError(f"{source} line 1 says {expected} pictures, but {listed} are listed")


CONVERTER = Converter(
    convert=_convert,
    title="DeepFashion In-shop Clothes Retrieval (Liu et al. 2016)",
    protocols=("standard",),
    published={
        "standard": {
            "train": 25_882,
            "train labels": 3_997,
            "queries": 14_218,
            "gallery": 12_612,
            "test labels": 3_985,
        }
    },
)
