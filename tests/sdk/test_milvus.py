"""A gallery in a real Milvus: who may come in, what is there besides, and what happens without it.

'make test-milvus' runs it. What a gallery promises wherever it is: `test_gallery_contract.py`.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from samespace import Embedder, Gallery
from samespace.cli._root import run as samespace
from samespace.gallery._milvus import remove
from samespace_edge import (
    ConfigError,
    GalleryBusyError,
    GalleryDamagedError,
    GalleryError,
    SamespaceError,
)
from tests.milvus_server import MilvusProcess
from tests.patience import PATIENCE
from tests.ports import free_port
from tests.sdk.store_scene import DIM, WITH_MILVUS, vectors

pytestmark = pytest.mark.skipif(not WITH_MILVUS, reason="needs a Milvus: make test-milvus")

NAMES = [f"i{i}" for i in range(40)]
X = vectors(40)


@pytest.fixture(scope="module")
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def url(milvus: MilvusProcess, cloud: Embedder) -> Iterator[str]:
    """Of a gallery of 40 items."""
    place = f"milvus://{milvus.address}/shop_{uuid.uuid4().hex[:8]}"
    with Gallery.create(place, cloud, name="shop") as gallery:
        gallery.add(NAMES, vectors=X, model=cloud, payloads=[{"n": i} for i in range(40)])
    yield place
    remove(place, timeout=90)


@pytest.fixture
def client(milvus: MilvusProcess) -> Iterator[Any]:
    from pymilvus import MilvusClient

    made = MilvusClient(uri=f"http://{milvus.address}")
    yield made
    made.close()


# what is there besides


def test_what_others_made_is_left_alone(
    milvus: MilvusProcess, client: Any, cloud: Embedder
) -> None:
    name = f"theirs_{uuid.uuid4().hex[:8]}"
    client.create_collection(name, dimension=DIM)
    client.create_alias(name, f"{name}_alias")
    before = set(client.list_collections())
    for taken in (name, f"{name}_alias"):
        place = f"milvus://{milvus.address}/{taken}"
        with pytest.raises(GalleryError, match="was not made by samespace; choose another name"):
            Gallery.open(place)
        with pytest.raises(GalleryError, match=r"not made by samespace|already a gallery"):
            Gallery.create(place, cloud)
        with pytest.raises(GalleryError, match="was not made by samespace"):
            remove(place)
    assert set(client.list_collections()) == before
    client.drop_alias(f"{name}_alias")
    client.drop_collection(name)


def test_what_something_else_wrote_is_reported_and_never_returned(
    url: str, client: Any, cloud: Embedder
) -> None:
    with Gallery.open(url) as gallery:
        base = gallery._store.base  # type: ignore[attr-defined]
        row = client.query(base, filter='id == "i7"', output_fields=["*"])[0]
        client.upsert(base, {**row, "vector": X[8]})
        with pytest.raises(GalleryDamagedError, match="item 'i7' does not hold what was written"):
            gallery.get(["i7"])
        assert gallery.get(["i8"])[0].vector.tobytes() == X[8].tobytes()
        key = client.query(f"{base}_meta", filter='id == "gallery"', output_fields=["*"])[0]
        client.upsert(f"{base}_meta", {**key, "value": key["value"].replace("shop", "shot")})
    with pytest.raises(GalleryDamagedError, match="setting 'gallery' was changed by something"):
        Gallery.open(url)


def test_the_fingerprint_is_a_field_that_anybody_can_read(
    url: str, client: Any, cloud: Embedder
) -> None:
    name = url.rsplit("/", 1)[1]
    rows = client.query(
        name,
        filter='id in ["i1", "i2"]',
        output_fields=["fingerprint"],
        consistency_level="Strong",
    )
    assert {row["fingerprint"] for row in rows} == {cloud.identity.fingerprint.hex}


def test_two_who_create_one_gallery_make_one(milvus: MilvusProcess, cloud: Embedder) -> None:
    place = f"milvus://{milvus.address}/shop_{uuid.uuid4().hex[:8]}"
    ended: list[object] = []

    def create() -> None:
        try:
            Gallery.create(place, cloud).close()
            ended.append("made")
        except SamespaceError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(e)[:26] for e in ended) == ["made", "there is already a gallery"]
    with Gallery.open(place) as gallery:
        assert len(gallery) == 0
    remove(place, timeout=90)
    with pytest.raises(GalleryError, match="there is no gallery at"):
        Gallery.open(place)


def test_what_milvus_cannot_hold_is_refused_before_anything_is_stored(
    url: str, cloud: Embedder
) -> None:
    with Gallery.open(url) as gallery:
        for ids, payload, message in (
            (["a", "ü" * 300], {}, "has 600 bytes; in Milvus an id has up to 512"),
            (["a", "b"], {"t": "x" * 70_000}, "takes 70,009 bytes as JSON; in Milvus it may take"),
            (["a", "b"], {"n": [2**70]}, "has a whole number beyond 64 bits"),
        ):
            with pytest.raises(ConfigError, match=message):
                gallery.add(ids, vectors=vectors(2), model=cloud, payloads=[None, payload])
        for act in (
            lambda: gallery.correct_hubs(vectors(300), model=cloud),
            lambda: gallery.search(vectors=vectors(1, dim=8), model=cloud, width=8),
            lambda: gallery.path,
        ):
            with pytest.raises(GalleryError, match="is in a server"):
                act()
        assert (len(gallery), "a" in gallery) == (40, False)


def test_a_database_of_its_own(
    milvus: MilvusProcess, client: Any, cloud: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_database("branch")
    place = f"milvus://{milvus.address}/shop_{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("SAMESPACE_MILVUS_DATABASE", "branch")
    with Gallery.create(place, cloud) as gallery:
        gallery.add(NAMES, vectors=X, model=cloud)
        gallery.delete(["i0"])
        assert len(gallery) == 39
        assert gallery.search(vectors=X[1:2], model=cloud, k=1).ids == [["i1"]]
        monkeypatch.delenv("SAMESPACE_MILVUS_DATABASE")
        with pytest.raises(GalleryError, match="there is no gallery at"):
            Gallery.open(place)
        assert len(gallery) == 39
    monkeypatch.setenv("SAMESPACE_MILVUS_DATABASE", "branch")
    remove(place, timeout=90)
    client.drop_database("branch")


def test_the_command_line_takes_its_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert samespace(["gallery", "stats", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 40


# when it is not there


def until_it_answers(act: Any) -> Any:
    """The first answer; meanwhile only `GalleryBusyError` may be raised."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return act()
        except GalleryBusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def test_a_restart_is_an_error_in_between_and_nothing_else(
    url: str, milvus: MilvusProcess, cloud: Embedder
) -> None:
    with Gallery.open(url, busy_timeout=4) as gallery:

        def find() -> list[str]:
            return [row[0] for row in gallery.search(vectors=X[:3], model=cloud, k=1).ids]

        assert find() == NAMES[:3]
        milvus.kill()
        for act in (find, lambda: len(gallery), lambda: gallery.get(["i1"])):
            with pytest.raises(GalleryBusyError, match=r"does not answer at 127\.0\.0\.1") as error:
                act()
            assert "What it acknowledged is kept" in str(error.value)
        with pytest.raises(GalleryBusyError, match=r"do it again \(add with replace=True\)"):
            gallery.add(["late"], vectors=vectors(1), model=cloud, replace=True)
        with pytest.raises(GalleryBusyError, match="does not answer"):
            Gallery.open(url, busy_timeout=4)
        milvus.start()
        assert until_it_answers(find) == NAMES[:3]
        until_it_answers(
            lambda: gallery.add(["late"], vectors=vectors(1), model=cloud, replace=True)
        )
        assert len(gallery) == 41


