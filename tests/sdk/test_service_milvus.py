"""The service over a gallery in a real Milvus: the same answers, and what happens without it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from samespace import Client, Embedder, Gallery
from samespace.gallery import Record
from samespace.gallery._milvus import remove
from samespace.service._keys import add_key
from samespace_edge import GalleryBusyError, NotCertifiedError, SamespaceError
from tests.milvus_server import MilvusProcess
from tests.patience import until
from tests.sdk.service_process import Running, serving
from tests.sdk.store_scene import WITH_MILVUS, vectors
from tests.sdk.test_service import ADD, maker, refused
from tests.sdk.test_service_life import Writers, all_there

pytestmark = pytest.mark.skipif(not WITH_MILVUS, reason="needs a Milvus: make test-milvus")

NAMES = [f"i{i}" for i in range(40)]
X = vectors(40)


@pytest.fixture(scope="module")
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture(scope="module")
def url(milvus: MilvusProcess, cloud: Embedder, certificate: Path) -> Iterator[str]:
    place = f"milvus://{milvus.address}/served_{uuid.uuid4().hex[:8]}"
    with Gallery.create(place, cloud, name="shop") as gallery:
        gallery.admit(certificate)
        gallery.add(NAMES, vectors=X, model=cloud, payloads=[{"n": i} for i in range(40)])
    yield place
    remove(place, timeout=90)


@pytest.fixture(scope="module")
def service(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    key = add_key(folder / "keys.json", "all", ["read", "write"])
    options = ["--keys", folder / "keys.json", "--workers", 2, "--rate", 0]
    # The first measurement may fall into the first test's writes.
    options += ["--busy-timeout", 10, "--request-timeout", 40, "--canary-every", 5]
    with serving(url, folder / "log", *options, key=key) as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[Client]:
    with Client(service.url, key=service.headers["authorization"].split()[1]) as made:
        yield made


def test_it_answers_as_from_a_folder(
    client: Client, url: str, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    with Gallery.open(url) as gallery:
        for how in ({"k": 3}, {"k": 5, "where": {"n": {"lt": 9}}}, {"k": 2, "exact": True}):
            found = client.search(vectors=X[:5], model=cloud, **how)
            expected = gallery.search(vectors=X[:5], model=cloud, **how)
            assert found.ids == expected.ids
            assert np.allclose(found.scores, expected.scores, atol=1e-5)
            assert found.payloads == expected.payloads
        assert client.certificates() == gallery.certificates()
    new = vectors(2, seed=1)
    client.add(["a", "b"], vectors=new, model=cloud, payloads=[1, None])
    for _ in range(6):  # whichever worker is met
        assert [r.payload for r in client.get(["a", "b"])] == [1, None]
    client.delete(["a", "b"])
    assert client.stats().items == 40
    assert client.upgrade_status() is None
    with pytest.raises(NotCertifiedError):
        client.add(["a"], vectors=new[:1], model=Embedder(bundles["stranger"]))


def test_its_health_is_measured_without_fetching_everything(service: Running) -> None:
    def measured() -> str:
        text = service.ask("GET", "/metrics").text
        return text if "samespace_recall_canary 1.0" in text else ""

    assert "samespace_items 40.0" in until(measured, every=0.5)


def test_a_killed_milvus_loses_nothing_and_the_service_lives_on(
    service: Running, client: Client, milvus: MilvusProcess, cloud: Embedder
) -> None:
    before = {p.pid for p in service.workers()}
    writers = Writers(service, cloud, "m", count=2)
    try:
        writers.wait_for(20)
        milvus.kill()
        try:
            sent = {"ids": ["late"], "vectors": X[:1].tolist()}
            late = service.ask("POST", ADD, params=maker(cloud), json=sent)
            # A write is tried for longer than the request may take, if others wait before it.
            refused(
                late, *((503, "gallery-busy"), (504, "request-timeout"))[late.status_code == 504]
            )
            assert service.ask("GET", "/healthz").status_code == 200
            refused(service.ask("GET", "/readyz"), 503, "not-ready")
        finally:
            milvus.start()
        writers.wait_for(len(writers.acknowledged) + 10)  # it goes on by itself
    finally:
        acknowledged = writers.stop()
    ids = sorted(acknowledged)

    def stored() -> dict[str, tuple[np.ndarray, object]]:
        with contextlib.suppress(GalleryBusyError):
            return {r.id: (r.vector, r.payload) for r in _in_parts(client, ids)}
        return {}

    all_there(until(stored), acknowledged)
    assert {p.pid for p in service.workers()} == before
    assert service.ask("GET", "/readyz").status_code == 200


def _in_parts(client: Client, ids: list[str]) -> Iterator[Record]:
    for first in range(0, len(ids), 100):
        yield from client.get(ids[first : first + 100])


def test_without_milvus_it_does_not_start(tmp_path: Path) -> None:
    from samespace.service import ServiceConfig, serve

    with pytest.raises(SamespaceError, match=r"127\.0\.0\.1:1"):
        serve(ServiceConfig("milvus://127.0.0.1:1/shop", busy_timeout=1), port=0)
