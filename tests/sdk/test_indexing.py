"""Very many pictures into a gallery: what is embedded, what is not again, what is set aside."""

from __future__ import annotations

import csv
import os
import tracemalloc
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samespace import Embedder, Gallery
from samespace.gallery import GivenVectors
from samespace.gallery._export import read_export
from samespace.indexing import IndexReport, Manifest, index_pictures, read_failures
from samespace.pool import HerePool, Made
from samespace_edge import ConfigError, DataError, NotCertifiedError
from tests.conftest import picture
from tests.sdk.indexing_scene import BOMB, MISSING, TEXT, TRUNCATED, holds_exactly, make_manifest


@pytest.fixture
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def gallery(bundles: dict[str, Path], tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(tmp_path / "gallery", bundles["cloud"]) as made:
        yield made


class Counting(HerePool):
    """Embeds here, and notes what."""

    def __init__(self, model: Embedder) -> None:
        super().__init__(model)
        self.embedded: list[str] = []

    def run(self, batches: Any) -> Iterator[tuple[Any, list[Made]]]:
        for tag, made in super().run(batches):
            self.embedded += [task.id for task in tag]
            yield tag, made


def outcome(report: IndexReport) -> tuple[int, int, int, int, int]:
    return report.added, report.again, report.payloads, report.there, report.aside


def test_each_picture_once_and_nothing_twice(
    gallery: Gallery, cloud: Embedder, tmp_path: Path
) -> None:
    manifest = make_manifest(tmp_path / "shop", 30)
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        told.append((done, total))

    first = index_pictures(manifest, gallery, cloud, workers=2, batch=4, progress=progress)
    assert outcome(first) == (30, 0, 0, 0, 0)
    assert first.finished
    assert first.report is None
    assert told[-1] == (30, 30)
    assert [d for d, _ in told] == sorted(d for d, _ in told)
    holds_exactly(gallery, tmp_path / "shop", range(30), cloud)
    payload = gallery.get(["item-7"])[0].payload
    assert payload["label"] == "label7"
    assert payload["price"] == "7.5"
    assert payload["_source"]["path"] == "photos/00007.png"

    pool = Counting(cloud)
    again = index_pictures(manifest, gallery, cloud, pool=pool)
    assert outcome(again) == (0, 0, 0, 30, 0)
    assert pool.embedded == []


def test_only_what_changed_is_embedded_again(
    gallery: Gallery, cloud: Embedder, tmp_path: Path
) -> None:
    manifest = make_manifest(tmp_path / "shop", 10)
    index_pictures(manifest, gallery, cloud, workers=0)
    picture(49, 999).save(tmp_path / "shop" / "photos" / "00003.png")
    os.utime(tmp_path / "shop" / "photos" / "00003.png", (1, 1))
    manifest.write_text(manifest.read_text().replace("label5,5.5", "label5,99"))
    pool = Counting(cloud)
    trusting = index_pictures(manifest, gallery, cloud, pool=pool, trust_sources=True)
    assert outcome(trusting) == (0, 0, 1, 9, 0)
    assert pool.embedded == []
    report = index_pictures(manifest, gallery, cloud, pool=pool)
    assert outcome(report) == (0, 1, 0, 9, 0)
    assert pool.embedded == ["item-3"]
    assert gallery.get(["item-5"])[0].payload["price"] == "99"
    assert gallery.get(["item-5"])[0].payload["_source"]["path"] == "photos/00005.png"
    holds_exactly(gallery, tmp_path / "shop", range(10), cloud)


def test_another_models_items_are_embedded_again(
    gallery: Gallery, cloud: Embedder, bundles: dict[str, Path], tmp_path: Path
) -> None:
    manifest = make_manifest(tmp_path / "shop", 4)
    with pytest.raises(NotCertifiedError):
        index_pictures(manifest, gallery, Embedder(bundles["edge"]))
    gallery.add(["item-1"], images=[tmp_path / "shop/photos/00000.png"], model=cloud)
    report = index_pictures(manifest, gallery, cloud, workers=0)  # of a source that is not known
    assert outcome(report) == (3, 1, 0, 0, 0)
    holds_exactly(gallery, tmp_path / "shop", range(4), cloud)


def test_poison_is_set_aside_and_stops_nothing(
    gallery: Gallery, cloud: Embedder, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    manifest = make_manifest(folder, 20, poison=True)
    report = index_pictures(manifest, gallery, cloud, batch=6)
    assert outcome(report) == (20, 0, 0, 0, 4)
    holds_exactly(gallery, folder, range(20), cloud)
    assert report.report == folder / "shop.csv.failed.csv"
    reasons = {f.id: f.reason for f in read_failures(report.report)}
    assert "damaged or incomplete" in reasons[TRUNCATED]
    assert "the limit is 64,000,000 pixels" in reasons[BOMB]
    assert "there is no file" in reasons[MISSING]
    assert "not an image" in reasons[TEXT]

    pool = Counting(cloud)
    assert outcome(index_pictures(manifest, gallery, cloud, pool=pool)) == (0, 0, 0, 20, 4)
    assert pool.embedded == []  # not tried again
    picture(1, 1).save(folder / MISSING)  # its source changed
    assert outcome(index_pictures(manifest, gallery, cloud, pool=pool)) == (1, 0, 0, 20, 3)
    assert pool.embedded == [MISSING]
    retried = index_pictures(manifest, gallery, cloud, pool=pool, retry_failed=True)
    assert outcome(retried) == (0, 0, 0, 21, 3)
    assert sorted(pool.embedded) == sorted([MISSING, TRUNCATED, BOMB, TEXT])
    for name in (TRUNCATED, BOMB, TEXT):
        picture(2, 2).save(folder / name, format="png")
    mended = index_pictures(manifest, gallery, cloud, workers=0)
    assert outcome(mended) == (3, 0, 0, 21, 0)
    assert mended.report is None
    assert not (folder / "shop.csv.failed.csv").exists()
    assert len(gallery) == 24


def test_rows_that_cannot_be_used_are_set_aside(
    gallery: Gallery, cloud: Embedder, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    manifest = make_manifest(folder, 5)
    with manifest.open("a") as file:
        file.write("item-2,photos/00001.png,label1,1\nitem-9,,label1,1\n,photos/00001.png,x,1\n")
        file.write("item-8,photos/00001.png,label1\nitem-7,photos/00001.png,x,cheap\n")
    listed = Manifest(manifest, numbers=["price"])
    for _ in range(2):
        report = index_pictures(listed, gallery, cloud, workers=0)
        assert report.aside == 5
        assert len(gallery) == 5
    reasons = [f.reason for f in read_failures(report.report or "")]
    assert reasons == [
        "its id is that of row 4",
        "has no path",
        "has no id",
        "has another number of fields than the header",
        "its column 'price' holds no number: 'cheap' is no number",
    ]
    assert gallery.get(["item-2"])[0].payload["price"] == 2.5
    found = gallery.search(vectors=np.eye(cloud.dim)[:1], model=cloud, where={"price": {"lt": 2}})
    assert set(found.ids[0]) == {"item-0", "item-1"}


def test_limit_and_where(gallery: Gallery, cloud: Embedder, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "shop", 20)
    report = index_pictures(manifest, gallery, cloud, workers=0, limit=7, batch=3)
    assert outcome(report)[0] == 7
    assert not report.finished
    condition = {"label": {"in": ["label3", "label12"]}}
    chosen = index_pictures(manifest, gallery, cloud, workers=0, where=condition)
    assert (chosen.rows, *outcome(chosen)) == (2, 1, 0, 0, 1, 0)
    assert index_pictures(manifest, gallery, cloud, workers=0).added == 12
    holds_exactly(gallery, tmp_path / "shop", range(20), cloud)


def test_parquet_and_urls(gallery: Gallery, cloud: Embedder, tmp_path: Path) -> None:
    import fsspec
    import pyarrow as pa
    from pyarrow import parquet

    make_manifest(tmp_path / "shop", 6)
    memory = fsspec.filesystem("memory")
    photos = tmp_path / "shop" / "photos"
    for n in range(3):
        memory.pipe(f"/many/photos/{n}.png", (photos / f"{n:05}.png").read_bytes())
    paths = [f"photos/{n}.png" for n in range(3)] + [
        f"file://{photos / '00003.png'}",
        str(photos / "00004.png"),
        "memory://many/none.png",
    ]
    columns = {
        "id": [f"item-{n}" for n in range(6)],
        "path": paths,
        "price": [1.5, 2.5, float("nan"), None, 3.5, 4.5],
        "since": [date(2026, 1, n + 1) for n in range(6)],
        "tags": [["a", "b"]] * 6,
    }
    with memory.open("/many/shop.parquet", "wb") as file:
        parquet.write_table(pa.table(columns), file, row_group_size=2)
    where = "memory://many/shop.parquet"
    assert Manifest(where).count() == 6
    out = tmp_path / "aside.csv"
    report = index_pictures(where, gallery, cloud, workers=0, report=out)
    assert outcome(report) == (5, 0, 0, 0, 1)
    assert "there is no file memory://many/none.png" in next(read_failures(out)).reason
    holds_exactly(gallery, tmp_path / "shop", range(5), cloud)
    payloads = [r.payload for r in gallery.get(["item-1", "item-2", "item-3"])]
    assert payloads[0]["price"] == 2.5
    assert payloads[0]["since"] == "2026-01-02"
    assert payloads[0]["tags"] == ["a", "b"]
    assert "price" not in payloads[1]
    assert "price" not in payloads[2]
    assert outcome(index_pictures(where, gallery, cloud, workers=0, report=out))[3] == 5


def test_a_datasets_manifest(gallery: Gallery, cloud: Embedder, shop_csv: Path) -> None:
    listed = Manifest(shop_csv)
    report = index_pictures(
        listed, gallery, cloud, workers=0, where={"role": "gallery"}, report="aside.csv"
    )
    assert report.added == 16
    (record,) = gallery.get(["item01/0.png"])
    assert set(record.payload) == {"label", "aisle", "_source"}


def test_manifests_are_never_held(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = 30_000
    path = tmp_path / "many.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "text"])
        writer.writerows((f"photos/{n}.jpg", "x" * 50, "y" * 100) for n in range(rows))
    table = pa.table({"path": [f"photos/{n}.jpg" for n in range(rows)], "text": ["y" * 100] * rows})
    parquet.write_table(table, tmp_path / "many.parquet", row_group_size=3_000)
    assert path.stat().st_size > 4 * 2**20  # and several times that as Python objects
    assert Manifest(path).count() == rows
    del table
    for name in ("many.csv", "many.parquet"):
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        most = 0
        count = 0
        for row in Manifest(tmp_path / name).rows():
            count += 1
            last = row.path
            if count % 1000 == 0:
                most = max(most, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == rows
        assert last == f"photos/{rows - 1}.jpg"
        assert peak < 2 * 2**20, f"{name}: {peak:,} bytes of Python"
        assert most < 2 * 2**20, f"{name}: {most:,} bytes of Arrow"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "path\n", "neither a .csv nor a .parquet"),
        ("a.csv", "picture,label\n", "lacks the column.s. path; .* It is 'picture,label'"),
        ("a.csv", "path,label,label\n", "has two columns of one name"),
        ("a.csv", "path,_source\n", "kept for the source"),
        ("a.parquet", "no", "is not a readable Parquet file"),
    ],
)
def test_manifests_that_cannot_be_read(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        Manifest(tmp_path / name)


def test_wrong_settings(gallery: Gallery, cloud: Embedder, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "shop", 2)
    with pytest.raises(DataError, match="cannot be read"):
        Manifest(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="no column weight to hold numbers"):
        Manifest(manifest, numbers=["weight"])
    with pytest.raises(ConfigError, match="batch and limit"):
        index_pictures(manifest, gallery, cloud, batch=0)
    with pytest.raises(ConfigError, match="cannot be written"):
        index_pictures(manifest, gallery, cloud, report=tmp_path / "none" / "x.csv")
    with pytest.raises(DataError, match="is no report of 'samespace index'"):
        index_pictures(manifest, gallery, cloud, report=manifest)
    (tmp_path / "broken.csv").write_bytes(b"path\n" + b"1.png\n" * 9999 + b"\xff\n")
    with pytest.raises(DataError, match="is not UTF-8 text: byte 0xff"):
        index_pictures(tmp_path / "broken.csv", gallery, cloud, workers=0)


def test_a_backfill_through_a_staging_gallery(
    gallery: Gallery, cloud: Embedder, bundles: dict[str, Path], certificate: Path, tmp_path: Path
) -> None:
    """How any pool, Ray's too, embeds for an upgrade: stage, export, and upgrade with that."""
    manifest = make_manifest(tmp_path / "shop", 12)
    index_pictures(manifest, gallery, cloud, workers=0)
    new = Embedder(bundles["edge"])
    gallery.admit(certificate)
    with Gallery.create(tmp_path / "staging", bundles["cloud"]) as staging:
        staging.admit(certificate)
        report = tmp_path / "staging.failed.csv"
        index_pictures(manifest, staging, new, workers=0, limit=5, report=report)
        index_pictures(manifest, staging, new, workers=0, report=report)  # goes on
        staging.export(tmp_path / "staging.npz")
    given = GivenVectors(new.identity, *read_export(tmp_path / "staging.npz"))
    assert gallery.upgrade.run(given).done == 12
    holds_exactly(gallery, tmp_path / "shop", range(12), new)
    assert {r.model.name for r in gallery.get(["item-0", "item-11"])} == {"edge"}
