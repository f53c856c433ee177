"""From one model to the next in a gallery that goes on being searched."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samespace import Certificate, Dataset, Embedder, Gallery, ModelIdentity
from samespace.cli._root import run as samespace
from samespace.gallery import GivenVectors, Pictures, UpgradeOrder
from samespace.verification import verify, write_certificates
from samespace_edge import (
    ConfigError,
    DataError,
    Fingerprint,
    GalleryBusyError,
    GalleryDamagedError,
    GalleryError,
    GalleryStorageError,
    NotCertifiedError,
)
from tests.sdk.test_gallery import DIM, vectors

N = 60


@pytest.fixture(scope="module")
def certificate(
    bundles: dict[str, Path], shop: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    report = verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=bundles["poor"])
    written = write_certificates(report, tmp_path_factory.mktemp("certificates"))
    return next(iter(written.values()))


@pytest.fixture
def old(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def new(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["edge"])


@pytest.fixture
def gallery(tmp_path: Path, old: Embedder, certificate: Path) -> Any:
    """60 items by the old model; the new one is admitted."""
    with Gallery.create(tmp_path / "shop", old) as made:
        made.admit(certificate)
        payloads = [{"label": f"l{i % 6}", "views": i} for i in range(N)]
        made.add(NAMES, vectors=vectors(N), model=old, payloads=payloads)
        yield made


NAMES = [f"i{i}" for i in range(N)]
OLD, NEW = vectors(N), vectors(N, seed=1)


def given(new: Embedder, count: int = N) -> GivenVectors:
    return GivenVectors(new.identity, NAMES[:count], NEW[:count])


def searched(gallery: Gallery, model: Embedder) -> dict[str, int]:
    """How often each id is found by a search for everything."""
    result = gallery.search(vectors=OLD[:1], model=model, k=10 * N)
    found: dict[str, int] = {}
    for id_ in result.ids[0]:
        found[id_] = found.get(id_, 0) + 1
    return found


def made_by(gallery: Gallery) -> dict[str, str]:
    return {r.id: r.model.name for r in gallery.get(NAMES)}


def test_half_way_every_item_is_searched_once_by_the_one_vector_it_has(
    gallery: Gallery, old: Embedder, new: Embedder
) -> None:
    status = gallery.upgrade.run(given(new), limit=25, batch=10)
    assert (status.done, status.waiting, status.kept, status.state) == (25, 35, 25, "running")
    assert status.share == 25 / N
    for model in (old, new):
        assert searched(gallery, model) == dict.fromkeys(NAMES, 1)
    for record, before, after in zip(gallery.get(NAMES), OLD, NEW, strict=True):
        wanted = after if record.model.name == "edge" else before
        assert np.allclose(record.vector, wanted, atol=1e-6)
        hit = gallery.search(vectors=record.vector[None], model=new, k=1)[0][0]
        assert (hit.id, round(hit.score, 5)) == (record.id, 1.0)
        assert hit.payload == {"label": f"l{int(record.id[1:]) % 6}", "views": int(record.id[1:])}


def test_run_goes_on_and_commit_keeps_the_old_vectors_until_they_are_discarded(
    gallery: Gallery, new: Embedder
) -> None:
    upgrade = gallery.upgrade
    upgrade.run(given(new), limit=25)
    with pytest.raises(GalleryError, match=r"35 items .* not embedded again yet.*--partial"):
        upgrade.commit()
    status = upgrade.run(given(new))
    assert (status.done, status.waiting, status.kept) == (N, 0, N)
    assert upgrade.commit().state == "committed"
    with pytest.raises(GalleryError, match="committed already"):
        upgrade.commit()
    with pytest.raises(GalleryError, match="is committed; discard its old vectors, or roll"):
        upgrade.run(given(new))
    assert upgrade.discard() == N
    assert upgrade.status() is None
    assert set(made_by(gallery).values()) == {"edge"}
    with pytest.raises(GalleryError, match="no upgrade of gallery 'shop' is under way"):
        upgrade.rollback()


@pytest.mark.parametrize("committed", [False, True])
def test_rollback_restores_every_vector_bit_for_bit(
    gallery: Gallery, old: Embedder, new: Embedder, committed: bool
) -> None:
    before = {r.id: (r.vector.tobytes(), r.model, r.payload) for r in gallery.get(NAMES)}
    gallery.upgrade.run(given(new), limit=None if committed else 31)
    if committed:
        gallery.upgrade.commit()
    assert gallery.upgrade.rollback() == (N if committed else 31)
    assert {r.id: (r.vector.tobytes(), r.model, r.payload) for r in gallery.get(NAMES)} == before
    assert gallery.upgrade.status() is None
    assert searched(gallery, old) == dict.fromkeys(NAMES, 1)


def test_what_owners_do_meanwhile_is_never_undone(
    gallery: Gallery, old: Embedder, new: Embedder
) -> None:
    """Additions, deletions, payloads and vectors of their own, before and after their turn."""
    gallery.upgrade.run(given(new), order=by_views(), limit=30)  # i59 to i30
    gallery.delete(["i59", "i0"])
    gallery.update("i58", payload={"label": "mine"})
    gallery.update("i1", payload={"label": "mine too", "views": 1})
    own = vectors(2, seed=9)
    gallery.update("i57", vector=own[0], model=old)
    gallery.add(["late"], vectors=own[1:], model=old)
    late = GivenVectors(new.identity, [*NAMES, "late"], np.concatenate([NEW, own[1:]]))
    status = gallery.upgrade.run(late)
    # i57 was given a vector by the old model after its turn, so it had another turn.
    assert (status.items, status.done, status.waiting) == (N - 1, N - 1, 0)
    assert gallery.upgrade.rollback() == N - 1
    assert np.allclose(gallery.get(["i57"])[0].vector, own[0], atol=1e-6)
    assert gallery.get(["i58", "i1"])[0].payload == {"label": "mine"}
    assert np.allclose(gallery.get(["i58"])[0].vector, OLD[58], atol=1e-6)
    assert {r.model.name for r in gallery.get(["late", "i1", "i2", "i57", "i58"])} == {"cloud"}
    assert "i59" not in gallery
    assert "i0" not in gallery


def test_a_vector_that_its_owner_made_with_the_new_model_stays_after_a_rollback(
    gallery: Gallery, new: Embedder
) -> None:
    gallery.upgrade.run(given(new), limit=10, order=by_views())
    gallery.update("i59", vector=OLD[3], model=new)
    gallery.add(["fresh"], vectors=OLD[:1], model=new)
    assert gallery.upgrade.rollback() == 9
    records = gallery.get(["i59", "fresh", "i58"])
    assert [r.model.name for r in records] == ["edge", "edge", "cloud"]


def by_views() -> UpgradeOrder:
    return UpgradeOrder("column", column="views")


def test_the_order_is_the_users(gallery: Gallery, new: Embedder) -> None:
    gallery.upgrade.run(given(new), order=by_views(), limit=7)
    models = made_by(gallery)
    assert {n for n in NAMES if models[n] == "edge"} == {f"i{i}" for i in range(53, 60)}
    status = gallery.upgrade.status()
    assert status is not None
    assert status.order == "column"


@pytest.mark.parametrize("name", ["random", "uncertain", "farthest"])
def test_every_order_reaches_every_item(gallery: Gallery, new: Embedder, name: str) -> None:
    status = gallery.upgrade.run(given(new), order=UpgradeOrder(name), batch=7)
    assert (status.done, status.order) == (N, name)


def test_orders_that_cannot_be_are_refused(gallery: Gallery, new: Embedder) -> None:
    with pytest.raises(ConfigError, match="no order 'best'; choose one of: column, farthest"):
        UpgradeOrder("best")
    with pytest.raises(ConfigError, match="name both"):
        UpgradeOrder("column")
    with pytest.raises(ConfigError, match="item 'i0' has no number in the payload's field 'label'"):
        gallery.upgrade.run(given(new), order=UpgradeOrder("column", column="label"))
    assert gallery.upgrade.status() is None


def test_originals_that_are_gone_or_unreadable_stay_as_they_are_and_are_listed(
    tmp_path: Path, old: Embedder, new: Embedder, certificate: Path, shop_csv: Path
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(shop_csv.parent, photos)
    names = sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))[:12]
    with Gallery.create(tmp_path / "g", old) as gallery:
        gallery.admit(certificate)
        gallery.add(names, images=[photos / n for n in names], model=old)
        before = gallery.get(names[:2])
        (photos / names[0]).unlink()
        (photos / names[1]).write_bytes(b"not a picture")
        status = gallery.upgrade.run(Pictures(new, photos), batch=5)
        assert (status.done, status.waiting) == (10, 0)
        assert list(status.unreadable) == names[:2]
        assert status.unreadable[names[0]] == "its picture is gone"
        for one, other in zip(before, gallery.get(names[:2]), strict=True):
            assert (one.vector == other.vector).all()
            assert one.model == other.model
        expected = new.embed([photos / n for n in names[2:]])
        assert np.allclose([r.vector for r in gallery.get(names[2:])], expected, atol=1e-6)
        # They are not tried again until somebody asks for it.
        shutil.copy(shop_csv.parent / names[0], photos / names[0])
        assert len(gallery.upgrade.run(Pictures(new, photos)).unreadable) == 2
        status = gallery.upgrade.run(Pictures(new, photos), retry=True)
        assert list(status.unreadable) == names[1:2]
        assert gallery.upgrade.commit().state == "committed"


def test_a_dataset_or_a_function_says_where_pictures_are_and_processes_share_the_work(
    tmp_path: Path, old: Embedder, new: Embedder, certificate: Path, shop: Dataset
) -> None:
    items = shop.gallery
    names = [i.path for i in items]
    with Gallery.create(tmp_path / "g", old) as gallery:
        gallery.admit(certificate)
        gallery.add(names, images=[shop.read(i) for i in items], model=old)
        status = gallery.upgrade.run(Pictures(new, shop, workers=2), batch=8)
        assert status.done == len(names)
        expected = new.embed([shop.read(i) for i in items])
        assert np.allclose([r.vector for r in gallery.get(names)], expected, atol=1e-6)
        gallery.upgrade.rollback()
        found = {i.path: shop.read(i) for i in items}
        pictures = Pictures(new, lambda id_, payload: found.get(id_))
        assert gallery.upgrade.run(pictures).done == len(names)


def test_hub_corrections_follow_through_an_upgrade(
    gallery: Gallery, old: Embedder, new: Embedder
) -> None:
    bank = vectors(300, seed=4)
    gallery.correct_hubs(bank, model=new, k=5)
    plain = gallery.search(vectors=OLD[:5], model=new, k=N).corrected_scores
    gallery.upgrade.run(given(new), limit=20)
    result = gallery.search(vectors=OLD[:5], model=new, k=N)
    assert result.corrected_scores is not None
    now = {r.id: r.vector for r in gallery.get(NAMES)}
    from samespace.metrics import hub_bias

    for row, ids, scores in zip(OLD[:5], result.ids, result.corrected_scores, strict=True):
        table = np.array([now[i] for i in ids])
        assert np.allclose(table @ row + hub_bias(table, bank, 5), scores, atol=1e-5)
    gallery.upgrade.rollback()
    again = gallery.search(vectors=OLD[:5], model=new, k=N).corrected_scores
    assert np.allclose(np.sort(again), np.sort(plain), atol=1e-5)
    gallery.uncorrect_hubs(new)
    assert gallery._store.meta("schema") == 1


def test_only_certified_models_of_the_right_width_are_upgraded_to(
    gallery: Gallery, bundles: dict[str, Path], new: Embedder
) -> None:
    stranger = Embedder(bundles["stranger"]).identity
    with pytest.raises(NotCertifiedError, match="belongs to space"):
        gallery.upgrade.run(GivenVectors(stranger, NAMES, NEW))
    wide = replace(new.identity, dim=32)
    with pytest.raises(ConfigError, match=r"vectors of 32, gallery 'shop' holds 24"):
        gallery.upgrade.run(GivenVectors(wide, NAMES, vectors(N, dim=32)))
    gallery.upgrade.run(given(new), limit=1)
    anchor = Embedder(bundles["cloud"]).identity
    with pytest.raises(GalleryError, match=r"to edge .* is running; commit it or roll it back"):
        gallery.upgrade.run(GivenVectors(anchor, NAMES, NEW))


def test_a_plan_changes_nothing_and_says_what_was_measured(
    gallery: Gallery, new: Embedder, bundles: dict[str, Path]
) -> None:
    before = gallery._store.data_version()
    plan = gallery.upgrade.plan(given(new, 50), sample=20)
    assert plan.certified
    assert (plan.items, plan.to_embed, plan.sample) == (N, N, 20)
    assert plan.by_model == {gallery.admitted[0]: N, new.identity: 0}
    assert plan.kept_bytes > N * DIM * 4
    assert plan.criterion is not None
    assert plan.criterion["value"] > plan.criterion["reference_value"]
    assert set(plan.unreadable) == {n for n in NAMES[::3] if int(n[1:]) >= 50}
    assert plan.seconds == plan.to_embed * plan.seconds_per_item
    assert gallery._store.data_version() == before
    assert gallery.upgrade.status() is None
    stranger = Embedder(bundles["stranger"]).identity
    plan = gallery.upgrade.plan(GivenVectors(stranger, NAMES, NEW))
    assert not plan.certified
    assert plan.criterion is None


def test_other_processes_see_it_and_only_one_runs_it(
    gallery: Gallery, old: Embedder, new: Embedder
) -> None:
    with Gallery.open(gallery.path) as other:
        gallery.upgrade.run(given(new), limit=30)
        assert searched(other, old) == dict.fromkeys(NAMES, 1)
        status = other.upgrade.status()
        assert status is not None
        assert status.done == 30
        import fcntl

        with (gallery.path / "upgrade.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for act in (lambda: other.upgrade.run(given(new)), other.upgrade.rollback):
                with pytest.raises(GalleryBusyError, match="another process is upgrading"):
                    act()
        other.upgrade.run(given(new))
        assert searched(gallery, new) == dict.fromkeys(NAMES, 1)
        assert set(made_by(gallery).values()) == {"edge"}


def test_an_upgrade_that_was_ended_by_another_process_stops(
    gallery: Gallery, new: Embedder
) -> None:
    class Slow(GivenVectors):
        def make(self, items: Any) -> Any:
            with Gallery.open(gallery.path) as other:
                other.upgrade.commit(partial=True)
            return super().make(items)

    with pytest.raises(GalleryError, match="was ended meanwhile"):
        gallery.upgrade.run(Slow(new.identity, NAMES, NEW))
    assert set(made_by(gallery).values()) == {"cloud"}


def test_once_all_items_are_the_new_models_its_galleries_are_what_counts(
    gallery: Gallery, new: Embedder, certificate: Path
) -> None:
    measured = Certificate.read(certificate)
    later = replace(new.identity, name="edge of the new one", fingerprint=Fingerprint("5" * 64))
    proof = replace(measured, query=later, gallery=new.identity)
    gallery.upgrade.run(given(new), limit=30)
    with pytest.raises(NotCertifiedError, match="or against the one that made all of its items"):
        gallery.admit(proof)
    gallery.upgrade.run(given(new))
    assert gallery.admit(proof) == later
    assert len(gallery.search(vectors=OLD[:1], model=later, k=3)[0]) == 3


def test_a_vector_that_is_none_sets_its_item_aside(gallery: Gallery, new: Embedder) -> None:
    class Broken(GivenVectors):
        def make(self, items: Any) -> Any:
            return [np.full(DIM, np.nan, np.float32) if i == "i3" else v
                    for (i, _), v in zip(items, super().make(items), strict=True)]  # fmt: skip

    status = gallery.upgrade.run(Broken(new.identity, NAMES, NEW))
    assert list(status.unreadable) == ["i3"]
    assert "NaN" in status.unreadable["i3"]


def test_damaged_old_vectors_are_noticed_before_they_are_put_back(
    gallery: Gallery, new: Embedder, tmp_path: Path
) -> None:
    gallery.upgrade.run(given(new))
    gallery.close()
    with sqlite3.connect(gallery.path / "gallery.db") as db:
        db.execute("UPDATE previous SET vector = zeroblob(96) WHERE key = 61")
    db.close()
    with pytest.raises(GalleryDamagedError, match="old vector of item key 61 was changed"):
        Gallery.open(gallery.path)


def test_a_gallery_that_is_read_only_is_not_upgraded(gallery: Gallery, new: Embedder) -> None:
    gallery.close()
    with Gallery.open(gallery.path, read_only=True) as opened:
        for act in (lambda: opened.upgrade.run(given(new)), opened.upgrade.rollback):
            with pytest.raises(GalleryStorageError, match="read_only"):
                act()
        assert opened.upgrade.status() is None
        assert opened.upgrade.plan(given(new)).to_embed == N


def test_an_approximate_index_is_as_good_half_way(
    tmp_path: Path, old: Embedder, new: Embedder, certificate: Path
) -> None:
    """Both versions of 3,000 items, through the index that is built when an upgrade pauses."""
    before, after = vectors(3000), vectors(3000, seed=1)
    names = [f"i{i}" for i in range(3000)]
    with Gallery.create(tmp_path / "big", old, approximate_from=1000) as gallery:
        gallery.admit(certificate)
        gallery.add(names, vectors=before, model=old)
        assert gallery.stats().approximate
        given = GivenVectors(new.identity, names, after)
        gallery.upgrade.run(given, limit=1500, batch=500)
        assert len(gallery._live.index.delta) == 0
        now = {r.id: r.vector for r in gallery.get(names)}
        table = np.array([now[n] for n in names])
        queries = vectors(50, seed=3)
        result = gallery.search(vectors=queries, model=new, k=10, exact=True)
        best = np.argsort(-queries @ table.T, axis=1)[:, :10]
        assert [[names[j] for j in row] for row in best] == result.ids
        gallery.upgrade.rollback()
        result = gallery.search(vectors=before[:20], model=old, k=1, probes=64)
        assert [row[0] for row in result.ids] == names[:20]


def test_the_command_line_from_plan_to_discard(
    tmp_path: Path,
    bundles: dict[str, Path],
    certificate: Path,
    shop_csv: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shop, data = str(tmp_path / "g"), str(shop_csv)
    cloud, edge = str(bundles["cloud"]), str(bundles["edge"])

    def said(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert samespace(list(arguments)) == code
        return capsys.readouterr().out

    said("gallery", "create", shop, "--anchor", cloud)
    said("gallery", "add", shop, "--data", data, "--bundle", cloud)
    new = ("--bundle", edge, "--data", data)
    assert "does not accept this model yet" in said("upgrade", "plan", shop, *new, code=1)
    said("gallery", "admit", shop, str(certificate))
    told = said("upgrade", "plan", shop, *new, "--order", "farthest")
    assert "16, order farthest" in told
    assert "in the anchor's gallery, against" in told
    planned = json.loads(said("upgrade", "run", shop, *new, "--dry-run", "--json"))
    assert planned["to_embed"] == 16
    assert "no upgrade" in said("upgrade", "status", shop)
    status = json.loads(said("upgrade", "run", shop, *new, "--limit", "6", "--json"))
    assert (status["done"], status["waiting"], status["share"]) == (6, 10, 6 / 16)
    assert "6 of 16 items, 37.5%" in said("upgrade", "status", shop)
    said("upgrade", "commit", shop, code=3)
    said("upgrade", "run", shop, *new)
    assert "committed" in said("upgrade", "commit", shop)
    assert json.loads(said("upgrade", "rollback", shop, "--json")) == {"restored": 16}
    said("gallery", "export", shop, str(tmp_path / "all.npz"))
    vectors_of = ("--bundle", edge, "--vectors", str(tmp_path / "all.npz"))
    said("upgrade", "run", shop, *vectors_of)
    said("upgrade", "commit", shop)
    assert "16 old vectors" in said("upgrade", "discard", shop)
    said("upgrade", "run", shop, "--bundle", edge, code=2)


def test_a_file_of_vectors_that_is_something_else_is_named(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    from samespace.gallery._export import read_export

    with Gallery.create(tmp_path / "empty", bundles["cloud"]) as gallery:
        gallery.export(tmp_path / "empty.npz")
    ids, table = read_export(tmp_path / "empty.npz")
    assert (ids, table.shape) == ([], (0, DIM))
    np.savez(tmp_path / "x.npz", vectors=OLD)
    with pytest.raises(DataError, match=r"x\.npz is no file of 'samespace gallery export'"):
        read_export(tmp_path / "x.npz")
    with pytest.raises(ConfigError, match="no folder"):
        Pictures(Embedder.__new__(Embedder), tmp_path / "nowhere")


def test_the_models_identity_decides_not_its_name(gallery: Gallery, new: Embedder) -> None:
    renamed: ModelIdentity = replace(new.identity, name="renamed")
    gallery.upgrade.run(GivenVectors(renamed, NAMES, NEW), limit=5)
    status = gallery.upgrade.run(given(new))
    assert status.done == N
    assert os.path.exists(gallery.path / "upgrade.lock")
