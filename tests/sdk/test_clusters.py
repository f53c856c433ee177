"""Clusters of a gallery: what they are, and that their numbers stay."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

import samespace
from samespace import Gallery, ModelIdentity
from samespace.cli.cluster import cluster
from samespace.clusters import EXACT_UP_TO, Changes, cluster_gallery, read_clustering
from samespace.clusters._group import group
from samespace.clusters._match import changes_between, number_groups
from samespace.clusters._store import store
from samespace_edge import (
    ConfigError,
    Fingerprint,
    GalleryBusyError,
    GalleryDamagedError,
    GalleryError,
    GalleryStorageError,
)

DIM = 8
PRINT = Fingerprint("a" * 64)
MODEL = ModelIdentity("cloud", PRINT, "onnx-fp32", "b" * 64, PRINT, DIM)
SCHEMA = Path(samespace.__file__).parent / "schemas" / "clusters.schema.json"


def around(axis: int, count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (count, 8) near one axis: 0.01 from it by cosine, 1 from those of others."""
    x = 0.05 * np.random.default_rng([axis, seed]).standard_normal((count, DIM))
    x[:, axis] += 1
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    """Three groups: cups of 5, mugs of 4, jars of 3."""
    with Gallery.create(tmp_path / "shop", MODEL) as made:  # type: ignore[arg-type]
        for axis, (name, count) in enumerate((("cup", 5), ("mug", 4), ("jar", 3))):
            ids = [f"{name}{i}" for i in range(count)]
            made.add(ids, vectors=around(axis, count), model=MODEL)
        yield made


def names(clustering: samespace.clusters.Clustering) -> dict[int, set[str]]:
    """The kinds of items in every cluster."""
    return {n: {i.rstrip("0123456789") for i in items} for n, items in clustering.clusters.items()}


def move(gallery: Gallery, ids: list[str], vectors: np.ndarray) -> None:
    for id_, vector in zip(ids, vectors, strict=True):
        gallery.update(id_, vector=vector, model=MODEL)


def test_the_first_clustering_numbers_by_size_and_is_kept(gallery: Gallery) -> None:
    made = cluster_gallery(gallery)
    assert names(made) == {1: {"cup"}, 2: {"mug"}, 3: {"jar"}}
    assert made.clusters[1] == ["cup0", "cup1", "cup2", "cup3", "cup4"]
    assert made.changes is None
    assert (made.revision, made.next_number) == (1, 4)
    assert made.settings == {"distance": 0.3, "seed": 0}
    assert read_clustering(gallery) == made
    assert read_clustering(gallery.path) == made
    assert repr(made) == "Clustering('default', 12 items in 3 clusters, revision 1)"
    jsonschema.validate(
        json.loads((gallery.path / "clusters" / "default.json").read_text()),
        json.loads(SCHEMA.read_text()),
    )


def test_numbers_stay_when_items_are_added_renamed_and_removed(gallery: Gallery) -> None:
    first = cluster_gallery(gallery)
    gallery.add([f"jar{i}" for i in range(10, 30)], vectors=around(2, 20, seed=1), model=MODEL)
    gallery.add(["pan0", "pan1"], vectors=around(5, 2), model=MODEL)
    (record,) = gallery.get(["cup0"])
    gallery.delete(["cup0", "mug3"])
    gallery.add(["a-cup"], vectors=record.vector[None], model=MODEL)  # before all by name
    again = cluster_gallery(gallery)
    kinds = {1: {"cup", "a-cup"}, 2: {"mug"}, 3: {"jar"}, 4: {"pan"}}
    assert names(again) == kinds
    assert again.changes is not None
    assert (again.changes.added, again.changes.removed) == (23, 2)
    assert (again.changes.common, again.changes.kept) == (10, 1)
    assert (again.changes.new, again.changes.gone) == ((4,), ())
    assert again.changes.moved == again.changes.split == again.changes.merged == {}
    assert again.revision == 2
    assert first.assignments["jar0"] == again.assignments["jar29"] == 3


def test_numbers_stay_when_every_vector_is_another(gallery: Gallery) -> None:
    """A new model may turn the whole space; who lies with whom is what counts."""
    first = cluster_gallery(gallery)
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))
    records = gallery.get(list(first.assignments))
    move(gallery, [r.id for r in records], np.stack([r.vector for r in records]) @ turn)
    again = cluster_gallery(gallery)
    assert again.assignments == first.assignments
    assert again.changes == Changes(0, 0, 12, {}, (), (), {}, {})
    assert list(again.changes.sentences()) == [
        "100.0% of the 12 items that were there kept their cluster, 0 moved"
    ]


def test_the_order_in_which_items_came_does_not_matter(gallery: Gallery, tmp_path: Path) -> None:
    made = cluster_gallery(gallery)
    records = gallery.get(sorted(made.assignments, key=lambda i: i[::-1]))
    with Gallery.create(tmp_path / "other", MODEL) as other:  # type: ignore[arg-type]
        for record in records:
            other.add([record.id], vectors=record.vector[None], model=MODEL)
        assert cluster_gallery(other).assignments == made.assignments


