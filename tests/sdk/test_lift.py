"""A gallery lifted into a new model's space, and the side information that helps it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samespace import Certificate, Dataset, Embedder, Gallery
from samespace.adapters import fit_adapter
from samespace.cli._root import run as samespace
from samespace.gallery import Pictures
from samespace.verification import verify
from samespace_edge import (
    Adapter,
    ConfigError,
    DimensionError,
    GalleryDamagedError,
    GalleryError,
    NotCertifiedError,
    UnknownIdError,
)
from samespace_export import adapt_bundle
from tests.sdk.test_gallery import vectors


@pytest.fixture(scope="module")
def old(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture(scope="module")
def new(bundles: dict[str, Path]) -> Embedder:
    """A model that knows nothing of the old one's space."""
    return Embedder(bundles["stranger"])


@pytest.fixture(scope="module")
def adapter(old: Embedder, new: Embedder, shop: Dataset) -> Adapter:
    pictures = [shop.read(i) for i in shop.train]
    fit = fit_adapter(
        old.embed(pictures), new.embed(pictures), source=old.bundle, target=new.bundle
    )
    return fit.adapter


@pytest.fixture(scope="module")
def certificate(
    adapter: Adapter,
    old: Embedder,
    new: Embedder,
    shop: Dataset,
    bundles: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Certificate:
    out = tmp_path_factory.mktemp("adapted") / "lifted.bundle"
    adapt_bundle(old.bundle, adapter, out, role="edge")
    report = verify([out], [new], shop, baseline=bundles["poor"])
    (found,) = report.certificates()
    return found


@pytest.fixture
def gallery(tmp_path: Path, old: Embedder, shop: Dataset) -> Any:
    items = shop.gallery
    with Gallery.create(tmp_path / "old", old) as made:
        payloads = [{"label": i.label} for i in items]
        pictures = [shop.read(i) for i in items]
        made.add([i.path for i in items], images=pictures, model=old, payloads=payloads)
        yield made


def test_lifted_items_are_found_by_the_new_model_and_can_be_embedded_anew(
    gallery: Gallery,
    tmp_path: Path,
    adapter: Adapter,
    certificate: Certificate,
    new: Embedder,
    shop: Dataset,
) -> None:
    ids = [i.path for i in shop.gallery]
    lifted = gallery.lift(tmp_path / "new", adapter, anchor=new, certificate=certificate)
    with lifted:
        assert lifted.space == new.identity.fingerprint
        before = gallery.get(ids)
        for record, source in zip(lifted.get(ids), before, strict=True):
            assert np.allclose(record.vector, adapter.apply(source.vector[None])[0], atol=1e-6)
            assert record.model.fingerprint == adapter.fingerprint
            assert record.payload == source.payload
        queries = [shop.read(i) for i in shop.queries]
        result = lifted.search(images=queries, model=new, k=1)
        right = [
            r[0].payload["label"] == i.label for r, i in zip(result, shop.queries, strict=True)
        ]
        assert np.mean(right) > 0.6  # one label of eight: 0.125 by chance
        status = lifted.upgrade.run(Pictures(new, shop))
        assert (status.done, status.kept) == (len(ids), len(ids))
        assert np.allclose(
            [r.vector for r in lifted.get(ids)],
            new.embed([shop.read(i) for i in shop.gallery]),
            atol=1e-6,
        )
    assert {r.model for r in gallery.get(ids)} == {gallery.admitted[0]}


def test_what_does_not_go_together_is_refused_and_nothing_is_left_behind(
    gallery: Gallery,
    tmp_path: Path,
    adapter: Adapter,
    certificate: Certificate,
    old: Embedder,
    new: Embedder,
    shop: Dataset,
    bundles: dict[str, Path],
) -> None:
    back = fit_adapter(
        vectors(60), vectors(60, seed=1), source=new.bundle, target=old.bundle
    ).adapter
    path = tmp_path / "new"
    with pytest.raises(ConfigError, match=r"holds vectors of cloud .* lifts those of model"):
        gallery.lift(path, back, anchor=old, certificate=certificate)
    with pytest.raises(ConfigError, match="anchors another one"):
        gallery.lift(path, adapter, anchor=old, certificate=certificate)
    other = verify([bundles["edge"]], [old], shop, baseline=bundles["poor"]).certificates()[0]
    with pytest.raises(NotCertifiedError, match=r"old model followed by this adapter.*verify"):
        gallery.lift(path, adapter, anchor=new, certificate=other)
    path.mkdir()
    with pytest.raises(GalleryError, match="already something"):
        gallery.lift(path, adapter, anchor=new, certificate=certificate)
    path.rmdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old"]


def test_side_information_is_kept_with_its_picture(
    gallery: Gallery, old: Embedder, new: Embedder, shop: Dataset
) -> None:
    ids = [i.path for i in shop.gallery]
    with pytest.raises(UnknownIdError, match="no side information"):
        gallery.side(ids[:1])
    pictures = [shop.read(i) for i in shop.gallery]
    gallery.keep_side(ids, images=pictures, model=new)
    assert np.allclose(gallery.side(ids[::-1]), new.embed(pictures)[::-1], atol=1e-6)
    assert gallery._store.meta("schema") == 3
    gallery.update(ids[0], payload={"label": "same picture"})
    assert gallery.side(ids[:1]).shape == (1, new.dim)
    gallery.update(ids[1], image=pictures[0], model=old)
    gallery.delete(ids[2:3])
    for gone in ids[1:3]:
        with pytest.raises(UnknownIdError, match="no side information"):
            gallery.side([gone])
    with pytest.raises(ConfigError, match=r"made by stranger .*, not by cloud"):
        gallery.keep_side(ids[:1], images=pictures[:1], model=old)
    with pytest.raises(UnknownIdError, match="does not have the id 'nobody'"):
        gallery.keep_side(["nobody"], images=pictures[:1], model=new)
    with pytest.raises(DimensionError, match=r"\(1, 24\), not \(1, 7\)"):
        gallery.keep_side(ids[:1], vectors=np.zeros((1, 7), np.float32), model=new)
    with pytest.raises(ConfigError, match="NaN"):
        gallery.keep_side(ids[:1], vectors=np.full((1, 24), np.nan, np.float32), model=new)
    path = gallery.path
    gallery.close()
    with sqlite3.connect(path / "gallery.db") as db:
        db.execute("UPDATE side SET vector = zeroblob(96)")
    db.close()
    with Gallery.open(path) as opened, pytest.raises(GalleryDamagedError, match="was changed"):
        opened.side(ids[:1])


def test_an_adapter_with_side_information_takes_what_was_kept(
    gallery: Gallery, tmp_path: Path, old: Embedder, new: Embedder, certificate: Certificate
) -> None:
    from samespace.gallery._lift import _fill

    records = gallery.get([h.id for h in gallery.search(vectors=vectors(1), model=old, k=99)[0]])
    ids = [r.id for r in records]
    side = vectors(len(ids), seed=5)
    gallery.keep_side(ids, vectors=side, model=new)
    pairs = vectors(200, seed=6), vectors(200, seed=7), vectors(200, seed=8)
    adapter = fit_adapter(
        pairs[0], pairs[1], source=old.bundle, target=new.bundle, side=pairs[2]
    ).adapter
    with Gallery.create(tmp_path / "new", new) as lifted:
        lifted.admit(certificate)
        assert _fill(gallery, lifted, adapter, certificate.query, lambda *_: None) == len(ids)
        expected = adapter.apply(np.array([r.vector for r in records]), side)
        assert np.allclose([r.vector for r in lifted.get(ids)], expected, atol=1e-6)


def test_the_command_line_lifts(
    gallery: Gallery,
    tmp_path: Path,
    adapter: Adapter,
    certificate: Certificate,
    bundles: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter.write(tmp_path / "old-new.adapter")
    certificate.write(tmp_path / "lifted.json")
    what = ["--adapter", str(tmp_path / "old-new.adapter"), "--anchor", str(bundles["stranger"])]
    out = str(tmp_path / "new")
    proof = ["--certificate", str(tmp_path / "lifted.json")]
    assert samespace(["upgrade", "lift", str(gallery.path), out, *what, *proof]) == 0
    assert "16 items lifted" in capsys.readouterr().out
    assert samespace(["gallery", "stats", out]) == 0
    assert "16" in capsys.readouterr().out
