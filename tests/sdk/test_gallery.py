"""The gallery: what it holds, whom it admits, what it finds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samespace import Certificate, Dataset, Embedder, Gallery, ModelIdentity, Report
from samespace.verification import verify
from samespace_edge import (
    CertificateError,
    ConfigError,
    DimensionError,
    DuplicateIdError,
    FilterError,
    Fingerprint,
    GalleryError,
    InvalidVectorError,
    NotCertifiedError,
    UnknownIdError,
)

DIM = 24


def vectors(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def report(bundles: dict[str, Path], shop: Dataset) -> Report:
    return verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=bundles["poor"])


@pytest.fixture
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def gallery(tmp_path: Path, cloud: Embedder) -> Gallery:
    made = Gallery.create(tmp_path / "shop", cloud)
    yield made
    made.close()


def filled(gallery: Gallery, model: Embedder, n: int = 50) -> np.ndarray:
    x = vectors(n)
    payloads = [
        {"n": i, "odd": bool(i % 2), "maker": {"country": "SE" if i < 5 else "IT"}}
        for i in range(n)
    ]
    gallery.add([f"i{i}" for i in range(n)], vectors=x, model=model, payloads=payloads)
    return x


def test_add_search_get(gallery: Gallery, cloud: Embedder) -> None:
    x = filled(gallery, cloud)
    result = gallery.search(vectors=x[:4] * 3, model=cloud, k=2)
    assert [r[0].id for r in result] == ["i0", "i1", "i2", "i3"]
    assert np.allclose(result.scores[:, 0], 1, atol=1e-6)
    assert result[1][0].payload == {"n": 1, "odd": True, "maker": {"country": "SE"}}
    record = gallery.get(["i3"])[0]
    assert np.allclose(record.vector, x[3], atol=1e-6)
    assert record.model == cloud.identity
    assert len(gallery) == 50
    assert "i3" in gallery
    assert "j3" not in gallery


def test_pictures_go_in_and_find_themselves(
    gallery: Gallery, cloud: Embedder, shop: Dataset
) -> None:
    items = shop.gallery
    gallery.add([i.path for i in items], images=[shop.read(i) for i in items], model=cloud)
    hits = gallery.search(images=[shop.read(items[5])], model=cloud, k=1)[0]
    assert hits[0].id == items[5].path
    assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_it_survives_reopening(gallery: Gallery, cloud: Embedder) -> None:
    x = filled(gallery, cloud)
    gallery.close()
    with Gallery.open(gallery.path) as again:
        assert len(again) == 50
        assert again.search(vectors=x[7:8], model=cloud.identity)[0][0].id == "i7"
        stats = again.stats()
    assert stats.by_model == {cloud.identity: 50}
    assert stats.dim == DIM
    assert stats.bytes_on_disk > 50 * DIM * 4


def test_k_beyond_the_gallery_and_an_empty_gallery(gallery: Gallery, cloud: Embedder) -> None:
    empty = gallery.search(vectors=vectors(3), model=cloud, k=5)
    assert empty.ids == [[], [], []]
    assert empty.scores.shape == (3, 0)
    filled(gallery, cloud, 4)
    result = gallery.search(vectors=vectors(3), model=cloud, k=99)
    assert result.scores.shape == (3, 4)
    assert sorted(result.ids[0]) == ["i0", "i1", "i2", "i3"]
    with pytest.raises(ConfigError, match="k has to be 1 or more"):
        gallery.search(vectors=vectors(1), model=cloud, k=0)


def test_update_and_delete(gallery: Gallery, cloud: Embedder) -> None:
    x = filled(gallery, cloud)
    gallery.update("i5", payload={"n": 500})
    assert gallery.get(["i5"])[0].payload == {"n": 500}
    assert np.allclose(gallery.get(["i5"])[0].vector, x[5], atol=1e-6)
    gallery.update("i6", vector=-x[6], model=cloud)
    assert gallery.search(vectors=-x[6:7], model=cloud)[0][0].id == "i6"
    assert gallery.get(["i6"])[0].payload["n"] == 6
    gallery.delete(["i0", "i1"])
    assert len(gallery) == 48
    found = gallery.search(vectors=x[:2], model=cloud, k=50)
    assert not {"i0", "i1"} & {i for row in found.ids for i in row}
    gallery.add(["i0"], vectors=x[:1], model=cloud)
    assert gallery.search(vectors=x[:1], model=cloud)[0][0].id == "i0"
    with pytest.raises(UnknownIdError, match="the ids 'i1', 'zz'"):
        gallery.delete(["i2", "i1", "zz"])
    assert "i2" in gallery
    with pytest.raises(UnknownIdError, match="'nope'"):
        gallery.update("nope", payload=1)
    with pytest.raises(ConfigError, match="needs the model that made it"):
        gallery.update("i2", vector=x[2])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"n": 7}, {7}),
        ({"n": {"lt": 3}}, {0, 1, 2}),
        ({"n": {"ge": 46, "ne": 48}}, {46, 47, 49}),
        ({"n": {"in": [1, 4, 400]}, "odd": True}, {1}),
        ({"odd": False, "n": {"le": 4}}, {0, 2, 4}),
        ({"maker.country": "SE"}, {0, 1, 2, 3, 4}),
        ({"absent": {"exists": True}}, set()),
        ({"absent": {"exists": False}, "n": {"gt": 47}}, {48, 49}),
    ],
)
def test_filters(gallery: Gallery, cloud: Embedder, where: dict, expected: set[int]) -> None:
    x = filled(gallery, cloud)
    result = gallery.search(vectors=x[:2], model=cloud, k=50, where=where)
    for row in result.ids:
        assert {int(i[1:]) for i in row} == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "non-empty mapping"),
        ({"n": {}}, "says nothing"),
        ({"n": 10**30}, "numbers of 64 bits"),
        ({"n": {"in": [float("nan")]}}, "numbers of 64 bits"),
        ({"n": {"like": 1}}, "unknown operator 'like'"),
        ({"n": {"in": "abc"}}, "needs a list"),
        ({"n": None}, "only text, booleans and numbers"),
        ({'a"b': 1}, "not the name of a payload key"),
        ({"a..b": 1}, "not the name of a payload key"),
    ],
)
def test_filters_that_cannot_be_read(
    gallery: Gallery, cloud: Embedder, where: dict, message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        gallery.search(vectors=vectors(1), model=cloud, where=where)


def test_a_filter_cannot_inject_sql(gallery: Gallery, cloud: Embedder) -> None:
    x = filled(gallery, cloud)
    for key, value in (("n') OR 1=1 --", 1), ("n", "1 OR 1=1")):
        result = gallery.search(vectors=x[:1], model=cloud, where={key: value})
        assert result.ids == [[]]
    assert len(gallery) == 50


def test_a_model_without_certificate_is_refused(
    gallery: Gallery, cloud: Embedder, bundles: dict[str, Path], report: Report
) -> None:
    filled(gallery, cloud)
    edge, stranger = Embedder(bundles["edge"]), Embedder(bundles["stranger"])
    with pytest.raises(NotCertifiedError) as error:
        gallery.search(vectors=vectors(1), model=stranger)
    text = str(error.value)
    assert "'shop' holds vectors of space" in text
    assert stranger.identity.space.short in text
    assert cloud.identity.space.short in text
    assert "create a new gallery" in text
    with pytest.raises(NotCertifiedError, match="no certificate proves it"):
        gallery.search(vectors=vectors(1), model=edge)
    with pytest.raises(NotCertifiedError):
        gallery.add(["x"], vectors=vectors(1), model=edge)

    assert report.passed
    gallery.admit(report.certificates()[0])
    assert gallery.search(vectors=vectors(1), model=edge, k=1).ids[0]
    # The same model in another file, say int8, is another thing.
    other_file = replace(edge.identity, variant="onnx-int8", variant_sha256="0" * 64)
    with pytest.raises(NotCertifiedError, match="onnx-int8"):
        gallery.search(vectors=vectors(1), model=other_file)
    # A claim to the right space is not enough, nor is a name.
    liar = replace(stranger.identity, name="cloud", space=cloud.identity.space)
    with pytest.raises(NotCertifiedError):
        gallery.search(vectors=vectors(1), model=liar)


def test_an_admission_is_remembered_and_seen_by_others(
    gallery: Gallery, bundles: dict[str, Path], report: Report, cloud: Embedder
) -> None:
    x = filled(gallery, cloud)
    with Gallery.open(gallery.path) as other:
        gallery.admit(report.certificates()[0])
        assert other.search(vectors=x[:1], model=Embedder(bundles["edge"]), k=1).ids == [["i0"]]
    assert {m.name for m in gallery.stats().admitted} == {"cloud", "edge"}


def test_certificates_of_other_spaces_and_changed_ones(
    tmp_path: Path, bundles: dict[str, Path], report: Report
) -> None:
    certificate = report.certificates()[0]
    with (
        Gallery.create(tmp_path / "other", bundles["stranger"]) as other,
        pytest.raises(NotCertifiedError, match="Verify the bundle against that model"),
    ):
        other.admit(certificate)
    path = tmp_path / "c.json"
    certificate.write(path)
    assert Certificate.read(path) == certificate
    value = json.loads(path.read_text())
    value["figures"]["recall_at_1"] = 0.999
    path.write_text(json.dumps(value))
    with pytest.raises(CertificateError, match="changed after it was issued"):
        Certificate.read(path)
    failed = replace(certificate, criterion={**certificate.criterion, "difference_low": -0.1})
    with pytest.raises(CertificateError, match="does not say that the model passed"):
        Certificate.from_json(failed.to_json())
    with pytest.raises(CertificateError, match="cannot read"):
        Certificate.read(tmp_path / "none.json")


def test_gallery_needs_an_anchor(tmp_path: Path, bundles: dict[str, Path]) -> None:
    with pytest.raises(NotCertifiedError, match="lives in the space"):
        Gallery.create(tmp_path / "x", bundles["edge"])
    with pytest.raises(GalleryError, match="there is no gallery"):
        Gallery.open(tmp_path / "x")
    with Gallery.create(tmp_path / "x", bundles["cloud"]):
        pass
    with pytest.raises(GalleryError, match="already a gallery"):
        Gallery.create(tmp_path / "x", bundles["cloud"])


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.full((1, DIM), np.nan, np.float32), InvalidVectorError),
        (np.full((1, DIM), np.inf, np.float32), InvalidVectorError),
        (np.zeros((1, DIM), np.float32), InvalidVectorError),
        (np.ones((1, DIM), np.int64), InvalidVectorError),
        (np.ones((1, DIM + 1), np.float32), DimensionError),
        (np.ones(DIM, np.float32), DimensionError),
    ],
    ids=["nan", "inf", "zero", "integers", "width", "one-dimensional"],
)
def test_bad_vectors(
    gallery: Gallery, cloud: Embedder, bad: np.ndarray, error: type[Exception]
) -> None:
    filled(gallery, cloud, 3)
    with pytest.raises(error):
        gallery.add(["bad"], vectors=bad, model=cloud)
    with pytest.raises(error):
        gallery.search(vectors=bad, model=cloud)
    assert len(gallery) == 3


def test_bad_vector_in_a_batch_is_named_and_nothing_is_stored(
    gallery: Gallery, cloud: Embedder
) -> None:
    x = vectors(3)
    x[1, 4] = np.nan
    with pytest.raises(InvalidVectorError, match="'b'"):
        gallery.add(["a", "b", "c"], vectors=x, model=cloud)
    assert len(gallery) == 0


def test_duplicate_and_malformed_ids(gallery: Gallery, cloud: Embedder) -> None:
    filled(gallery, cloud, 3)
    with pytest.raises(DuplicateIdError, match="already has the id 'i1'"):
        gallery.add(["new", "i1"], vectors=vectors(2), model=cloud)
    assert "new" not in gallery
    with pytest.raises(DuplicateIdError, match="'x' more than once"):
        gallery.add(["x", "x"], vectors=vectors(2), model=cloud)
    for ids in (["", "b"], [1, 2]):
        with pytest.raises(ConfigError, match="non-empty strings"):
            gallery.add(ids, vectors=vectors(2), model=cloud)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="list of strings, not one string"):
        gallery.add("ab", vectors=vectors(2), model=cloud)
    with pytest.raises(ConfigError, match="2 ids for 3 vectors"):
        gallery.add(["a", "b"], vectors=vectors(3), model=cloud)
    with pytest.raises(ConfigError, match="1 payloads for 2 items"):
        gallery.add(["a", "b"], vectors=vectors(2), model=cloud, payloads=[1])
    with pytest.raises(ConfigError, match="what JSON can hold"):
        gallery.add(["a"], vectors=vectors(1), model=cloud, payloads=[{1, 2}])
    with pytest.raises(ConfigError, match="either vectors or images"):
        gallery.add(["a"], model=cloud)
    with pytest.raises(ConfigError, match="embedded by an Embedder"):
        gallery.add(["a"], images=["x.png"], model=cloud.identity)


def test_export_reads_without_pickle(gallery: Gallery, cloud: Embedder, tmp_path: Path) -> None:
    x = filled(gallery, cloud, 6)
    assert gallery.export(tmp_path / "all.npz") == 6
    with np.load(tmp_path / "all.npz", allow_pickle=False) as data:

        def texts(name: str) -> list[str]:
            whole, ends = data[name].tobytes(), data[f"{name}_ends"]
            return [whole[a:b].decode() for a, b in zip([0, *ends[:-1]], ends, strict=True)]

        assert texts("ids") == [f"i{i}" for i in range(6)]
        assert np.allclose(data["vectors"], x, atol=1e-6)
        assert json.loads(texts("payloads")[2])["n"] == 2
        identity = ModelIdentity.from_json(json.loads(texts("models")[0]))
    assert identity == cloud.identity


def test_two_open_galleries_see_each_others_writes(gallery: Gallery, cloud: Embedder) -> None:
    x = filled(gallery, cloud)
    with Gallery.open(gallery.path) as other:
        assert len(other) == 50
        gallery.delete(["i3"])
        gallery.add(["late"], vectors=-x[3:4], model=cloud)
        gallery.update("i4", payload="changed")
        assert len(other) == 50
        found = other.search(vectors=-x[3:4], model=cloud, k=1)
        assert found.ids == [["late"]]
        assert other.search(vectors=x[4:5], model=cloud, k=1)[0][0].payload == "changed"
        assert "i3" not in {
            i for row in other.search(vectors=x, model=cloud, k=50).ids for i in row
        }


def test_fingerprint_value() -> None:
    with pytest.raises(Exception, match="64 lower-case"):
        Fingerprint("XYZ")
    assert repr(Fingerprint("ab" * 32)) == "Fingerprint(abababababab…)"


def test_filters_compare_like_with_like(gallery: Gallery, cloud: Embedder) -> None:
    payloads = [{"price": 120}, {"price": "n/a"}, {"price": True}, {}, {"price": 7.5}]
    gallery.add(list("abcde"), vectors=vectors(5), model=cloud, payloads=payloads)

    def passing(where: dict) -> set[str]:
        return set(gallery.search(vectors=vectors(1), model=cloud, k=9, where=where).ids[0])

    assert passing({"price": {"ge": 100}}) == {"a"}
    assert passing({"price": {"lt": "o"}}) == {"b"}
    assert passing({"price": {"ne": 120}}) == {"b", "c", "e"}
    assert passing({"price": {"in": [7.5, "n/a", True]}}) == {"b", "c", "e"}
    assert passing({"price": {"in": []}}) == set()
    assert passing({"price": 1}) == set()  # true is not 1


def test_a_renamed_model_keeps_its_items(
    gallery: Gallery, bundles: dict[str, Path], report: Report
) -> None:
    edge = Embedder(bundles["edge"])
    certificate = report.certificates()[0]
    gallery.admit(certificate)
    gallery.add(["e"], vectors=vectors(1), model=edge)
    gallery.admit(replace(certificate, query=replace(certificate.query, name="renamed")))
    assert gallery.get(["e"])[0].model.name == "renamed"
    assert gallery.stats().by_model[gallery.get(["e"])[0].model] == 1
    assert gallery.search(vectors=vectors(1), model=edge, k=1).ids == [["e"]]


def test_a_certificate_has_to_be_about_this_space(
    gallery: Gallery, report: Report, bundles: dict[str, Path]
) -> None:
    certificate = report.certificates()[0]
    stranger = Embedder(bundles["stranger"]).identity
    with pytest.raises(NotCertifiedError, match="anchored by cloud"):
        gallery.admit(replace(certificate, query=stranger))
    gallery.admit(certificate)
    # Measured against the edge model's vectors, nothing is known of the cloud's.
    with pytest.raises(NotCertifiedError, match="anchored by cloud"):
        gallery.admit(replace(certificate, gallery=certificate.query))


def test_ids_have_to_be_text_that_can_be_stored(gallery: Gallery, cloud: Embedder) -> None:
    odd = "a\udcff"
    gallery.add(["b"], vectors=vectors(1), model=cloud)
    for call in (
        lambda: gallery.add([odd], vectors=vectors(1), model=cloud),
        lambda: gallery.add(["c"], vectors=vectors(1), model=cloud, payloads=[{"name": odd}]),
        lambda: gallery.get([odd]),
        lambda: gallery.delete([odd]),
        lambda: gallery.update(odd, payload=1),
        lambda: gallery.update("b", payload=odd),
    ):
        with pytest.raises(ConfigError, match="is no valid text"):
            call()
    assert odd not in gallery
    assert len(gallery) == 1
    assert gallery.get(["b"])[0].payload is None


def test_a_closed_gallery_says_so(gallery: Gallery, cloud: Embedder) -> None:
    gallery.add(["a"], vectors=vectors(1), model=cloud)
    gallery.close()
    gallery.close()
    for call in (
        lambda: gallery.add(["b"], vectors=vectors(1), model=cloud),
        lambda: gallery.get(["a"]),
        lambda: gallery.search(vectors=vectors(1), model=cloud),
        lambda: gallery.delete(["a"]),
        lambda: gallery.stats(),
        lambda: "a" in gallery,
    ):
        with pytest.raises(GalleryError, match=r"gallery .* was closed. Open it again"):
            call()


def test_a_filter_that_compares_with_another_kind_of_value_is_explained(
    gallery: Gallery, cloud: Embedder
) -> None:
    payloads = [{"price": "5", "n": 1, "sizes": ["m"]}, {"price": "20", "n": 2, "sold": True}, None]
    gallery.add(["a", "b", "c"], vectors=vectors(3), model=cloud, payloads=payloads)

    def found(where: dict[str, object]) -> set[str]:
        result = gallery.search(vectors=vectors(1), model=cloud, where=where)
        return {hit.id for hit in result[0]}

    for where, compared, held, advice in (
        ({"price": {"lt": 50}}, "numbers", "texts", "(of a CSV: --number price)"),
        ({"price": {"in": [5, 6]}}, "numbers", "texts", "Compare with texts"),
        ({"n": "1"}, "texts", "numbers", "store the items again with texts there."),
        ({"sizes": "m"}, "texts", "lists", "A filter cannot compare lists"),
        ({"sold": 1}, "numbers", "booleans", "Compare with booleans"),
    ):
        assert found(where) == set()
        why = gallery.explain_filter(where)
        assert f"compares with {compared}, but items hold {held} there" in why
        assert advice in why
    # Nothing passes, and the kinds are right: that is an answer.
    for where in (
        {"price": "7"},
        {"n": {"gt": 5}},
        {"brand": 3},
        {"n": {"exists": False}},
        {"price": {"ne": 5}},
    ):
        assert gallery.explain_filter(where) == ""
    assert found({"price": {"in": [5, "5"]}}) == {"a"}
    with pytest.raises(FilterError):
        gallery.explain_filter({"n": {"like": 1}})


def test_an_approximate_index_needs_something_to_learn_from(
    tmp_path: Path, cloud: Embedder
) -> None:
    with pytest.raises(ConfigError, match="at least 1000 items"):
        Gallery.create(tmp_path / "g", cloud, approximate_from=5)
