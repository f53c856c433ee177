"""Hub corrections in a gallery: what they find, how they last, and that they can be undone."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from samespace import Certificate, Dataset, Embedder, Gallery
from samespace.gallery import HubCorrection
from samespace.metrics import hub_bias
from samespace.verification import verify
from samespace_edge import (
    ConfigError,
    DimensionError,
    GalleryDamagedError,
    GalleryStorageError,
    InvalidVectorError,
    NotCertifiedError,
)
from tests.sdk.test_index import DIM, clustered

N = 400


@pytest.fixture(scope="module")
def certificate(bundles: dict[str, Path], shop: Dataset) -> Certificate:
    report = verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=bundles["poor"])
    return report.certificates()[0]


@pytest.fixture(scope="module")
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture(scope="module")
def edge(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["edge"])


@pytest.fixture
def gallery(tmp_path: Path, cloud: Embedder, certificate: Certificate) -> Gallery:
    """Items i0 ... i399, `edge` admitted, nothing corrected."""
    made = Gallery.create(tmp_path / "shop", cloud)
    made.admit(certificate)
    payloads = [{"n": i} for i in range(N)]
    made.add([f"i{i}" for i in range(N)], vectors=clustered(N, 1), model=cloud, payloads=payloads)
    yield made
    made.close()


BANK = clustered(300, 9)


def expected(
    items: dict[str, np.ndarray], queries: np.ndarray, k: int, bias: np.ndarray
) -> list[list[str]]:
    ids = list(items)
    scores = queries @ np.stack(list(items.values())).T + bias
    return [[ids[i] for i in row] for row in np.argsort(-scores, axis=1, kind="stable")[:, :k]]


def check(gallery: Gallery, model: Embedder, items: dict[str, np.ndarray], k: int = 7) -> None:
    """Searches are what computing everything directly gives."""
    queries = clustered(40, 3)
    matrix = np.stack(list(items.values()))
    bias = hub_bias(matrix, BANK, 20, 0.8)
    place = {id_: i for i, id_ in enumerate(items)}
    result = gallery.search(vectors=queries, model=model, k=k)
    assert result.ids == expected(items, queries, k, bias)
    assert result.corrected_scores is not None
    for row, query in enumerate(queries):
        at = [place[id_] for id_ in result.ids[row]]
        assert result.scores[row] == pytest.approx(matrix[at] @ query, abs=2e-6)
        assert result.corrected_scores[row] == pytest.approx(
            matrix[at] @ query + bias[at], abs=2e-6
        )


def everything() -> dict[str, np.ndarray]:
    return {f"i{i}": v for i, v in enumerate(clustered(N, 1))}


def test_a_hub_loses_its_first_place(tmp_path: Path, cloud: Embedder) -> None:
    eye = np.eye(DIM, dtype=np.float32)
    hub = np.ones((1, DIM), np.float32) / np.sqrt(DIM)
    queries = 0.7 * eye + hub
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    with Gallery.create(tmp_path / "g", cloud) as gallery:
        ids = ["hub", *(f"i{i}" for i in range(DIM))]
        gallery.add(ids, vectors=np.concatenate([hub, eye]), model=cloud)
        before = gallery.search(vectors=queries, model=cloud, k=1)
        assert before.ids == [["hub"]] * DIM
        assert before.corrected_scores is None
        assert before[0][0].corrected_score is None
        gallery.correct_hubs(queries, model=cloud, weight=1)
        after = gallery.search(vectors=queries, model=cloud, k=2)
        assert after.ids == [[f"i{i}", "hub"] for i in range(DIM)]
        first, second = after[3]
        assert first.score < second.score  # still the cosines
        assert first.score == pytest.approx(queries[3] @ eye[3], abs=1e-6)
        assert first.corrected_score > second.corrected_score
        off = gallery.search(vectors=queries, model=cloud, k=1, corrected=False)
        assert off.ids == before.ids
        assert off.corrected_scores is None
        assert off.scores == pytest.approx(before.scores, abs=1e-6)


def test_searches_are_cosine_plus_bias_through_every_change(
    gallery: Gallery, cloud: Embedder, edge: Embedder
) -> None:
    items = everything()
    made = gallery.correct_hubs(BANK, model=edge, k=20, weight=0.8)
    assert gallery.corrections() == (made,) == gallery.stats().corrections
    assert made == HubCorrection(edge.identity, 300, 20, 0.8)
    assert repr(made) == f"HubCorrection({edge.identity}, 300 vectors, k=20, w=0.8)"
    check(gallery, edge, items)
    # The vectors are as they were, and so are another model's searches.
    assert np.array_equal(gallery.get(["i5"])[0].vector, items["i5"])
    plain = gallery.search(vectors=clustered(5, 4), model=cloud, k=3)
    assert plain.ids == expected(items, clustered(5, 4), 3, np.zeros(N))
    assert plain.corrected_scores is None

    new = clustered(30, 5)
    gallery.add([f"n{i}" for i in range(30)], vectors=new, model=cloud)
    items |= {f"n{i}": v for i, v in enumerate(new)}
    check(gallery, edge, items)
    gallery.update("i7", vector=clustered(1, 6)[0], model=edge)
    items["i7"] = clustered(1, 6)[0]
    gallery.update("i8", payload="only this")
    gallery.delete(["i0", "n29", "i399"])
    for id_ in ("i0", "n29", "i399"):
        del items[id_]
    check(gallery, edge, items)
    gallery.add(["last"], vectors=clustered(1, 8), model=edge)
    items["last"] = clustered(1, 8)[0]
    check(gallery, edge, items)
    gallery.close()
    with Gallery.open(gallery.path) as again:
        check(again, edge, items)
        assert again.corrections() == (made,)
    (gallery.path / "gallery.sum").unlink()
    with Gallery.open(gallery.path, read_only=True) as again:  # every row is checked
        check(again, edge, items)
        assert again.corrections() == (made,)
        with pytest.raises(GalleryStorageError, match="read_only"):
            again.correct_hubs(BANK, model=edge)
        with pytest.raises(GalleryStorageError, match="read_only"):
            again.uncorrect_hubs(edge)


def test_filters(gallery: Gallery, edge: Embedder) -> None:
    gallery.correct_hubs(BANK, model=edge, k=20, weight=0.8)
    items = {f"i{i}": v for i, v in enumerate(clustered(N, 1)[:50])}
    bias = hub_bias(np.stack(list(items.values())), BANK, 20, 0.8)
    queries = clustered(20, 3)
    found = gallery.search(vectors=queries, model=edge, k=5, where={"n": {"lt": 50}})
    assert found.ids == expected(items, queries, 5, bias)
    empty = gallery.search(vectors=queries, model=edge, where={"n": -1})
    assert empty.corrected_scores is not None
    assert empty.corrected_scores.shape == (20, 0)


def test_switched_off_everything_is_as_before(gallery: Gallery, edge: Embedder) -> None:
    queries = clustered(40, 3)
    before = gallery.search(vectors=queries, model=edge, k=10)
    gallery.correct_hubs(BANK, model=edge, k=20, weight=2)
    assert gallery.search(vectors=queries, model=edge, k=10).ids != before.ids
    off = gallery.search(vectors=queries, model=edge, k=10, corrected=False)
    assert off.ids == before.ids
    gallery.uncorrect_hubs(edge)
    after = gallery.search(vectors=queries, model=edge, k=10)
    assert after.ids == before.ids
    assert np.array_equal(after.scores, before.scores)
    assert after.corrected_scores is None
    assert gallery.corrections() == ()
    gallery.uncorrect_hubs(edge)  # nothing to do
    with pytest.raises(ConfigError, match="are not corrected in gallery 'shop'"):
        gallery.search(vectors=queries, model=edge, corrected=True)
    gallery.add(["later"], vectors=queries[:1], model=edge)
    assert gallery.search(vectors=queries[:1], model=edge, k=1).ids == [["later"]]


def test_setting_it_up_again_replaces_it_and_models_are_apart(
    gallery: Gallery, cloud: Embedder, edge: Embedder
) -> None:
    queries = clustered(20, 3)
    gallery.correct_hubs(clustered(60, 2), model=edge, weight=0.1)
    gallery.correct_hubs(BANK[:100], model=cloud, k=5, weight=1.5)
    gallery.correct_hubs(BANK, model=edge, k=20, weight=0.8)
    assert {(c.model.name, c.bank, c.k) for c in gallery.corrections()} == {
        ("cloud", 100, 5),
        ("edge", 300, 20),
    }
    items = everything()
    check(gallery, edge, items)
    bias = hub_bias(np.stack(list(items.values())), BANK[:100], 5, 1.5)
    assert gallery.search(vectors=queries, model=cloud, k=5).ids == expected(
        items, queries, 5, bias
    )
    gallery.uncorrect_hubs(cloud)
    check(gallery, edge, items)


def test_an_empty_gallery_can_be_set_up_and_filled(
    tmp_path: Path, cloud: Embedder, edge: Embedder, certificate: Certificate
) -> None:
    told: list[tuple[str, int, int]] = []
    with Gallery.create(tmp_path / "g", cloud) as gallery:
        gallery.admit(certificate)
        gallery.correct_hubs(BANK, model=edge, k=20, weight=0.8, progress=lambda *a: told.append(a))
        assert told == []
        assert gallery.search(vectors=BANK[:1], model=edge).ids == [[]]
        gallery.add(list(everything()), vectors=clustered(N, 1), model=cloud)
        check(gallery, edge, everything())
        gallery.correct_hubs(BANK, model=edge, k=20, weight=0.8, progress=lambda *a: told.append(a))
        assert told == [("hub biases", N, N)]


def test_pictures_are_a_bank_too(gallery: Gallery, edge: Embedder, shop: Dataset) -> None:
    pictures = [shop.read(i) for i in shop.train]
    assert gallery.correct_hubs(pictures, model=edge, k=5).bank == len(pictures)
    queries = clustered(10, 3)
    items = everything()
    bias = hub_bias(np.stack(list(items.values())), edge.embed(pictures), 5)
    assert gallery.search(vectors=queries, model=edge, k=4).ids == expected(items, queries, 4, bias)
    with pytest.raises(ConfigError, match="embedded by an Embedder"):
        gallery.correct_hubs(pictures, model=edge.identity)


def test_who_and_what_is_refused(
    tmp_path: Path, gallery: Gallery, cloud: Embedder, edge: Embedder, bundles: dict[str, Path]
) -> None:
    with Gallery.create(tmp_path / "other", cloud) as other:
        with pytest.raises(NotCertifiedError, match="no certificate proves it"):
            other.correct_hubs(BANK, model=edge)
        with pytest.raises(NotCertifiedError):
            other.correct_hubs(BANK, model=Embedder(bundles["stranger"]))
    for bad, error in (
        ({"bank": BANK, "k": 0}, ConfigError),
        ({"bank": BANK, "weight": -1.0}, ConfigError),
        ({"bank": BANK[:0]}, ConfigError),
        ({"bank": []}, ConfigError),
        ({"bank": BANK[:, :5]}, DimensionError),
        ({"bank": BANK * np.nan}, InvalidVectorError),
    ):
        with pytest.raises(error):
            gallery.correct_hubs(**bad, model=edge)  # type: ignore[arg-type]
    assert gallery.corrections() == ()


def test_other_processes_write_biases_and_see_the_correction(
    gallery: Gallery, cloud: Embedder, edge: Embedder, bundles: dict[str, Path]
) -> None:
    items = everything()
    with Gallery.open(gallery.path) as other:
        assert len(other) == N
        gallery.correct_hubs(BANK, model=edge, k=20, weight=0.8)
        check(other, edge, items)
        other.add(["there"], vectors=clustered(1, 6), model=cloud)
        items["there"] = clustered(1, 6)[0]
        check(gallery, edge, items)
    code = f"""
        import os, signal
        from samespace import Embedder, Gallery
        from tests.sdk.test_index import clustered
        gallery = Gallery.open({str(gallery.path)!r})
        gallery.add(["killed"], vectors=clustered(1, 7), model=Embedder({str(bundles["cloud"])!r}))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    items["killed"] = clustered(1, 7)[0]
    check(gallery, edge, items)
    gallery.uncorrect_hubs(edge)
    with Gallery.open(gallery.path) as other:
        assert other.search(vectors=clustered(1, 7), model=edge, k=1).ids == [["killed"]]


