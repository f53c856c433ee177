"""What docs/operations.md says to do when something goes wrong, done to a real service."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from samespace import Embedder
from samespace.cli._root import root
from tests.sdk.conftest import MakeGallery
from tests.sdk.service_process import Running, ask, new_key, serving
from tests.sdk.test_gallery import vectors
from tests.sdk.test_service import ADD, SEARCH, body, maker, refused


@pytest.fixture(scope="module")
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


def add(service: Running, cloud: Embedder, first: int, count: int) -> httpx.Response:
    ids = [f"n{first + i}" for i in range(count)]
    sent = body(ids, vectors(count, first))
    return service.ask("POST", ADD, params=maker(cloud), json=sent)


def search(service: Running, cloud: Embedder, seed: int) -> httpx.Response:
    sent = {"vectors": vectors(1, seed).tolist()}
    return service.ask("POST", SEARCH, params={**maker(cloud), "k": 1}, json=sent)


def command(*words: object) -> None:
    result = CliRunner().invoke(root, [str(w) for w in words])
    assert result.exit_code == 0, result.output


def test_a_full_disk_stops_adding_alone_and_it_goes_on_by_itself(
    make_gallery: MakeGallery, tmp_path: Path, cloud: Embedder
) -> None:
    shop = make_gallery(tmp_path / "shop")
    with serving(shop, tmp_path / "log", "--rate", 0) as service:
        assert add(service, cloud, 0, 50).status_code == 200
        process = psutil.Process(service.process.pid)
        most = sum(p.stat().st_size for p in shop.glob("gallery.db*")) // 2
        process.rlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        for first in range(100, 2100, 200):
            if (answer := add(service, cloud, first, 200)).status_code != 200:
                break
        refused(answer, 507, "gallery-storage", "Free space")
        assert search(service, cloud, 0).json()["results"][0][0]["id"] == "n0"
        ids = [f"n{first + i}" for i in range(200)]
        refused(service.ask("POST", "/v1/items/get", json={"ids": ids[:1]}), 404, "unknown-id")
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert add(service, cloud, first, 200).status_code == 200
        assert service.ask("POST", "/v1/items/get", json={"ids": ids}).status_code == 200
        text = service.ask("GET", "/metrics").text
    assert 'samespace_refusals_total{reason="gallery-storage"} 1.0' in text


def test_a_damaged_gallery_is_replaced_by_its_backup_and_the_keys_stay(
    make_gallery: MakeGallery, tmp_path: Path, cloud: Embedder
) -> None:
    shop = make_gallery(tmp_path / "shop")
    key = new_key(shop, "all", "read", "write")
    with serving(shop, tmp_path / "log", "--rate", 0, key=key) as service:
        assert add(service, cloud, 0, 50).status_code == 200
        command("gallery", "backup", shop, tmp_path / "saved")
    database = shop / "gallery.db"
    content = bytearray(database.read_bytes())
    content[content.rindex(np.float32(vectors(50, 0)[7, 3]).tobytes())] ^= 1
    database.write_bytes(content)
    with pytest.raises(AssertionError, match="is damaged"), serving(shop, tmp_path / "log"):
        pass
    shop.rename(tmp_path / "shop-damaged")
    command("gallery", "restore", tmp_path / "saved", shop)
    shutil.copy(tmp_path / "shop-damaged" / "service-keys.json", shop)
    with serving(shop, tmp_path / "log2", "--rate", 0, key=key) as service:
        assert search(service, cloud, 0).json()["results"][0][0]["id"] == "n0"
        refused(ask("GET", f"{service.url}/v1/stats"), 401, "no-key")
