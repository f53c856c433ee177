"""A gallery with a certified device model, and a service over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from samespace import Dataset, Embedder, Gallery
from samespace.verification import verify, write_certificates
from tests.milvus_server import MilvusProcess
from tests.sdk.service_process import Running, new_key, serving
from tests.sdk.store_scene import wait_for_milvus

MakeGallery = Callable[[Path], Path]


@pytest.fixture(scope="session")
def certificate(
    bundles: dict[str, Path], shop: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of the edge model in the cloud model's galleries."""
    report = verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=bundles["poor"])
    folder = tmp_path_factory.mktemp("certificates")
    return next(iter(write_certificates(report, folder).values()))


@pytest.fixture(scope="session")
def make_gallery(bundles: dict[str, Path], shop: Dataset, certificate: Path) -> MakeGallery:
    """Makes a gallery of the shop's pictures at a path; the edge model is admitted."""
    cloud = Embedder(bundles["cloud"])
    images = [shop.read(item) for item in shop.gallery]

    def make(path: Path) -> Path:
        with Gallery.create(path, cloud) as gallery:
            gallery.admit(certificate)
            gallery.add(
                [item.path for item in shop.gallery],
                images=images,
                model=cloud,
                payloads=[{"label": item.label, **item.columns} for item in shop.gallery],
            )
        return path

    return make


@pytest.fixture(scope="session")
def service(
    make_gallery: MakeGallery, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service with a key for everything; its limits are small."""
    folder = tmp_path_factory.mktemp("service")
    path = make_gallery(folder / "shop")
    key = new_key(path, "all", "read", "write")
    options = ["--bundle", bundles["edge"], "--bundle", bundles["cloud"], "--rate", 0]
    options += ["--max-body", 400_000, "--max-pixels", 1_000_000, "--max-batch", 64]
    options += ["--bundle", bundles["stranger"]]
    with serving(path, folder / "log", *options, key=key) as running:
        running.is_measured()
        yield running


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusProcess]:
    """A real Milvus of this run's own; what needs it runs under 'make test-milvus' only."""
    server = MilvusProcess(tmp_path_factory.mktemp("milvus"))
    server.start()
    wait_for_milvus(f"milvus://{server.address}")
    yield server
    server.kill()