def test_items_that_come_while_biases_are_computed(
    gallery: Gallery, cloud: Embedder, edge: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samespace.gallery._hubs.ROWS_AT_ONCE", 100)
    items = everything()

    def meanwhile(stage: str, done: int, total: int) -> None:
        if done == 200:
            with Gallery.open(gallery.path) as other:
                other.delete(["i3", "i250"])
                other.add(["late"], vectors=clustered(1, 6), model=cloud)
        if done >= N - 1:
            gallery.update("i10", vector=clustered(1, 7)[0], model=cloud)

    gallery.correct_hubs(BANK, model=edge, k=20, weight=0.8, progress=meanwhile)
    assert gallery.get(["i10"])[0].vector == pytest.approx(clustered(1, 7)[0])
    del items["i3"], items["i250"]
    items |= {"late": clustered(1, 6)[0], "i10": clustered(1, 7)[0]}
    check(gallery, edge, items)


def test_galleries_without_corrections_stay_as_they_were(gallery: Gallery, edge: Embedder) -> None:
    """Software that knows nothing of biases may write until there are some, and afterwards."""

    def schema() -> tuple[int, int]:
        with sqlite3.connect(gallery.path / "gallery.db") as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            tables = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
            return json.loads(row[0]), tables.fetchone()[0]

    first = schema()
    assert first[0] == 1
    gallery.correct_hubs(BANK, model=edge)
    assert schema() == (2, first[1] + 2)
    gallery.uncorrect_hubs(edge)
    assert schema()[0] == 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE biases SET bias = bias + 0.5 WHERE key = 7",
        "DELETE FROM biases WHERE key = 7",
        "UPDATE biases SET bias = 'text' WHERE key = 7",
        "INSERT INTO biases SELECT 100000, correction, bias, crc FROM biases WHERE key = 7",
        "UPDATE corrections SET weight = 3",
        "UPDATE corrections SET bank = 'text'",
        "DROP TRIGGER biases_go_with_items",
        "DROP TABLE biases",
    ],
)
def test_damage_is_reported(gallery: Gallery, edge: Embedder, damage: str) -> None:
    gallery.correct_hubs(BANK, model=edge)
    gallery.close()
    db = sqlite3.connect(gallery.path / "gallery.db", isolation_level=None)
    db.execute(damage)
    db.close()
    with pytest.raises(GalleryDamagedError, match="Restore the folder from a backup"):
        Gallery.open(gallery.path)