def test_a_server_that_hangs_is_an_error_too(
    url: str, milvus: MilvusProcess, cloud: Embedder
) -> None:
    with until_it_answers(lambda: Gallery.open(url, busy_timeout=0.5)) as gallery:
        milvus.pause()  # for a few seconds: after 15 it would take itself for gone
        try:
            with pytest.raises(GalleryBusyError, match=r"within 0\.5 s"):
                gallery.search(vectors=X[:1], model=cloud, k=1)
            with pytest.raises(GalleryBusyError, match="may be there or not"):
                gallery.add(["late"], vectors=vectors(1), model=cloud, replace=True)
        finally:
            milvus.go_on()
        assert until_it_answers(lambda: gallery.search(vectors=X[:1], model=cloud, k=1).ids) == [
            ["i0"]
        ]


@contextlib.contextmanager
def something_else(kind: str) -> Iterator[int]:
    """A port where no Milvus is: nothing, a web server, or one that says nothing."""
    if kind == "nothing":
        yield free_port()
    elif kind == "silence":
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            yield int(listening.getsockname()[1])
    else:

        class Quiet(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as web:
            thread = threading.Thread(target=web.serve_forever)
            thread.start()
            yield web.server_port
            web.shutdown()
            thread.join()


@pytest.mark.parametrize("kind", ["nothing", "silence", "web"])
def test_a_wrong_port_is_named(kind: str) -> None:
    with (
        something_else(kind) as port,
        pytest.raises(GalleryBusyError, match=f"Milvus does not answer at 127.0.0.1:{port} within"),
    ):
        Gallery.open(f"milvus://127.0.0.1:{port}/shop", busy_timeout=2)


def test_a_host_that_is_not_there_is_named() -> None:
    with pytest.raises(GalleryBusyError, match=r"does not answer at nowhere\.invalid:19530"):
        Gallery.open("milvus://nowhere.invalid/shop", busy_timeout=2)


# who may come in


def test_it_is_reached_from_this_machine_alone(milvus: MilvusProcess) -> None:
    """This Milvus listens on every address: in a network of its own, which has but a loopback."""
    inside = Path(f"/proc/{milvus.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in inside] == ["lo"]
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {c.laddr.ip for c in listening if c.laddr.port == milvus.port} == {"127.0.0.1"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MilvusProcess, Path]]:
    """A server that asks for a password and speaks TLS; its certificate."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate, key = folder / "server.pem", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:milvus.test"]
    subprocess.run(
        [*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    server = MilvusProcess(folder / "data", passwords=True, tls=(certificate, key))
    server.start()
    yield server, certificate
    server.kill()


def test_passwords_and_tls_from_the_environment(
    guarded: tuple[MilvusProcess, Path],
    cloud: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    server, certificate = guarded
    place = f"milvus://localhost:{server.port}/shop"

    def having(**variables: str) -> None:
        for name in ("TLS", "CA", "USER", "PASSWORD", "TOKEN", "SERVER_NAME", "DATABASE"):
            monkeypatch.delenv(f"SAMESPACE_MILVUS_{name}", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(f"SAMESPACE_MILVUS_{name}", value)

    tls = {"TLS": "1", "CA": str(certificate)}
    root = {"USER": "root", "PASSWORD": "Milvus"}
    having(**root)
    with pytest.raises(GalleryBusyError, match=r"does not answer.*SAMESPACE_MILVUS_TLS=1"):
        Gallery.create(place, cloud)
    having(TLS="1", **root)
    with pytest.raises(GalleryBusyError, match=r"does not answer.*SAMESPACE_MILVUS_CA"):
        Gallery.open(place, busy_timeout=2)
    for wrong in ({}, {"USER": "root", "PASSWORD": "guess"}, {"TOKEN": "root:guess"}):
        having(**tls, **wrong)
        with pytest.raises(ConfigError, match="Milvus refuses the user") as error:
            until_it_answers(lambda: Gallery.open(place, busy_timeout=2))
        assert "guess" not in str(error.value)
    having(**tls, **root)
    with until_it_answers(lambda: Gallery.create(place, cloud)) as gallery:
        gallery.add(NAMES, vectors=X, model=cloud)
        assert gallery.search(vectors=X[:1], model=cloud, k=1).ids == [["i0"]]
        assert np.array_equal(gallery.get(["i3"])[0].vector, X[3])
    having(**tls, TOKEN="root:Milvus")
    with Gallery.open(place) as gallery:
        assert len(gallery) == 40
    having(**tls, **root, SERVER_NAME="milvus.test")
    with Gallery.open(f"milvus://127.0.0.1:{server.port}/shop") as gallery:
        assert len(gallery) == 40
    having(**tls, **root, DATABASE="nope")
    with pytest.raises(ConfigError, match=r"no database 'nope' .*; it has: default"):
        until_it_answers(lambda: Gallery.open(place, busy_timeout=2))
    having(**tls, **root)
    remove(place, timeout=90)
