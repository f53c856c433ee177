"""Backups of a gallery that is in use, and what is made of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from samespace import Embedder, Gallery
from samespace.cli._root import root
from samespace.gallery import GivenVectors, backup_gallery, restore_gallery
from samespace_edge import GalleryDamagedError, GalleryError
from tests.sdk.conftest import MakeGallery
from tests.sdk.service_process import serving
from tests.sdk.test_gallery import vectors
from tests.sdk.test_gallery_durability import WRITER
from tests.sdk.test_service_life import Writers, all_there, stored


@pytest.fixture
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def store(tmp_path: Path, cloud: Embedder) -> Path:
    with Gallery.create(tmp_path / "shop", cloud) as gallery:
        ids = [f"i{i}" for i in range(300)]
        gallery.add(ids, vectors=vectors(300), model=cloud, payloads=[{"n": i} for i in range(300)])
    return tmp_path / "shop"


def test_a_restored_gallery_answers_as_the_one_that_was_saved(
    store: Path, tmp_path: Path, cloud: Embedder
) -> None:
    assert backup_gallery(store, tmp_path / "saved") == 300
    with Gallery.open(store) as gallery:
        before = gallery.search(vectors=vectors(5), model=cloud, k=7)
        gallery.delete([f"i{i}" for i in range(150)])
    assert restore_gallery(tmp_path / "saved", tmp_path / "back") == 300
    with Gallery.open(tmp_path / "back") as gallery:
        after = gallery.search(vectors=vectors(5), model=cloud, k=7)
        assert [[(h.id, h.score, h.payload) for h in q] for q in after] == [
            [(h.id, h.score, h.payload) for h in q] for q in before
        ]
        gallery.add(["new"], vectors=vectors(1), model=cloud)
        assert len(gallery) == 301
    with Gallery.open(tmp_path / "saved") as gallery:
        assert len(gallery) == 300


def test_a_backup_of_a_gallery_in_use_holds_whole_batches_and_all_that_was_acknowledged(
    store: Path, tmp_path: Path, bundles: dict[str, Path]
) -> None:
    program = [sys.executable, "-c", textwrap.dedent(WRITER)]
    command = [*program, str(store), str(bundles["cloud"]), "0"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        for turn in range(3):
            acknowledged = int(writer.stdout.readline())
            count = backup_gallery(store, tmp_path / f"saved{turn}")
            with Gallery.open(tmp_path / f"saved{turn}") as saved:
                assert f"w{acknowledged}-49" in saved
                assert count == len(saved) >= 300 + 50 * (acknowledged + 1)
                assert count % 50 == 0
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()


def test_a_backup_of_a_gallery_that_is_served_holds_all_that_was_answered(
    make_gallery: MakeGallery, tmp_path: Path, cloud: Embedder
) -> None:
    shop, acknowledged = make_gallery(tmp_path / "shop"), []
    with serving(shop, tmp_path / "log", "--rate", 0, "--workers", 2) as service:
        writers = Writers(service, cloud, "w")
        for turn in range(3):
            writers.wait_for(10 * (turn + 1))
            acknowledged.append(dict(writers.acknowledged))
            arguments = ["gallery", "backup", str(shop), str(tmp_path / f"saved{turn}")]
            result = CliRunner().invoke(root, arguments)
            assert result.exit_code == 0, result.output
        writers.stop()
        assert all(line["status"] == 200 for line in service.lines() if line["event"] == "request")
    for turn, ids in enumerate(acknowledged):
        all_there(stored(tmp_path / f"saved{turn}", list(ids)), ids)
    back = tmp_path / "back"
    assert restore_gallery(tmp_path / "saved2", back) >= len(acknowledged[2])
    with serving(back, tmp_path / "log2", "--rate", 0) as service:
        answer = service.ask("POST", "/v1/items/get", json={"ids": sorted(acknowledged[2])[:50]})
        assert answer.status_code == 200


def test_a_half_done_upgrade_goes_on_in_a_restored_gallery(
    store: Path, tmp_path: Path, bundles: dict[str, Path], certificate: Path
) -> None:
    new = Embedder(bundles["edge"])
    given = GivenVectors(new.identity, [f"i{i}" for i in range(300)], vectors(300, 7))
    with Gallery.open(store) as gallery:
        gallery.admit(certificate)
        gallery.upgrade.run(given, limit=100)
        backup_gallery(store, tmp_path / "saved")
        gallery.upgrade.rollback()
    restore_gallery(tmp_path / "saved", tmp_path / "back")
    with Gallery.open(tmp_path / "back") as gallery:
        status = gallery.upgrade.status()
        assert status is not None
        assert (status.done, status.kept, status.waiting) == (100, 100, 200)
        assert gallery.upgrade.run(given).done == 300
        assert gallery.upgrade.rollback() == 300


def test_nothing_is_overwritten_and_nothing_half_made_is_left(store: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with pytest.raises(GalleryError, match=r"already something at .*saved; name a new folder"):
        backup_gallery(store, tmp_path / "saved")
    with pytest.raises(GalleryError, match=r"no gallery at .*nowhere: it has no gallery\.db"):
        backup_gallery(tmp_path / "nowhere", tmp_path / "other")
    with pytest.raises(GalleryError, match=r"is no folder: a gallery in Milvus is copied by"):
        backup_gallery("milvus://127.0.0.1:19530/shop", tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["saved", "shop"]


def test_a_damaged_gallery_is_not_made_into_a_backup(store: Path, tmp_path: Path) -> None:
    database = store / "gallery.db"
    content = bytearray(database.read_bytes())
    place = content.rindex(np.float32(vectors(300)[7, 3]).tobytes())
    content[place] ^= 1
    database.write_bytes(content)
    with pytest.raises(GalleryDamagedError):
        backup_gallery(store, tmp_path / "saved")
    assert sorted(os.listdir(tmp_path)) == ["shop"]


def test_commands_save_and_restore(store: Path, tmp_path: Path) -> None:
    saved, back = str(tmp_path / "saved"), str(tmp_path / "back")
    for arguments in (["backup", str(store), saved], ["restore", saved, back]):
        result = CliRunner().invoke(root, ["gallery", *arguments])
        assert result.exit_code == 0, result.output
        assert "300 items" in result.output