# the approximate index

BIG = 12_000


@pytest.fixture
def big(tmp_path: Path, cloud: Embedder, certificate: Certificate) -> Path:
    with Gallery.create(tmp_path / "big", cloud, approximate_from=8000) as made:
        made.admit(certificate)
        ids = [str(i) for i in range(BIG)]
        payloads = [{"n": i} for i in range(BIG)]
        made.add(ids, vectors=clustered(BIG, 1), model=cloud, payloads=payloads)
        assert made.stats().approximate
    return tmp_path / "big"


def recall(found: list[list[str]], wanted: list[list[str]]) -> float:
    return float(
        np.mean([len(set(f) & set(w)) / len(w) for f, w in zip(found, wanted, strict=True)])
    )


def test_the_approximate_index_keeps_its_recall(big: Path, cloud: Embedder, edge: Embedder) -> None:
    queries = clustered(200, 3)
    items = {str(i): v for i, v in enumerate(clustered(BIG, 1))}
    bank = clustered(500, 9)
    with Gallery.open(big) as gallery:
        gallery.correct_hubs(bank, model=edge, k=20, weight=0.8)
        assert gallery.stats().approximate
        # Changes after the index was built: some gone, one moved, some new.
        gone = [str(i) for i in range(0, 600, 3)]
        gallery.delete(gone)
        gallery.update("1", vector=-items["1"], model=cloud)
        gallery.add([f"new{i}" for i in range(500)], vectors=clustered(500, 2), model=cloud)
        for id_ in gone:
            del items[id_]
        items["1"] = -items["1"]
        items |= {f"new{i}": v for i, v in enumerate(clustered(500, 2))}
        bias = hub_bias(np.stack(list(items.values())), bank, 20, 0.8)
        wanted = expected(items, queries, 10, bias)
        plain = expected(items, queries, 10, np.zeros(len(items)))
        assert recall(plain, wanted) < 0.95  # or this would test nothing
        exact = gallery.search(vectors=queries, model=edge, k=10, exact=True)
        assert recall(exact.ids, wanted) == 1
        assert recall(gallery.search(vectors=queries, model=edge, k=10).ids, wanted) > 0.97
        off = gallery.search(vectors=queries, model=edge, k=10, corrected=False)
        assert recall(off.ids, plain) > 0.97
        assert recall(gallery.search(vectors=queries, model=cloud, k=10).ids, plain) > 0.97
        place = {id_: i for i, id_ in enumerate(items)}
        found = gallery.search(vectors=queries, model=edge, k=10)
        matrix = np.stack(list(items.values()))
        at = np.array([[place[i] for i in row] for row in found.ids])
        cosines = np.einsum("qd,qkd->qk", queries, matrix[at])
        assert found.scores == pytest.approx(cosines, abs=2e-6)
        assert found.corrected_scores == pytest.approx(cosines + bias[at], abs=2e-6)
        few = gallery.search(vectors=queries, model=edge, k=10, where={"n": {"lt": 9000}})
        mask = [i for i, id_ in enumerate(items) if id_.isdigit() and int(id_) < 9000]
        some = {list(items)[i]: matrix[i] for i in mask}
        assert recall(few.ids, expected(some, queries, 10, bias[mask])) > 0.97


