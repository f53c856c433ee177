"""Searches by the first numbers of vectors: what they find, who may, and that they stay current."""

from __future__ import annotations

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
from samespace.metrics import shorten
from samespace.verification import verify
from samespace_edge import (
    CertificateError,
    ConfigError,
    DimensionError,
    FilterError,
    GalleryDamagedError,
    InvalidVectorError,
    NotCertifiedError,
)
from tests.sdk.test_index import DIM, clustered

N = 400
WIDTH = 12

Items = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def certificate(bundles: dict[str, Path], shop: Dataset) -> Certificate:
    """Of `edge` in galleries of `cloud`; measured at 2, 6 and 12 numbers, and 2 are too few."""
    report = verify(
        [bundles["edge"]],
        [bundles["cloud"]],
        shop,
        baseline=bundles["poor"],
        prefixes=(2, 6, WIDTH),
    )
    (found,) = report.certificates()
    assert found.prefixes == (6, WIDTH)
    return found


@pytest.fixture(scope="module")
def plain_certificate(bundles: dict[str, Path], shop: Dataset) -> Certificate:
    """The same without prefixes."""
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
    """Items i0 ... i399 with payload {"n": number}, `edge` admitted."""
    made = Gallery.create(tmp_path / "shop", cloud)
    made.admit(certificate)
    payloads = [{"n": i} for i in range(N)]
    made.add([f"i{i}" for i in range(N)], vectors=clustered(N, 1), model=cloud, payloads=payloads)
    yield made
    made.close()


def everything() -> Items:
    return {f"i{i}": v for i, v in enumerate(clustered(N, 1))}


def first(vectors: np.ndarray, width: int) -> np.ndarray:
    """What `shorten` has to give, in plain words."""
    cut = vectors[:, :width].astype(np.float64)
    return cut / np.linalg.norm(cut, axis=1, keepdims=True)


def check(
    gallery: Gallery, model: Embedder, items: Items, width: int = WIDTH, k: int = 7, **more: object
) -> None:
    """A search by `width` is what computing everything directly gives."""
    queries = clustered(30, 3)
    cosines = first(queries, width) @ first(np.stack(list(items.values())), width).T
    order = np.argsort(-cosines, axis=1)[:, :k]
    ids = list(items)
    found = gallery.search(vectors=queries[:, :width], model=model, width=width, k=k, **more)
    assert found.ids == [[ids[i] for i in row] for row in order]
    assert found.scores == pytest.approx(np.take_along_axis(cosines, order, 1), abs=2e-6)
    assert found.scores.dtype == np.float32
    assert found.corrected_scores is None


def test_prefixes_are_unit_vectors_or_nothing() -> None:
    vectors = clustered(20, 1)
    vectors[3] = np.eye(DIM)[DIM - 1]
    short = shorten(vectors, 5)
    assert short.dtype == np.float32
    assert short.flags.c_contiguous
    rest = np.delete(np.arange(20), 3)
    assert short[rest] == pytest.approx(first(vectors[rest], 5), abs=1e-6)
    assert not short[3].any()
    assert shorten(vectors[:0], 5).shape == (0, 5)


