"""Backfill through a pool that is ahead of the gallery: each item once, whatever comes between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from samespace import Embedder, Gallery
from samespace.cli._root import root
from samespace.indexing import PooledPictures, index_pictures, noted_sources
from samespace_edge import ConfigError
from tests.patience import until
from tests.sdk.indexing_scene import holds_exactly, make_manifest

COUNT = 40


@pytest.fixture
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def new(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["edge"])


@pytest.fixture
def gallery(cloud: Embedder, certificate: Path, tmp_path: Path) -> Iterator[Gallery]:
    """Of indexed pictures, whose ids are not their paths; the edge model is admitted."""
    manifest = make_manifest(tmp_path / "shop", COUNT)
    with Gallery.create(tmp_path / "gallery", cloud) as made:
        made.admit(certificate)
        index_pictures(manifest, made, cloud, workers=0)
        yield made


def made_by(gallery: Gallery, numbers: range) -> list[str]:
    return [r.model.name for r in gallery.get([f"item-{n}" for n in numbers])]


def test_pictures_are_found_by_what_was_noted_when_they_were_indexed(
    gallery: Gallery, new: Embedder, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    (folder / "photos" / "00007.png").rename(folder / "gone.png")
    told: list[int] = []
    originals = PooledPictures(new, noted_sources(str(folder)), workers=2)
    status = gallery.upgrade.run(originals, batch=3, progress=lambda _, done, __: told.append(done))
    assert (status.done, status.waiting) == (COUNT - 1, 0)
    assert "there is no file" in status.unreadable["item-7"]
    assert told[-1] == COUNT
    assert told == sorted(told)
    assert made_by(gallery, range(7, 8)) == ["cloud"]
    (folder / "gone.png").rename(folder / "photos" / "00007.png")
    assert gallery.upgrade.run(originals, retry=True).done == COUNT
    holds_exactly(gallery, folder, range(COUNT), new)
    assert gallery.upgrade.rollback() == COUNT
    assert set(made_by(gallery, range(COUNT))) == {"cloud"}


def test_an_item_of_no_manifest_has_no_picture(
    gallery: Gallery, cloud: Embedder, new: Embedder, tmp_path: Path
) -> None:
    gallery.add(["by hand"], vectors=np.eye(cloud.dim)[:1], model=cloud, payloads=[{"a": 1}])
    originals = PooledPictures(new, noted_sources(str(tmp_path / "shop")))
    assert gallery.upgrade.run(originals).unreadable == {"by hand": "its picture is gone"}


def test_a_canary_is_no_larger_than_it_was_asked_to_be(
    gallery: Gallery, new: Embedder, tmp_path: Path
) -> None:
    originals = PooledPictures(new, noted_sources(str(tmp_path / "shop")), workers=2)
    for done in (7, 14):
        assert gallery.upgrade.run(originals, limit=7, batch=2).done == done
    assert gallery.upgrade.run(originals, limit=0).done == 14


def test_what_comes_and_goes_while_batches_are_under_way(
    gallery: Gallery, cloud: Embedder, new: Embedder, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    own = cloud.embed([folder / "photos" / "00039.png"])
    first = True

    def between(stage: str, done: int, total: int) -> None:
        nonlocal first
        if done and first:
            first = False
            payload = gallery.get(["item-0"])[0].payload
            gallery.delete(["item-39", "item-38"])
            gallery.add(["late"], vectors=own, model=cloud, payloads=[payload])

    originals = PooledPictures(new, noted_sources(str(folder)), workers=2)
    status = gallery.upgrade.run(originals, batch=2, progress=between)
    assert (status.items, status.done, status.unreadable) == (COUNT - 1, COUNT - 1, {})
    assert "item-39" not in gallery
    vector = gallery.get(["late"])[0].vector
    assert np.abs(vector - new.embed([folder / "photos" / "00000.png"])[0]).max() < 1e-5


def test_urls_are_read_when_it_is_planned_too(
    gallery: Gallery, new: Embedder, tmp_path: Path
) -> None:
    plan = gallery.upgrade.plan(PooledPictures(new, noted_sources(f"file://{tmp_path}/shop")))
    assert plan.unreadable == {}
    assert plan.sample == 32
    with pytest.raises(ConfigError, match="say ray=True"):
        gallery.upgrade.run(PooledPictures(new, noted_sources("x"), ray_address="auto"))


def test_killed_the_same_command_goes_on(
    gallery: Gallery, bundles: dict[str, Path], tmp_path: Path
) -> None:
    gallery.close()
    where = [str(tmp_path / "gallery"), "--bundle", str(bundles["edge"]), "--batch", "1"]
    words = ["upgrade", "run", *where, "--sources", str(tmp_path / "shop"), "--workers", "2"]
    code = "from samespace.cli import main; main()"
    command = [sys.executable, "-c", code, *words, "--json"]
    # A pipe that nobody writes to: there the run waits for its end, and does not come to its own.
    held = tmp_path / "shop" / "photos" / "00009.png"
    held.rename(tmp_path / "aside.png")
    os.mkfifo(held)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        with Gallery.open(tmp_path / "gallery") as watched:

            def is_under_way() -> bool:
                found = watched.upgrade.status()
                return found is not None and found.done >= 3

            until(lambda: process.poll() is not None or is_under_way())
            assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL
    os.close(os.open(held, os.O_RDWR))  # whoever waits for it goes on
    (tmp_path / "aside.png").rename(held)
    with Gallery.open(tmp_path / "gallery") as opened:
        status = opened.upgrade.status()
        assert status is not None
        assert 3 <= status.done < COUNT
    done = CliRunner().invoke(root, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["done"] == COUNT
    with Gallery.open(tmp_path / "gallery") as opened:
        holds_exactly(opened, tmp_path / "shop", range(COUNT), Embedder(bundles["edge"]))


def test_the_command_asks_for_one_place_of_the_pictures(tmp_path: Path) -> None:
    words = ["upgrade", "run", "g", "--bundle", "b", "--sources", "x", "--images", "y"]
    result = CliRunner().invoke(root, words)
    assert result.exit_code == 2
    assert "--sources" in result.output