def test_an_index_without_the_biases_is_not_used(
    big: Path, edge: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index beside the database is from before, is removed, or is from a correction undone."""
    queries = clustered(100, 3)
    items = {str(i): v for i, v in enumerate(clustered(BIG, 1))}
    bias = hub_bias(np.stack(list(items.values())), BANK, 20, 0.8)
    wanted = expected(items, queries, 5, bias)
    plain = expected(items, queries, 5, np.zeros(BIG))
    shutil.copytree(big / "index", tmp_path / "before")
    with Gallery.open(big) as gallery:
        gallery.correct_hubs(BANK, model=edge, k=20, weight=0.8)
        # Closed without a search: the index on disk is still the old one.
    with Gallery.open(big) as gallery:
        assert recall(gallery.search(vectors=queries, model=edge, k=5).ids, wanted) > 0.97
    for change in ("removed", "before"):
        shutil.copytree(big / "index", tmp_path / f"corrected {change}")
        shutil.rmtree(big / "index")
        if change == "before":
            shutil.copytree(tmp_path / "before", big / "index")
        with Gallery.open(big) as gallery:
            assert recall(gallery.search(vectors=queries, model=edge, k=5).ids, wanted) > 0.97
    # With the right one, nothing is built again.
    with monkeypatch.context() as patched:
        patched.setattr("samespace.gallery._index.Base.build", None)
        with Gallery.open(big) as gallery:
            assert recall(gallery.search(vectors=queries, model=edge, k=5).ids, wanted) > 0.97
    with Gallery.open(big) as gallery:
        gallery.uncorrect_hubs(edge)
    with Gallery.open(big) as gallery:
        assert recall(gallery.search(vectors=queries, model=edge, k=5).ids, plain) > 0.97