def test_a_split_a_merger_and_numbers_that_are_never_given_again(gallery: Gallery) -> None:
    cluster_gallery(gallery)
    move(gallery, ["cup0", "cup1"], around(5, 2))
    move(gallery, ["jar0", "jar1", "jar2"], around(1, 3, seed=3))
    second = cluster_gallery(gallery)
    assert {i: second.assignments[i] for i in ("cup0", "cup4", "jar0", "mug0")} == {
        "cup0": 4,
        "cup4": 1,
        "jar0": 2,
        "mug0": 2,
    }
    found = second.changes
    assert found is not None
    assert found.split == {1: (1, 4)}
    assert found.merged == {2: (2, 3)}
    assert (found.new, found.gone) == ((4,), (3,))
    moved = {"cup0": (1, 4), "cup1": (1, 4), "jar0": (3, 2), "jar1": (3, 2), "jar2": (3, 2)}
    assert found.moved == moved
    assert found.kept == pytest.approx(7 / 12)
    assert list(found.sentences()) == [
        "58.3% of the 12 items that were there kept their cluster, 5 moved",
        "1 split into 1 and 4",
        "2 and 3 merged into 2",
        "new: 4",
        "gone: 3",
    ]
    gallery.delete(["cup0", "cup1"])  # and with them cluster 4
    gallery.add(["pan0"], vectors=around(6, 1), model=MODEL)
    third = cluster_gallery(gallery)
    assert third.assignments["pan0"] == 5
    assert third.changes is not None
    assert third.changes.gone == (4,)


def test_as_many_items_as_can_be_keep_their_number() -> None:
    """All ways of matching, tried out; scipy's solver finds what the best of them keeps."""
    from scipy.optimize import linear_sum_assignment

    for seed in range(20):
        rng = np.random.default_rng(seed)
        ids = [f"{i:02}" for i in range(60)]
        former = {i: int(n) for i, n in zip(ids[:50], rng.integers(1, 9, 50), strict=True)}
        groups = rng.integers(0, int(rng.integers(3, 14)), 60)
        numbers, following = number_groups(ids, groups, former, 9)
        kept = sum(numbers[i] == former[i] for i in former)
        overlap = np.zeros((9, 14))
        for i, g in zip(ids, groups, strict=True):
            if i in former:
                overlap[former[i], g] += 1
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        assert kept == overlap[rows, columns].sum()
        by_group = {(g, numbers[i]) for i, g in zip(ids, groups, strict=True)}
        assert len(by_group) == len(np.unique(groups)) == len(set(numbers.values()))
        assert following == 9 + len(set(numbers.values()) - set(former.values()))
        # What the groups are called changes nothing.
        renamed = rng.permutation(100)[groups]
        assert number_groups(ids, renamed, former, 9) == (numbers, following)


def test_ties_go_to_the_older_cluster_and_to_the_larger_group() -> None:
    ids = ["a", "b", "c", "d", "e"]
    merged, _ = number_groups(ids[:4], np.zeros(4, int), {"a": 8, "b": 8, "c": 2, "d": 2}, 9)
    assert set(merged.values()) == {2}
    halves, _ = number_groups(ids, np.array([0, 0, 1, 1, 1]), {"a": 3, "b": 3, "c": 3, "d": 3}, 9)
    assert [halves[i] for i in ids] == [9, 9, 3, 3, 3]
    # 60 of cluster 1 and 50 of 2 lie together, 40 of 1 elsewhere: by 2 and 1 more keep theirs.
    many = [f"{i:03}" for i in range(150)]
    former = {i: 1 if n < 100 else 2 for n, i in enumerate(many)}
    groups = np.array([0] * 60 + [1] * 40 + [0] * 50)
    numbers, _ = number_groups(many, groups, former, 3)
    assert (numbers["000"], numbers["060"], numbers["100"]) == (2, 1, 2)
    found = changes_between(former, numbers)
    assert len(found.moved) == 60
    assert found.split == {1: (1, 2)}
    assert found.merged == {2: (1, 2)}
    assert number_groups([], np.array([], int), {}, 7) == ({}, 7)


def test_settings_are_those_of_last_time_unless_told_otherwise(gallery: Gallery) -> None:
    two = cluster_gallery(gallery, count=2)
    assert len(two.clusters) == 2
    assert cluster_gallery(gallery).settings == {"count": 2, "seed": 0}
    each = cluster_gallery(gallery, distance=1e-6)
    assert len(each.clusters) == 12
    assert each.changes is not None
    assert each.changes.split
    assert cluster_gallery(gallery, name="other").settings == {"distance": 0.3, "seed": 0}
    assert cluster_gallery(gallery, distance=2).clusters.keys() == {1}
    assert {p.name for p in (gallery.path / "clusters").iterdir()} == {
        "default.json",
        "other.json",
    }