@pytest.mark.parametrize("block", [65_536, 16, 1])
def test_searches_are_cosines_of_prefixes_through_every_change(
    gallery: Gallery, cloud: Embedder, edge: Embedder, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("samespace.gallery._prefixes.BLOCK", block)
    monkeypatch.setattr("samespace.gallery._prefixes._READ_AT_ONCE", 100)
    items = everything()
    check(gallery, edge, items)
    check(gallery, edge, items, width=6, k=N + 5)
    check(gallery, cloud, items, width=DIM - 1)  # the anchor needs no certificate
    check(gallery, cloud, items, width=2)

    new = clustered(30, 5)
    gallery.add([f"n{i}" for i in range(30)], vectors=new, model=edge)
    items |= {f"n{i}": v for i, v in enumerate(new)}
    check(gallery, edge, items)
    gallery.update("i7", vector=clustered(1, 6)[0], model=edge)
    items["i7"] = clustered(1, 6)[0]
    gallery.update("i8", payload="only this")
    gallery.delete(["i0", "n29", "i399"])
    for id_ in ("i0", "n29", "i399"):
        del items[id_]
    check(gallery, edge, items)
    check(gallery, edge, items, width=6)
    gallery.delete([f"i{i}" for i in range(9, 399)])
    items = {id_: v for id_, v in items.items() if id_ in ("i1", "i2") or id_[0] == "n"}
    gallery.delete(["i3", "i4", "i5", "i6", "i7", "i8"])
    check(gallery, edge, items, k=50)
    gallery.close()
    with Gallery.open(gallery.path) as again:
        check(again, edge, items)
    (gallery.path / "gallery.sum").unlink()
    with Gallery.open(gallery.path, read_only=True) as again:
        check(again, edge, items)
        check(again, edge, {k: v for k, v in items.items() if k[0] == "i"}, where={"n": {"ge": 0}})


def test_a_long_series_of_changes(
    gallery: Gallery, cloud: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small blocks with gaps, joined again and again."""
    monkeypatch.setattr("samespace.gallery._prefixes.BLOCK", 16)
    rng = np.random.default_rng(0)
    items = everything()
    for step in range(15):
        gone = [str(i) for i in rng.choice(list(items), 40, replace=False)]
        gallery.delete(gone[:20])
        for id_ in gone[:20]:
            del items[id_]
        for id_ in gone[20:30]:
            items[id_] = clustered(1, int(rng.integers(1 << 30)))[0]
            gallery.update(id_, vector=items[id_], model=cloud)
        new = clustered(8, 1000 + step)
        gallery.add([f"s{step} {i}" for i in range(8)], vectors=new, model=cloud)
        items |= {f"s{step} {i}": v for i, v in enumerate(new)}
        check(gallery, cloud, items)
    blocks = gallery._prefixes._widths[WIDTH]._blocks
    assert sum(map(len, blocks)) == len(items)
    assert len(blocks) <= 2 * len(items) / 16 + 1


def test_filters_and_payloads(
    gallery: Gallery, cloud: Embedder, edge: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samespace.gallery._prefixes.BLOCK", 64)
    items = everything()
    few = {id_: v for i, (id_, v) in enumerate(items.items()) if i < 50 or i >= 390}
    where = {"n": {"in": [*range(50), *range(390, 400)]}}
    for _ in range(2):  # the second time the filter is remembered
        check(gallery, edge, few, where=where)
    check(gallery, edge, items, where={"n": {"ge": 0}})
    gallery.update("i5", payload={"n": -1})
    gallery.update("i60", payload={"n": 5})
    few = {id_: v for id_, v in few.items() if id_ != "i5"}
    few["i60"] = items["i60"]
    check(gallery, edge, few, k=100, where=where)
    queries = clustered(3, 3)[:, :WIDTH]
    for hits in gallery.search(vectors=queries, model=edge, width=WIDTH, k=2, where=where):
        assert len(hits) == 2
        assert all(hit.payload["n"] in where["n"]["in"] for hit in hits)
    bare = gallery.search(vectors=queries, model=edge, width=WIDTH, payloads=False)
    assert bare.payloads is None
    none = gallery.search(vectors=queries, model=edge, width=WIDTH, where={"n": -7})
    assert (none.ids, none.scores.shape, none.payloads) == ([[]] * 3, (3, 0), [[]] * 3)
    no_queries = gallery.search(vectors=queries[:0], model=edge, width=WIDTH)
    assert (no_queries.ids, no_queries.scores.shape[0]) == ([], 0)
    with pytest.raises(FilterError):
        gallery.search(vectors=queries, model=edge, width=WIDTH, where={})
    gallery.delete(list(items))
    empty = gallery.search(vectors=queries, model=edge, width=WIDTH)
    assert (empty.ids, empty.scores.shape) == ([[]] * 3, (3, 0))
    gallery.add(["i1"], vectors=items["i1"][None], model=cloud)
    check(gallery, edge, {"i1": items["i1"]})


def test_pictures_are_embedded_and_cut(
    tmp_path: Path, cloud: Embedder, edge: Embedder, certificate: Certificate, shop: Dataset
) -> None:
    pictures = [shop.read(i) for i in shop.gallery]
    queries = [shop.read(i) for i in shop.queries[:5]]
    with Gallery.create(tmp_path / "g", cloud) as made:
        made.admit(certificate)
        made.add([i.path for i in shop.gallery], images=pictures, model=cloud)
        by_picture = made.search(images=queries, model=edge, width=WIDTH)
        vectors = edge.embed(queries)[:, :WIDTH]
        by_vector = made.search(vectors=vectors, model=edge.identity, width=WIDTH)
        # How long a prefix is says nothing: only its direction is compared.
        longer = made.search(vectors=3 * vectors, model=edge, width=WIDTH)
        assert by_picture.ids == by_vector.ids == longer.ids
        assert by_picture.scores == pytest.approx(by_vector.scores, abs=1e-6)
        cosines = first(edge.embed(queries), WIDTH) @ first(cloud.embed(pictures), WIDTH).T
        assert by_picture.scores[:, 0] == pytest.approx(cosines.max(1), abs=2e-6)


def test_an_approximate_index_does_not_make_them_approximate(
    tmp_path: Path, cloud: Embedder, certificate: Certificate
) -> None:
    vectors = clustered(3000, 1)
    with Gallery.create(tmp_path / "g", cloud, approximate_from=1000) as made:
        made.add([str(i) for i in range(3000)], vectors=vectors, model=cloud)
        assert made.stats().approximate
        check(made, cloud, {str(i): v for i, v in enumerate(vectors)}, k=20)


def test_an_item_whose_prefix_is_nothing_is_near_to_nothing(
    tmp_path: Path, cloud: Embedder
) -> None:
    eye = np.eye(DIM, dtype=np.float32)
    with Gallery.create(tmp_path / "g", cloud) as made:
        made.add(["first", "last"], vectors=eye[[0, -1]], model=cloud)
        hits = made.search(vectors=eye[:1, :5], model=cloud, width=5)[0]
        assert [(h.id, h.score) for h in hits] == [("first", 1), ("last", 0)]
        with pytest.raises(InvalidVectorError, match="query 0"):
            made.search(vectors=eye[-1:, :5], model=cloud, width=5)


def test_what_other_handles_and_processes_write_is_seen(
    gallery: Gallery, cloud: Embedder, edge: Embedder, bundles: dict[str, Path]
) -> None:
    items = everything()
    few = {"n": {"lt": 50}}
    with Gallery.open(gallery.path) as other:
        check(gallery, edge, items)
        check(other, edge, items)
        check(other, edge, {f"i{i}": items[f"i{i}"] for i in range(50)}, where=few)
        other.add(["there"], vectors=clustered(1, 6), model=cloud)
        other.delete(["i3"])
        items["there"] = clustered(1, 6)[0]
        del items["i3"]
        check(gallery, edge, items)
        gallery.update("i4", vector=clustered(1, 7)[0], model=cloud)
        items["i4"] = clustered(1, 7)[0]
        check(other, edge, items)
        check(other, edge, {k: items[k] for k in items if k[1:] in map(str, range(50))}, where=few)
    code = f"""
        import os, signal
        from samespace import Embedder, Gallery
        from tests.sdk.test_index import clustered
        gallery = Gallery.open({str(gallery.path)!r})
        gallery.add(["killed"], vectors=clustered(1, 8), model=Embedder({str(bundles["cloud"])!r}))
        gallery.delete(["i9"])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    items["killed"] = clustered(1, 8)[0]
    del items["i9"]
    check(gallery, edge, items)


def test_hub_corrections_are_of_whole_vectors(gallery: Gallery, edge: Embedder) -> None:
    gallery.correct_hubs(clustered(300, 9), model=edge, k=20, weight=0.8)
    items = everything()
    check(gallery, edge, items)
    check(gallery, edge, items, corrected=False)
    queries = clustered(3, 3)
    with pytest.raises(ConfigError, match="corrections are of whole vectors"):
        gallery.search(vectors=queries[:, :WIDTH], model=edge, width=WIDTH, corrected=True)
    assert gallery.search(vectors=queries, model=edge).corrected_scores is not None


def test_who_may_not(
    tmp_path: Path, cloud: Embedder, edge: Embedder, certificate: Certificate, gallery: Gallery
) -> None:
    queries = clustered(3, 3)
    for width in (2, 7, DIM - 1):  # measured and too few; not measured
        with pytest.raises(NotCertifiedError, match=rf"samespace verify --prefix {width}'") as told:
            gallery.search(vectors=queries[:, :width], model=edge, width=width)
        assert f"does not cover the first {width} of {DIM}" in str(told.value)
        assert "(it covers: 6, 12)" in str(told.value)
    with (
        Gallery.create(tmp_path / "other", cloud) as other,
        pytest.raises(NotCertifiedError, match="no certificate proves it"),
    ):
        other.search(vectors=queries[:, :WIDTH], model=edge, width=WIDTH)


def test_what_is_no_prefix(gallery: Gallery, cloud: Embedder, edge: Embedder) -> None:
    queries = clustered(3, 3)
    for width in (-1, 0, 1, DIM, DIM + 1):
        with pytest.raises(ConfigError, match=rf"width is {width}; vectors of {DIM}"):
            gallery.search(vectors=queries, model=cloud, width=width)
    # Without a width, and with one that is not the vectors', a wrong length stays an error.
    with pytest.raises(DimensionError, match=rf"it takes \(N, {DIM}\)"):
        gallery.search(vectors=queries[:, :WIDTH], model=edge)
    whole = gallery.search(vectors=queries, model=cloud, width=WIDTH)
    cut = gallery.search(vectors=queries[:, :WIDTH], model=cloud, width=WIDTH)
    assert whole.ids == cut.ids
    for vectors in (queries[:, :6], queries[0, :WIDTH], queries[0]):
        with pytest.raises(DimensionError, match=rf"takes the first {WIDTH} of {DIM} numbers"):
            gallery.search(vectors=vectors, model=edge, width=WIDTH)
    with pytest.raises(InvalidVectorError):
        gallery.search(vectors=queries[:, :WIDTH] * np.nan, model=edge, width=WIDTH)
    with pytest.raises(ConfigError, match="either vectors or images"):
        gallery.search(model=edge, width=WIDTH)
    with pytest.raises(DimensionError):
        gallery.add(["short"], vectors=queries[:1, :WIDTH], model=cloud)


def test_a_renewed_certificate_counts_at_once(
    tmp_path: Path,
    cloud: Embedder,
    edge: Embedder,
    certificate: Certificate,
    plain_certificate: Certificate,
) -> None:
    queries = clustered(3, 3)[:, :WIDTH]
    with Gallery.create(tmp_path / "g", cloud) as made:
        made.add(["a"], vectors=clustered(1, 1), model=cloud)
        plain_certificate.write(tmp_path / "plain.json")
        made.admit(tmp_path / "plain.json")
        with pytest.raises(NotCertifiedError, match=r"it covers: only the full width"):
            made.search(vectors=queries, model=edge, width=WIDTH)
        with Gallery.open(made.path) as other:
            certificate.write(tmp_path / "covering.json")
            other.admit(tmp_path / "covering.json")
        assert made.search(vectors=queries, model=edge, width=WIDTH).ids == [["a"]] * 3
    shutil.copytree(tmp_path / "g", tmp_path / "copy")
    with Gallery.open(tmp_path / "copy") as again:
        assert again.search(vectors=queries, model=edge, width=WIDTH).ids == [["a"]] * 3


def identity(name: str, letter: str) -> dict[str, object]:
    digest = letter * 64
    return {
        "name": name,
        "fingerprint": digest,
        "variant": "onnx-fp32",
        "variant_sha256": digest,
        "space": "a" * 64,
        "dim": 24,
    }


BEFORE = {
    "schema": 1,
    "query": identity("edge", "b"),
    "gallery": identity("cloud", "a"),
    "dataset": {"name": "shop", "sha256": "c" * 64, "queries": 32, "gallery": 16, "labels": 8},
    "criterion": {
        "metric": "recall_at_1",
        "value": 1.0,
        "reference": "poor",
        "reference_value": 0.5,
        "difference": 0.5,
        "difference_low": 0.25,
        "difference_high": 0.75,
    },
    "figures": {"recall_at_1": 1.0},
    "report_sha256": "d" * 64,
    "issued": "2026-01-01T00:00:00+00:00",
    "version": "0.1.0",
    "sha256": "c47aed985cd603696ddfe42e82f9f4b4c037f72a1a23b96219082207199b8808",
}
"""A certificate as it was issued before there were prefixes."""


def test_certificates_from_before_there_were_prefixes() -> None:
    read = Certificate.from_json(BEFORE)
    assert read.prefixes == ()
    assert read.to_json() == BEFORE
    with pytest.raises(CertificateError, match="was changed after it was issued"):
        Certificate.from_json({**BEFORE, "prefixes": [12]})
    with pytest.raises(CertificateError, match="malformed"):
        Certificate.from_json({**BEFORE, "prefixes": 12})


def test_damage_is_reported(gallery: Gallery, edge: Embedder) -> None:
    db = sqlite3.connect(gallery.path / "gallery.db", isolation_level=None)
    db.execute("UPDATE items SET payload = 'other' WHERE id = 'i300'")
    db.close()
    queries = clustered(3, 3)[:, :WIDTH]
    for _ in range(2):
        with pytest.raises(GalleryDamagedError, match="'i300' does not hold what was written"):
            gallery.search(vectors=queries, model=edge, width=WIDTH)
