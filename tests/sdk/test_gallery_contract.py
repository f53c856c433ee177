"""What a gallery promises, wherever it is kept: one suite over a folder and over a real Milvus.

'make test' runs it over folders, 'make test-milvus' over both.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samespace import Embedder, Gallery
from samespace.gallery import GivenVectors, UpgradeOrder
from samespace_edge import (
    ConfigError,
    DimensionError,
    DuplicateIdError,
    FilterError,
    GalleryBusyError,
    GalleryError,
    GalleryStorageError,
    InvalidVectorError,
    NotCertifiedError,
    UnknownIdError,
)
from tests.sdk.store_scene import (
    DIM,
    STORES,
    UPGRADER,
    WRITER,
    Embedded,
    Milvus,
    Store,
    grouped,
    process,
    vectors,
)

N = 60
NAMES = [f"i{i}" for i in range(N)]
OLD, NEW = vectors(N), vectors(N, seed=1)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store
    if request.param == "milvus":
        made = Milvus(tmp_path, request.getfixturevalue("milvus"))
    else:
        made = Embedded(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def old(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture(scope="module")
def new(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["edge"])


@pytest.fixture
def place(store: Store, old: Embedder, certificate: Path) -> str | Path:
    """Of 60 items by the old model; the new one is admitted."""
    where = store.place()
    with Gallery.create(where, old, name="shop", approximate_from=1000) as made:
        made.admit(certificate)
        payloads = [{"label": f"l{i % 6}", "views": i} for i in range(N)]
        made.add(NAMES, vectors=OLD, model=old, payloads=payloads)
    return where


@pytest.fixture
def gallery(place: str | Path) -> Iterator[Gallery]:
    with Gallery.open(place) as opened:
        yield opened


def empty(store: Store, model: Embedder) -> Gallery:
    return Gallery.create(store.place(), model, name="shop", approximate_from=1000)


# what it holds


def test_items_come_back_as_they_were_given(gallery: Gallery, old: Embedder) -> None:
    ids = [*"ab", "c d", 'say "é"', "it's", "back\\slash", "new\nline", "名前", "%_[]{}", "x" * 500]
    payloads: list[Any] = [
        None, {}, [], "text", 3, 2.5, True, {"samespace:value": 1}, {"名": {"前": ["é", None]}},
        {"long": 2**62, "small": -1e-30, "text": 'a"b\\c\nd', "key with space": {"in.ner": 1}},
    ]  # fmt: skip
    x = vectors(len(ids), seed=3)
    gallery.add(ids, vectors=x, model=old, payloads=payloads)
    for record, id_, vector, payload in zip(gallery.get(ids), ids, x, payloads, strict=True):
        assert record.id == id_
        assert record.vector.tobytes() == vector.tobytes()
        assert (record.payload, type(record.payload)) == (payload, type(payload))
        assert record.model == old.identity
        assert id_ in gallery
    hits = gallery.search(vectors=x, model=old, k=1)
    assert [row[0].id for row in hits] == ids
    assert [row[0].payload for row in hits] == payloads
    assert np.allclose(hits.scores, 1, atol=1e-6)
    gallery.delete(ids)
    assert len(gallery) == N
    assert not any(id_ in gallery for id_ in ids)


def test_ids_are_there_once(gallery: Gallery, old: Embedder) -> None:
    with pytest.raises(DuplicateIdError, match="'twice' more than once"):
        gallery.add(["twice", "twice"], vectors=vectors(2), model=old)
    with pytest.raises(DuplicateIdError, match=r"already has the ids 'i3', 'i7'.*replace=True"):
        gallery.add(["n1", "i3", "i7"], vectors=vectors(3), model=old)
    assert "n1" not in gallery
    gallery.add(["late"], vectors=NEW[:1], model=old)
    with pytest.raises(DuplicateIdError, match="the id 'late'"):
        gallery.add(["late"], vectors=NEW[:1], model=old)
    for _ in range(2):
        gallery.add(["n1", "i3"], vectors=NEW[1:3], model=old, payloads=["p", None], replace=True)
    assert len(gallery) == N + 2
    assert [r.payload for r in gallery.get(["n1", "i3"])] == ["p", None]
    found = gallery.search(vectors=NEW[2:3], model=old, k=2 * N).ids[0]
    assert found[0] == "i3"
    assert sorted(found) == sorted([*NAMES, "n1", "late"])


def test_items_change_and_go(gallery: Gallery, old: Embedder, new: Embedder) -> None:
    gallery.update("i5", payload={"n": 500})
    gallery.update("i6", vector=NEW[6], model=new)
    gallery.update("i7", vector=NEW[7], model=old, payload=None)
    five, six, seven = gallery.get(["i5", "i6", "i7"])
    assert (five.payload, five.vector.tobytes()) == ({"n": 500}, OLD[5].tobytes())
    assert (six.payload, six.model) == ({"label": "l0", "views": 6}, new.identity)
    assert (seven.payload, seven.vector.tobytes()) == (None, NEW[7].tobytes())
    gallery.delete(["i0", "i1"])
    with pytest.raises(UnknownIdError, match="the ids 'i1', 'zz'"):
        gallery.delete(["i2", "i1", "zz"])
    for what in (lambda: gallery.get(["i0"]), lambda: gallery.update("i0", payload=1)):
        with pytest.raises(UnknownIdError, match="'i0'"):
            what()
    for exact in (False, True):
        found = gallery.search(vectors=OLD[:2], model=old, k=N, exact=exact)
        assert all(sorted(row) == sorted(NAMES[2:]) for row in found.ids)
    assert (len(gallery), gallery.stats().items) == (N - 2, N - 2)
    gallery.add(["i0"], vectors=OLD[:1], model=old)
    assert gallery.search(vectors=OLD[:1], model=old, k=1).ids == [["i0"]]


def test_what_it_cannot_take_is_refused_before_anything_is_stored(
    gallery: Gallery, old: Embedder
) -> None:
    bad = vectors(2)
    bad[1, 3] = np.nan
    for ids, x, error in (
        (["a"], vectors(1, dim=DIM - 1), DimensionError),
        (["a", "b"], bad, InvalidVectorError),
        (["a", "b"], vectors(2) * [[1], [0]], InvalidVectorError),
        (["a", "b"], vectors(3), ConfigError),
        (["a", ""], vectors(2), ConfigError),
        (["a", "\ud800"], vectors(2), ConfigError),
    ):
        with pytest.raises(error):
            gallery.add(ids, vectors=x, model=old)
    with pytest.raises(ConfigError):
        gallery.add(["a"], vectors=vectors(1), model=old, payloads=[{1, 2}])
    assert (len(gallery), "a" in gallery) == (N, False)


# whom it admits


def test_models_without_certificate_are_refused(
    store: Store, old: Embedder, new: Embedder, bundles: dict[str, Path], certificate: Path
) -> None:
    stranger = Embedder(bundles["stranger"])
    with pytest.raises(NotCertifiedError, match="create the gallery with the bundle of that"):
        Gallery.create(store.place(), new)
    where = store.place()
    with Gallery.create(where, old, name="shop") as gallery, Gallery.open(where) as other:
        gallery.add(["i0"], vectors=OLD[:1], model=old)
        for model, why in ((new, "no certificate proves it"), (stranger, "create a new gallery")):
            with pytest.raises(NotCertifiedError, match=why):
                gallery.add(["x"], vectors=vectors(1), model=model)
            with pytest.raises(NotCertifiedError, match=why):
                gallery.update("i0", vector=OLD[0], model=model)
            with pytest.raises(NotCertifiedError, match=why):
                gallery.search(vectors=OLD[:1], model=model)
        assert gallery.admit(certificate) == new.identity
        other.add(["i1"], vectors=NEW[:1], model=new)  # it learns of the certificate by itself
        assert other.admitted == (old.identity, new.identity)
        assert {m.name: n for m, n in other.stats().by_model.items()} == {"cloud": 1, "edge": 1}
        assert [bool(c) for c in other.certificates().values()] == [False, True]
        hits = gallery.search(vectors=NEW[:1], model=new, k=2)[0]
        assert [r.model.name for r in gallery.get([h.id for h in hits])] == ["edge", "cloud"]


# what it finds

SHARES = {70.0: 14_000, 5.0: 1_000, 0.5: 100}


def test_filters_cost_no_recall(store: Store, old: Embedder) -> None:
    count, queries = 20_000, grouped(100, seed=5)
    x = grouped(count)
    rank = np.random.default_rng(6).permutation(count)
    with empty(store, old) as gallery:
        for start in range(0, count, 5000):
            part = range(start, start + 5000)
            payloads = [{"rank": int(rank[i])} for i in part]
            gallery.add([f"i{i}" for i in part], vectors=x[part], model=old, payloads=payloads)
        store.settle(gallery)
        scores = queries @ x.T
        for share, kept in {100.0: count, **SHARES}.items():
            passing = np.flatnonzero(rank < kept)
            order = np.argsort(-scores[:, passing], axis=1)[:, :10]
            expected = [{f"i{i}" for i in passing[row]} for row in order]
            where = {"rank": {"lt": kept}} if kept < count else None
            found = gallery.search(vectors=queries, model=old, k=10, where=where)
            assert found.scores.shape == (100, 10)
            recall = np.mean(
                [len(e & set(f)) / 10 for e, f in zip(expected, found.ids, strict=True)]
            )
            assert recall >= (1.0 if share < 1 else 0.97), (share, recall)
            exact = gallery.search(vectors=queries[:5], model=old, k=10, where=where, exact=True)
            assert [set(row) for row in exact.ids] == expected[:5]
        assert gallery.search(vectors=queries[:2], model=old, k=200, where=where).scores.shape == (
            2,
            100,
        )


CONDITIONS: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({"views": 7}, lambda i: i == 7),
    ({"views": {"lt": 3}}, lambda i: i < 3),
    ({"views": {"ge": 46, "ne": 48}}, lambda i: i >= 46 and i != 48),
    ({"views": {"in": [1, 4.0, 400, "7", True]}}, lambda i: i in (1, 4)),
    ({"views": {"in": []}}, lambda i: False),
    ({"label": "l2", "views": {"le": 20}}, lambda i: i % 6 == 2 and i <= 20),
    ({"label": {"in": ["l1", "l5"]}}, lambda i: i % 6 in (1, 5)),
    ({"label": {"gt": "l3"}}, lambda i: i % 6 > 3),
    ({"label": 3}, lambda i: False),
    ({"odd": True}, lambda i: i % 2 == 1 and i < 30),
    ({"odd": {"ne": True}}, lambda i: i % 2 == 0 and i < 30),
    ({"odd": {"exists": False}}, lambda i: i >= 30),
    ({"odd": {"exists": True}, "views": {"gt": 25.5}}, lambda i: 25.5 < i < 30),
    ({"maker.land": "SE"}, lambda i: i % 3 == 0),
    ({"maker.größe": {"ge": 2}}, lambda i: i >= 20),
    ({"maker.land": 'a"b\\c'}, lambda i: i % 3 == 1),
    ({"absent": "x"}, lambda i: False),
    ({"views.deeper": {"exists": True}}, lambda i: False),
    ({"n') OR 1=1 --": 1}, lambda i: False),
    ({"label": '" or 1 == 1 or payload["label"] == "'}, lambda i: False),
]


def test_filters_mean_the_same(gallery: Gallery, old: Embedder) -> None:
    land = ["SE", 'a"b\\c', None]
    payloads: list[Any] = [
        {
            "views": i,
            "label": f"l{i % 6}",
            **({"odd": bool(i % 2)} if i < 30 else {}),
            "maker": {"land": land[i % 3], "größe": i / 10},
        }
        for i in range(N)
    ]
    gallery.add(NAMES, vectors=OLD, model=old, payloads=payloads, replace=True)
    gallery.add(["none", "list"], vectors=NEW[:2], model=old, payloads=[None, [1, 2]])
    for where, meant in CONDITIONS:
        expected = {f"i{i}" for i in range(N) if meant(i)}
        if where == {"odd": {"exists": False}}:
            expected |= {"none", "list"}
        found = gallery.search(vectors=OLD[:2], model=old, k=2 * N, where=where)
        assert [set(row) for row in found.ids] == [expected] * 2, where
    for wrong in ({}, {"n": {"like": 1}}, {"n": None}, {'a"b': 1}):
        with pytest.raises(FilterError):
            gallery.search(vectors=OLD[:1], model=old, where=wrong)


def test_how_many_it_finds(store: Store, old: Embedder) -> None:
    with empty(store, old) as gallery:
        nothing = gallery.search(vectors=vectors(3), model=old, k=5)
        assert (nothing.ids, nothing.scores.shape) == ([[], [], []], (3, 0))
        assert (len(gallery), gallery.sample(3)) == (0, [])
        gallery.add(NAMES, vectors=OLD, model=old, payloads=[{"v": i} for i in range(N)])
        found = gallery.search(vectors=vectors(1200, seed=9), model=old, k=10**5)
        assert found.scores.shape == (1200, N)
        assert (np.diff(found.scores, axis=1) <= 1e-6).all()
        assert gallery.search(vectors=OLD[:1], model=old, payloads=False).payloads is None
        sample = gallery.sample(10)
        assert 1 <= len({r.id for r in sample}) == len(sample) <= 10
        for wrong in ({"k": 0}, {"probes": 0}, {"corrected": True}):
            with pytest.raises((ConfigError, GalleryError)):
                gallery.search(vectors=OLD[:1], model=old, **wrong)  # type: ignore[arg-type]


def test_everything_can_be_taken_out(gallery: Gallery, tmp_path: Path) -> None:
    gallery.delete(["i0"])
    assert gallery.export(tmp_path / "all.npz") == N - 1
    with np.load(tmp_path / "all.npz") as held:
        ends = held["ids_ends"].tolist()
        text = held["ids"].tobytes().decode()
        names = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        assert sorted(names) == sorted(NAMES[1:])
        for name, vector in zip(names, held["vectors"], strict=True):
            assert vector.tobytes() == OLD[int(name[1:])].tobytes()


# who else is there


def test_places_are_told_apart(store: Store, place: str | Path, old: Embedder) -> None:
    with pytest.raises(GalleryError, match="no gallery at"):
        Gallery.open(store.place())
    with pytest.raises(GalleryError, match="already a gallery at"):
        Gallery.create(place, old)
    with Gallery.open(place, read_only=True) as gallery:
        assert len(gallery) == N
        for act in (
            lambda: gallery.add(["x"], vectors=vectors(1), model=old),
            lambda: gallery.update("i1", payload=1),
            lambda: gallery.delete(["i1"]),
            lambda: gallery.upgrade.rollback(),
        ):
            with pytest.raises(GalleryStorageError, match="read"):
                act()
        assert len(gallery) == N


def test_readers_and_a_writer_at_once(
    place: str | Path, old: Embedder, bundles: dict[str, Path]
) -> None:
    """Everything that was there all the while is found every time, and nothing twice."""
    wrong: list[object] = []
    rounds = [0, 0]
    stop = threading.Event()

    def read(who: int) -> None:
        with Gallery.open(place) as gallery:
            while not stop.is_set() or not rounds[who]:
                mine = {"views": {"lt": N}}
                found = gallery.search(vectors=OLD[:3], model=old, k=5 * N, where=mine).ids
                if [row[0] for row in found] != NAMES[:3]:
                    wrong.append(found)
                if any(sorted(row) != sorted(NAMES) for row in found):
                    wrong.append(found)
                every = gallery.search(vectors=OLD[:1], model=old, k=5000).ids[0]
                if len(set(every)) != len(every):
                    wrong.append(every)
                rounds[who] += 1

    threads = [threading.Thread(target=read, args=(who,)) for who in range(2)]
    with process(WRITER, place, bundles["cloud"], 0) as one:
        assert one.stdout
        for thread in threads:
            thread.start()
        done = [int(one.stdout.readline()) for _ in range(30)]
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert min(rounds) >= 1
    with Gallery.open(place) as gallery:
        assert len(gallery.get([f"w{batch}-49" for batch in done])) == 30


def test_two_writers_at_once(place: str | Path, bundles: dict[str, Path]) -> None:
    with (
        process(WRITER, place, bundles["cloud"], 0) as one,
        process(WRITER, place, bundles["cloud"], 1_000_000) as other,
    ):
        assert one.stdout
        assert other.stdout
        done = [[int(p.stdout.readline()) for _ in range(10)] for p in (one, other) if p.stdout]
    with Gallery.open(place) as gallery:
        wanted = [f"w{batch}-{i}" for batches in done for batch in batches for i in (0, 49)]
        assert len(gallery.get(wanted)) == 40


def test_acknowledged_writes_survive_kill_9(
    store: Store, place: str | Path, old: Embedder, bundles: dict[str, Path]
) -> None:
    """Of the writing process where the gallery is a folder, of the server where it is in one."""
    acknowledged: list[int] = []
    chance = random.Random(0)
    for round_ in range(2):
        with process(WRITER, place, bundles["cloud"], 1_000_000 * round_) as writer:
            assert writer.stdout
            acknowledged.append(int(writer.stdout.readline()))
            crash = threading.Timer(chance.uniform(0.3, 1.5), store.crash, (writer,))
            crash.start()
            said = [writer.stdout.readline() for _ in range(3)]
            crash.join()
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.readlines()
            acknowledged += [int(line) for line in said if line.endswith("\n")]
    with Gallery.open(place, busy_timeout=120) as gallery:
        wanted = [f"w{batch}-{i}" for batch in sorted(set(acknowledged)) for i in range(50)]
        records = gallery.get([*NAMES, *wanted])
        assert [r.vector.tobytes() for r in records[:N]] == [v.tobytes() for v in OLD]
        assert len(wanted) + N <= len(gallery) <= len(wanted) + N + 2 * 50
        hits = gallery.search(vectors=records[-1].vector[None], model=old, k=1)[0]
        assert hits[0].id == wanted[-1]
        gallery.add(["after"], vectors=vectors(1), model=old)


# from one model to the next


def given(new: Embedder, count: int = N) -> GivenVectors:
    return GivenVectors(new.identity, NAMES[:count], NEW[:count])


def state(gallery: Gallery) -> dict[str, Any]:
    return {r.id: (r.vector.tobytes(), r.model.name, r.payload) for r in gallery.get(NAMES)}


def by_views() -> UpgradeOrder:
    return UpgradeOrder("column", column="views")


def test_half_way_every_item_is_searched_once_by_the_one_vector_it_has(
    gallery: Gallery, old: Embedder, new: Embedder
) -> None:
    before = state(gallery)
    plan = gallery.upgrade.plan(given(new))
    assert (plan.certified, plan.items, plan.to_embed) == (True, N, N)
    assert state(gallery) == before
    status = gallery.upgrade.run(given(new), order=by_views(), limit=25, batch=10)
    assert (status.done, status.waiting, status.kept, status.state) == (25, 35, 25, "running")
    for model in (old, new):
        found = gallery.search(vectors=OLD[:1], model=model, k=10 * N).ids[0]
        assert sorted(found) == sorted(NAMES)
    for place, record in enumerate(gallery.get(NAMES)):
        mine = (NEW if place >= 35 else OLD)[place]
        assert record.vector.tobytes() == mine.tobytes()
        assert record.model.name == ("edge" if place >= 35 else "cloud")
    half = state(gallery)
    hits = gallery.search(vectors=NEW[40:41], model=new, k=1)[0]
    assert (hits[0].id, hits[0].payload) == ("i40", {"label": "l4", "views": 40})
    assert gallery.upgrade.rollback() == 25
    assert state(gallery) == before != half
    assert gallery.upgrade.status() is None


def test_an_upgrade_is_run_on_committed_and_taken_back(
    place: str | Path, gallery: Gallery, new: Embedder
) -> None:
    before = state(gallery)
    gallery.upgrade.run(given(new), limit=25)
    with pytest.raises(GalleryError, match=r"35 items .* not embedded again yet.*--partial"):
        gallery.upgrade.commit()
    with Gallery.open(place) as other:  # whoever comes goes on with it
        status = other.upgrade.run(given(new))
        assert (status.done, status.waiting, status.kept) == (N, 0, N)
        assert other.upgrade.commit().state == "committed"
    with pytest.raises(GalleryError, match="committed already"):
        gallery.upgrade.commit()
    with pytest.raises(GalleryError, match="is committed; discard its old vectors, or roll"):
        gallery.upgrade.run(given(new))
    assert {model for _, model, _ in state(gallery).values()} == {"edge"}
    assert gallery.upgrade.rollback() == N
    assert state(gallery) == before
    gallery.upgrade.run(given(new))
    gallery.upgrade.commit()
    assert gallery.upgrade.discard() == N
    assert gallery.upgrade.status() is None
    with pytest.raises(GalleryError, match="no upgrade of gallery 'shop' is under way"):
        gallery.upgrade.rollback()


def test_what_owners_do_meanwhile_is_never_undone(
    gallery: Gallery, old: Embedder, new: Embedder
) -> None:
    gallery.upgrade.run(given(new), order=by_views(), limit=30)  # i59 to i30
    gallery.delete(["i59", "i0"])
    gallery.update("i58", payload={"label": "mine"})
    gallery.update("i1", payload={"label": "mine too", "views": 1})
    own = vectors(3, seed=9)
    gallery.update("i57", vector=own[0], model=old)
    gallery.update("i56", vector=own[2], model=new)
    gallery.add(["late", "i59"], vectors=own[:2], model=old)
    table = np.concatenate([NEW, own[:1]])
    status = gallery.upgrade.run(GivenVectors(new.identity, [*NAMES, "late"], table))
    assert (status.items, status.done, status.waiting) == (N, N, 0)
    assert gallery.upgrade.rollback() == N - 1  # all but i56
    records = {r.id: r for r in gallery.get(["i57", "i56", "late", "i59", "i58", "i1"])}
    assert {i: r.model.name for i, r in records.items() if i != "i56"} == dict.fromkeys(
        ["i57", "late", "i59", "i58", "i1"], "cloud"
    )
    assert records["i56"].model.name == "edge"
    for id_, vector in (("i57", own[0]), ("i56", own[2]), ("late", own[0]), ("i59", own[1])):
        assert records[id_].vector.tobytes() == vector.tobytes(), id_
    assert records["i58"].payload == {"label": "mine"}
    assert records["i1"].payload == {"label": "mine too", "views": 1}
    assert "i0" not in gallery


def test_items_that_cannot_be_embedded_again_stay_and_are_listed(
    gallery: Gallery, new: Embedder
) -> None:
    status = gallery.upgrade.run(given(new, 50), batch=7)
    assert (status.done, status.waiting, list(status.unreadable)) == (50, 0, NAMES[50:])
    assert set(status.unreadable.values()) == {"no vector was given for it"}
    assert len(gallery.upgrade.run(given(new)).unreadable) == 10
    gallery.delete(["i50"])
    status = gallery.upgrade.run(given(new, 58), retry=True)
    assert list(status.unreadable) == ["i58", "i59"]
    assert gallery.upgrade.commit().state == "committed"
    assert gallery.upgrade.rollback() == 57


def test_an_upgrade_that_is_killed_goes_on(
    place: str | Path, new: Embedder, bundles: dict[str, Path], tmp_path: Path
) -> None:
    with Gallery.open(place) as gallery:
        before = state(gallery)
    np.savez(tmp_path / "new.npz", ids=np.array(NAMES), vectors=NEW)
    with process(UPGRADER, place, bundles["edge"], tmp_path / "new.npz") as one:
        assert one.stdout
        for _ in range(3):
            one.stdout.readline()
        with Gallery.open(place) as gallery, pytest.raises(GalleryBusyError, match="is upgrading"):
            gallery.upgrade.run(given(new))
    with Gallery.open(place) as gallery:
        status = gallery.upgrade.status()
        assert status is not None
        assert 10 <= status.done == status.kept < N
        names = {r.id for r in gallery.get(NAMES) if r.model.name == "edge"}
        after = state(gallery)
        assert all(after[i][0] == NEW[int(i[1:])].tobytes() for i in names)
        assert all(after[i] == before[i] for i in NAMES if i not in names)
        assert gallery.upgrade.run(given(new)).done == N
        assert gallery.upgrade.rollback() == N
        assert state(gallery) == before


def test_an_upgrade_to_a_model_without_certificate_is_refused(
    store: Store, old: Embedder, new: Embedder
) -> None:
    with empty(store, old) as gallery:
        gallery.add(NAMES, vectors=OLD, model=old)
        assert not gallery.upgrade.plan(given(new)).certified
        with pytest.raises(NotCertifiedError, match="no certificate proves it"):
            gallery.upgrade.run(given(new))
        assert gallery.upgrade.status() is None
        assert gallery.stats().by_model == {old.identity: N}