def test_a_dry_run_writes_nothing(gallery: Gallery) -> None:
    assert len(cluster_gallery(gallery, dry_run=True).clusters) == 3
    assert not (gallery.path / "clusters").exists()
    with pytest.raises(GalleryError, match="has no clustering 'default'; run 'samespace cluster'"):
        read_clustering(gallery)
    kept = cluster_gallery(gallery)
    gallery.delete(["cup0"])
    told = cluster_gallery(gallery, dry_run=True)
    assert told.changes is not None
    assert told.changes.removed == 1
    assert read_clustering(gallery) == kept


def test_galleries_of_no_item_and_of_one(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "few", MODEL) as few:  # type: ignore[arg-type]
        assert cluster_gallery(few).assignments == {}
        few.add(["one"], vectors=around(0, 1), model=MODEL)
        found = cluster_gallery(few)
        assert found.assignments == {"one": 1}
        assert found.changes is not None
        assert found.changes.kept is None


def test_more_items_than_all_pairs_can_be_compared_of() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    labels = np.arange(EXACT_UP_TO + 200) % 16
    x = (centres[labels] + 0.02 * rng.standard_normal((len(labels), 16))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for settings in ({"distance": 0.3, "count": None}, {"distance": None, "count": 16}):
        groups, method = group(x, seed=0, **settings)  # type: ignore[arg-type]
        assert method.startswith("k-means")
        if settings["distance"]:
            assert len(np.unique(groups)) == 16
        # A group is of one label.
        assert len({*zip(groups.tolist(), labels.tolist(), strict=True)}) == len(np.unique(groups))
        assert (group(x, seed=0, **settings)[0] == groups).all()  # type: ignore[arg-type]
    same = np.repeat(x[:3], 2000, axis=0)  # fewer different vectors than centres
    assert len(np.unique(group(same, distance=0.3, count=None, seed=0)[0])) == 3


def test_what_is_refused(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="not by both"):
        cluster_gallery(gallery, distance=0.3, count=2)
    for distance in (0, -1, 2.1, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and at most 2"):
            cluster_gallery(gallery, distance=distance)
    with pytest.raises(ConfigError, match="1 cluster or more"):
        cluster_gallery(gallery, count=0)
    with pytest.raises(ConfigError, match="12 items cannot be in 13 clusters"):
        cluster_gallery(gallery, count=13)
    for name in ("", "../x", ".hidden", "a/b"):
        with pytest.raises(ConfigError, match="named with letters"):
            cluster_gallery(gallery, name=name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r"samespace\[analysis\]"):
        cluster_gallery(gallery)


def test_a_damaged_file_is_reported_and_left(gallery: Gallery) -> None:
    cluster_gallery(gallery)
    path = gallery.path / "clusters" / "default.json"
    value = json.loads(path.read_text())
    for spoiled, why in (
        ({**value, "assignments": {**value["assignments"], "cup0": 2}}, "changed after"),
        ({**value, "schema": 2}, "its schema is 2, not 1"),
        ({"schema": 1}, "'name'"),
        ([], "list indices"),
    ):
        path.write_text(json.dumps(spoiled))
        with pytest.raises(GalleryDamagedError, match=why):
            cluster_gallery(gallery)
        assert json.loads(path.read_text()) == spoiled
    path.write_text("{")
    with pytest.raises(GalleryDamagedError, match="Take it from a backup, or remove it"):
        read_clustering(gallery)


def test_a_file_of_another_space_and_one_written_meanwhile(
    gallery: Gallery, tmp_path: Path
) -> None:
    mine = cluster_gallery(gallery)
    with pytest.raises(GalleryBusyError, match="written by another process meanwhile"):
        store(gallery, mine)
    other = Fingerprint("c" * 64)
    identity = ModelIdentity("other", other, "onnx-fp32", "b" * 64, other, DIM)
    with Gallery.create(tmp_path / "other", identity) as stranger:  # type: ignore[arg-type]
        (stranger.path / "clusters").mkdir()
        content = (gallery.path / "clusters" / "default.json").read_bytes()
        (stranger.path / "clusters" / "default.json").write_bytes(content)
        with pytest.raises(GalleryDamagedError, match="of a gallery of space aaaaaaaaaaaa…"):
            cluster_gallery(stranger)
        (stranger.path / "clusters" / "plain.json").mkdir()
        with pytest.raises(GalleryStorageError, match="cannot read"):
            cluster_gallery(stranger, name="plain")


def test_the_command(gallery: Gallery) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cluster, [str(gallery.path), *arguments], standalone_mode=False)
        assert done.exception is None, done.output
        return done.output

    text = run("--dry-run")
    assert "1\t5\tcup0, cup1, cup2, …" in text
    assert "12 items in 3 clusters (average linkage, distance 0.3)" in text
    assert text.endswith("nothing was written\n")
    assert "revision 1 of 'shelves'" in run("--count", "3", "--name", "shelves")
    run()
    gallery.delete(["jar0", "jar1", "jar2"])
    assert "0 items came, 3 went\n100.0% of the 9 items" in run("--dry-run")
    value = json.loads(run("--json"))
    assert value["written"]
    assert value["revision"] == 2
    assert value["clusters"]["2"] == ["mug0", "mug1", "mug2", "mug3"]
    assert value["changes"]["gone"] == [3]
    assert value["changes"]["kept"] == 1
