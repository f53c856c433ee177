"""Grocery Store Dataset (Klasson, Zhang, Kjellström, WACV 2019).

Its own lists are for classification. For retrieval its products are divided into train and test:
within each department, the coarse groups (apple, milk, ...), those with the most products first and
those with equally many by name, go one after another to the side that has fewer products yet, and
to test where both have as many. So no variety of apple is in both.

- `photo-to-photo`: all photos of train's products, and their iconic (shop's) pictures, are train.
  Of test's products the photos in train.txt are the gallery, those in test.txt and val.txt queries.
- `photo-to-shop`: the same queries; the gallery is the iconic picture of each product, with those
  of train's products as distractors, labelled `... (distractor)`; so train has photos only.
- `classify`: train, val and test as published, all products in each. The test photos are queries
  and the iconic pictures the gallery, which classifiers do not need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from samespace.conversion._formats import Converted, Converter, Request, Row
from samespace.conversion._read import failed, layout, lines, whole

_SOURCE = "github.com/marcusklasson/GroceryStoreDataset (clone it, or unpack its zip)"
_LISTS = ("train", "val", "test")
_LAYOUTS = [
    {**{name: f"{around}{name}.txt" for name in _LISTS}, "classes": f"{around}classes.csv"}
    for around in ("dataset/", "")
]


@dataclass(frozen=True)
class _Product:
    name: str
    coarse: str
    department: str
    iconic: Path
    origin: str

    def row(self, file: Path, origin: str, split: str, role: str) -> Row:
        domain = "iconic" if file == self.iconic else "natural"
        columns = {"coarse_label": self.coarse, "department": self.department, "domain": domain}
        return Row(file, self.name, split, role, origin, columns)

    def shop(self, split: str, role: str) -> Row:
        return self.row(self.iconic, self.origin, split, role)

    def distractor(self) -> Row:
        row = self.shop("test", "gallery")
        name = f"{self.name} (distractor)"
        return Row(row.file, name, row.split, row.role, row.origin, row.columns)


def _convert(request: Request) -> Converted:
    found = layout(request.folder, _LAYOUTS, _SOURCE)
    products = _products(found["classes"])
    photos = {name: _photos(found[name], products) for name in _LISTS}
    if request.protocol == "classify":
        return _classify(products, photos)
    test = test_products(list(products.values()))
    rows, shop = [], request.protocol == "photo-to-shop"
    for name in _LISTS:
        role = "gallery" if name == "train" else "query"
        for file, origin, product in photos[name]:
            if product.name not in test:
                rows.append(product.row(file, origin, "train", "train"))
            elif role == "query" or not shop:
                rows.append(product.row(file, origin, "test", role))
    learnt = [p for p in products.values() if p.name not in test]
    if not shop:
        rows += [p.shop("train", "train") for p in learnt]
        return Converted(rows)
    rows += [p.shop("test", "gallery") for p in products.values() if p.name in test]
    rows += [p.distractor() for p in learnt]
    return Converted(rows, [f"{len(learnt)} pictures of the gallery are distractors"])


_Photos = Sequence[tuple[Path, str, _Product]]


def _classify(products: Mapping[int, _Product], photos: Mapping[str, _Photos]) -> Converted:
    roles = {"train": "train", "val": "val", "test": "query"}
    rows = [p.row(file, origin, s, roles[s]) for s in _LISTS for file, origin, p in photos[s]]
    rows += [p.shop("test", "gallery") for p in products.values()]
    note = "the gallery is the iconic picture of each product; a classifier does without it"
    return Converted(rows, [note])


def test_products(products: Sequence[_Product]) -> set[str]:
    """Names of the products that are test, by the rule above."""
    sizes = Counter((p.department, p.coarse) for p in products)
    order = sorted(sizes, key=lambda group: (group[0], -sizes[group], group[1]))
    test: set[tuple[str, str]] = set()
    for _, groups in groupby(order, key=lambda group: group[0]):
        in_train = in_test = 0
        for group in groups:
            if in_test <= in_train:
                test.add(group)
                in_test += sizes[group]
            else:
                in_train += sizes[group]
    return {p.name for p in products if (p.department, p.coarse) in test}


def _products(path: Path) -> dict[int, _Product]:
    products: dict[int, _Product] = {}

    def parse(line: str) -> tuple[int, str, str, str]:
        cells = [c.strip() for c in line.split(",")]
        if len(cells) < 5:
            raise ValueError(f"has {len(cells)} fields, not the 6 of the header")
        name, number, coarse, _, iconic = cells[:5]
        if len(PurePosixPath(iconic.lstrip("/")).parts) < 3:
            raise ValueError(f"the iconic picture {iconic!r} does not lie in a department's folder")
        return whole(number, "Class ID"), name, coarse, iconic.lstrip("/")

    for origin, (number, name, coarse, iconic) in lines(path, parse, skip=1):
        department = PurePosixPath(iconic).parts[1]
        products[number] = _Product(name, coarse, department, path.parent / iconic, origin)
    return products


def _photos(path: Path, products: dict[int, _Product]) -> list[tuple[Path, str, _Product]]:
    def parse(line: str) -> tuple[str, int]:
        cells = [c.strip() for c in line.rsplit(",", 2)]
        if len(cells) != 3:
            raise ValueError(f"has {len(cells)} fields, not 'path, fine_id, coarse_id'")
        whole(cells[2], "coarse_id")
        return cells[0], whole(cells[1], "fine_id")

    listed = lines(path, parse)
    unknown = [
        f"{o}: fine_id {n} is not in classes.csv" for o, (_, n) in listed if n not in products
    ]
    if unknown:
        raise failed(str(path), unknown)
    return [(path.parent / name, origin, products[n]) for origin, (name, n) in listed]


_RETRIEVAL = {"train labels": 40, "queries": 1_354}
CONVERTER = Converter(
    convert=_convert,
    title="Grocery Store Dataset (Klasson et al. 2019)",
    protocols=("photo-to-photo", "photo-to-shop", "classify"),
    published={
        "photo-to-photo": {"train": 2_826, **_RETRIEVAL, "gallery": 1_281, "test labels": 41},
        "photo-to-shop": {"train": 2_786, **_RETRIEVAL, "gallery": 81, "test labels": 81},
        "classify": {"train": 2_640, "train labels": 81, "val": 296, "queries": 2_485},
    },
    closed=frozenset({"classify"}),
)
