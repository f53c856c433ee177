"""One gallery, any number of threads, and two galleries of one folder: right answers."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest

from samespace import Dataset, Embedder, Gallery
from samespace.gallery import GivenVectors
from samespace_edge import GalleryError
from tests.conftest import Colours, picture
from tests.sdk.test_gallery import vectors
from tests.tflite_file import only_tflite
from tests.threads import THREADS, at_once

FIXED = 1500
FROM = 1000  # so many items have an approximate index


@pytest.fixture
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def path(tmp_path: Path, cloud: Embedder) -> Path:
    """A gallery of items that stay, with an approximate index."""
    with Gallery.create(tmp_path / "shop", cloud, approximate_from=FROM) as made:
        made.add(
            [f"i{i}" for i in range(FIXED)],
            vectors=vectors(FIXED),
            model=cloud,
            payloads=[{"n": i, "tenth": i % 10} for i in range(FIXED)],
        )
    return tmp_path / "shop"


def test_searches_while_others_write(path: Path, cloud: Embedder) -> None:
    """Half of the threads search, half add, update and delete; the index is built again."""
    x, mine = vectors(FIXED), vectors(THREADS * 600, seed=1).reshape(THREADS, 600, -1)

    def search(gallery: Gallery, number: int) -> None:
        for round_ in range(25):
            i = (number * 31 + round_ * 7) % FIXED
            ways = (
                {"exact": True},
                {"where": {"tenth": i % 10}},
                {"width": 16},
                {"probes": 4096, "payloads": False},
            )
            for how in ways:
                row = gallery.search(vectors=x[i, None, : how.get("width")], model=cloud, **how)[0]
                assert row[0].id == f"i{i}", how
                assert abs(row[0].score - 1) < 1e-5
                assert len({hit.id for hit in row}) == len(row) == 10
                if how.get("payloads", True):
                    assert row[0].payload == {"n": i, "tenth": i % 10}
            (record,) = gallery.get([f"i{i}"])
            assert np.allclose(record.vector, x[i], atol=1e-6)
            assert len(gallery) >= FIXED
            assert len(gallery.sample(3)) <= 3

    def write(gallery: Gallery, number: int) -> None:
        x = mine[number]
        for start in range(0, 600, 100):
            ids = [f"w{number}-{i}" for i in range(start, start + 100)]
            gallery.add(ids, vectors=x[start : start + 100], model=cloud)
            gallery.update(ids[0], payload={"mine": number})
            gallery.update(ids[1], vector=x[start], model=cloud)
            gallery.delete(ids[2:48])
            found = gallery.search(vectors=x[start][None], model=cloud, k=2, exact=True)[0]
            assert {hit.id for hit in found} == set(ids[:2])
            assert {str(hit.payload) for hit in found} == {str({"mine": number}), "None"}
            assert ids[2] not in gallery
            assert gallery.stats().items >= FIXED

    with Gallery.open(path) as gallery:
        assert len(gallery) == FIXED
        built = gallery._live.index.base  # type: ignore[attr-defined]
        at_once(lambda n: (write if n % 2 else search)(gallery, n))
        assert len(gallery) == FIXED + 4 * 6 * 54
        live = gallery._live  # type: ignore[attr-defined]
        assert built is not None
        assert live.index.base is not built, "it was built again meanwhile"
        left = gallery.search(vectors=x[:50], model=cloud, k=3, exact=True)
    with Gallery.open(path) as gallery:
        again = gallery.search(vectors=x[:50], model=cloud, k=3, exact=True)
        assert (left.ids, left.payloads) == (again.ids, again.payloads)
        assert len(gallery) == FIXED + 4 * 6 * 54


def test_hub_corrections_come_and_go_while_others_search(path: Path, cloud: Embedder) -> None:
    x = vectors(FIXED)

    def work(number: int) -> None:
        for round_ in range(6):
            if number == 0:
                gallery.correct_hubs(vectors(64, seed=round_), model=cloud)
                gallery.uncorrect_hubs(cloud)
            else:
                i = number * 50 + round_
                row = gallery.search(vectors=x[i : i + 1], model=cloud, corrected=False)[0]
                assert row[0].id == f"i{i}"
                assert abs(row[0].score - 1) < 1e-5
                assert len(gallery.corrections()) <= 1

    with Gallery.open(path) as gallery:
        at_once(work)
        assert gallery.corrections() == ()


def test_an_upgrade_runs_and_is_taken_back_while_others_search(
    path: Path, cloud: Embedder, bundles: dict[str, Path], certificate: Path
) -> None:
    """Every item has the old model's vector or the new one's, and each names who made it."""
    edge = Embedder(bundles["edge"]).identity
    names = [f"i{i}" for i in range(FIXED)]
    made = {cloud.identity: vectors(FIXED), edge: vectors(FIXED, seed=3)}
    over = threading.Event()

    def upgrade() -> None:
        for _ in range(2):
            gallery.upgrade.run(GivenVectors(edge, names, made[edge]), batch=100)
            gallery.upgrade.rollback()

    def search(number: int) -> None:
        i = number
        while not over.is_set():
            for record in gallery.get(names[i : i + 5]):
                expected = made[record.model][int(record.id[1:])]
                assert np.abs(record.vector - expected).max() < 1e-6
            assert len(gallery) == FIXED
            status = gallery.upgrade.status()
            assert status is None or status.done + status.waiting == FIXED
            found = gallery.search(vectors=made[edge][i : i + 1], model=edge, k=FIXED, exact=True)
            assert sorted(found.ids[0]) == sorted(names)
            i = (i + 31) % (FIXED - 5)

    def work(number: int) -> None:
        if number:
            search(number)
            return
        try:
            upgrade()
        finally:
            over.set()

    with Gallery.open(path) as gallery:
        gallery.admit(certificate)
        at_once(work, threads=4)
        assert {record.model for record in gallery.get(names)} == {cloud.identity}


def test_two_galleries_of_one_folder_are_of_one_state_each(path: Path, cloud: Embedder) -> None:
    """What another one updates is found with a payload, before or after, and by every filter."""
    x, few = vectors(FIXED), 40
    over = threading.Event()

    def write(gallery: Gallery) -> None:
        round_ = 0
        while not over.is_set():
            i = round_ % few
            gallery.update(f"i{i}", payload={"n": i, "round": round_})
            round_ += 1

    def read(gallery: Gallery) -> None:
        for _ in range(25):
            found = gallery.search(vectors=x[:10], model=cloud, k=200, exact=True)
            for i, row in enumerate(found):
                assert row[0].id == f"i{i}"
                assert all(hit.payload and hit.payload["n"] == int(hit.id[1:]) for hit in row)
            found = gallery.search(vectors=x[:10], model=cloud, k=100, where={"n": {"lt": few}})
            assert {len(set(ids)) for ids in found.ids} == {few}
            assert gallery.stats().items == FIXED

    def work(number: int) -> None:
        if number == 0:
            write(writing)
            return
        try:
            read(reading)
        finally:
            over.set()

    with Gallery.open(path) as writing, Gallery.open(path) as reading:
        at_once(work, threads=3)


def test_of_many_that_create_a_gallery_one_does(tmp_path: Path, cloud: Embedder) -> None:
    def work(number: int) -> bool:
        try:
            made = Gallery.create(tmp_path / "shop", cloud)
        except GalleryError as error:
            return "there is already a gallery" not in str(error)
        with made:
            made.add([f"i{number}"], vectors=vectors(1), model=cloud)
        return True

    done = at_once(work)
    assert sum(done) == 1
    with Gallery.open(tmp_path / "shop") as gallery:
        assert f"i{done.index(True)}" in gallery
    assert not [p for p in (tmp_path / "shop").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("runtime", ["onnxruntime", "ai_edge_litert"])
def test_pictures_are_embedded_by_all_threads_at_once(
    runtime: str, bundles: dict[str, Path], tmp_path: Path, cloud: Embedder
) -> None:
    bundle = bundles["cloud"]
    if runtime == "ai_edge_litert":
        bundle = only_tflite(bundle, Colours(seed=1), tmp_path / "lite.bundle")
    model = Embedder(bundle)
    pictures = {f"p{n}-{i}": picture(n, i) for n in range(THREADS) for i in range(30)}
    expected = dict(zip(pictures, Embedder(bundle).embed(list(pictures.values())), strict=True))

    with Gallery.create(tmp_path / "shop", bundle) as gallery:

        def work(number: int) -> None:
            for i in range(0, 30, 3):
                ids = [f"p{number}-{j}" for j in range(i, i + 3)]
                gallery.add(ids[:2], images=[pictures[j] for j in ids[:2]], model=model)
                gallery.add(ids[2:], images=[pictures[ids[0]]], model=model)
                gallery.update(ids[2], image=pictures[ids[2]], model=model)
                found = gallery.search(images=[pictures[j] for j in ids], model=model, k=1)
                assert found.ids == [[j] for j in ids]

        at_once(work)
        for record in gallery.get(list(pictures)):
            assert np.abs(record.vector - expected[record.id]).max() < 1e-6


def test_one_data_set_serves_many_threads(shop: Dataset) -> None:
    alone = [shop.read(item) for item in shop.items]
    assert all(at_once(lambda _: [shop.read(item) for item in shop.items] == alone))
    assert io.BytesIO(alone[0]).read(4) == b"\x89PNG"
