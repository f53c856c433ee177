"""The Python client against a real service, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import http.server
import inspect
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samespace import Client, Dataset, Embedder, Fingerprint, Gallery, ModelIdentity
from samespace.gallery import SearchResult
from samespace_edge import (
    ConfigError,
    DecodeError,
    DimensionError,
    DuplicateIdError,
    FilterError,
    ImageTooLargeError,
    InvalidVectorError,
    KeyRefusedError,
    NotCertifiedError,
    SamespaceError,
    ServiceBusyError,
    ServiceError,
    ServiceUnreachableError,
    UnknownIdError,
)
from tests.patience import PATIENCE, until
from tests.ports import free_port
from tests.sdk.conftest import MakeGallery
from tests.sdk.service_process import Running, new_key, serving, start
from tests.sdk.test_gallery import DIM, vectors


def key_of(service: Running) -> str:
    return service.headers["authorization"].split()[1]


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[Client]:
    with Client(service.url, key=key_of(service), retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def gallery(service: Running) -> Iterator[Gallery]:
    """The gallery behind the service, opened beside it."""
    with Gallery.open(service.process.args[4]) as opened:  # type: ignore[index]
        yield opened


@pytest.fixture(scope="module")
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture(scope="module")
def edge(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["edge"])


# what it answers


def same(found: SearchResult, expected: SearchResult) -> None:
    assert found.ids == expected.ids
    assert np.allclose(found.scores, expected.scores, atol=1e-6)
    assert found.scores.dtype == np.float32
    assert found.payloads == expected.payloads
    assert [[h.id for h in hits] for hits in found] == expected.ids


def test_it_finds_what_the_gallery_finds(
    client: Client, gallery: Gallery, shop: Dataset, edge: Embedder, cloud: Embedder
) -> None:
    pictures = [shop.read(q) for q in shop.queries[:4]]
    x = edge.embed(pictures)
    for how in (
        {"k": 3},
        {"k": 1, "payloads": False},
        {"k": 5, "where": {"aisle": "1"}},
        {"k": 2, "exact": True},
        {"k": 10_000 // 100},
    ):
        expected = gallery.search(vectors=x, model=edge, **how)
        same(client.search(vectors=x, model=edge, **how), expected)
        same(client.search(vectors=x.astype(np.float64), model=edge.identity, **how), expected)
        same(client.search(vectors=x, model=edge.identity.fingerprint, **how), expected)
        same(client.search(images=pictures, model=edge, **how), expected)
        same(client.search(images=pictures, model="edge", **how), expected)
    by_default = gallery.search(images=pictures, model=cloud, k=2)
    same(client.search(images=pictures, k=2), by_default)
    opened = [Image.open(io.BytesIO(p)) for p in pictures]
    same(client.search(images=opened, model=cloud.identity, k=2), by_default)
    prefix = gallery.search(vectors=x[:, :8].copy(), model=cloud, k=3, width=8)
    same(client.search(vectors=x, model=cloud, k=3, width=8), prefix)


def test_items_come_are_replaced_and_go(client: Client, gallery: Gallery, cloud: Embedder) -> None:
    ids = ["c/1 ü", "get", ".."]
    x = vectors(3, seed=20)
    client.add(ids, vectors=x, model=cloud, payloads=[{"n": 1}, None, "x"])
    got, expected = client.get(ids), gallery.get(ids)
    assert [(r.id, r.payload, r.model) for r in got] == [
        (r.id, r.payload, r.model) for r in expected
    ]
    assert all(np.array_equal(a.vector, b.vector) for a, b in zip(got, expected, strict=True))
    assert all(i in client for i in ids)
    with pytest.raises(DuplicateIdError, match="replace=True"):
        client.add(ids[:1], vectors=x[:1], model=cloud)
    client.add(ids[:1], vectors=x[1:2], model=cloud, replace=True)
    assert np.allclose(client.get(ids[:1])[0].vector, x[1], atol=1e-6)
    with pytest.raises(UnknownIdError, match="nobody"):
        client.delete([*ids, "nobody"])
    client.delete(ids)
    assert not any(i in client for i in ids)


def test_pictures_are_added_embedded_here_or_there(
    client: Client, shop: Dataset, tmp_path: Path, cloud: Embedder
) -> None:
    (tmp_path / "a.png").write_bytes(shop.read(shop.queries[0]))
    client.add(["there"], images=[tmp_path / "a.png"], payloads=[{"n": 1}])
    client.add(["here"], images=[tmp_path / "a.png"], model=cloud)
    there, here = client.get(["there", "here"])
    assert (there.payload, there.model, here.model) == ({"n": 1}, cloud.identity, cloud.identity)
    assert np.allclose(there.vector, here.vector, atol=1e-6)
    client.delete(["there", "here"])


def test_it_tells_of_the_gallery(client: Client, gallery: Gallery, service: Running) -> None:
    stats, expected = client.stats(), gallery.stats()
    assert (stats.name, stats.space, stats.dim) == (expected.name, expected.space, expected.dim)
    assert stats.admitted == expected.admitted
    assert set(stats.by_model) == set(expected.by_model)
    assert client.certificates() == gallery.certificates()
    assert client.upgrade_status() is None
    assert key_of(service) not in repr(client)
    assert inspect.signature(client.search).return_annotation == "SearchResult"


# what it raises


def test_refusals_are_the_gallerys_own_errors(
    client: Client, bundles: dict[str, Path], cloud: Embedder, edge: Embedder
) -> None:
    x = vectors(1, seed=21)
    stranger = Embedder(bundles["stranger"])
    unknown = ModelIdentity("x", Fingerprint("ab" * 32), "v", "cd" * 32, Fingerprint("ef" * 32), 24)
    nan = np.full((1, DIM), np.nan, np.float32)
    huge = np.full((1, DIM), 1e300)
    two = vectors(2)[:, :12]  # as many numbers as one vector has
    odd = {"a": {"like": 1}}
    large = io.BytesIO()
    Image.new("1", (1001, 1000)).save(large, "PNG")
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3)).astype(np.uint8)
    calls: list[tuple[type[SamespaceError], str, Callable[[], object]]] = [
        (NotCertifiedError, "ababab", lambda: client.search(vectors=x, model=unknown)),
        (NotCertifiedError, "space", lambda: client.add(["a"], vectors=x, model=stranger)),
        (NotCertifiedError, "space", lambda: client.search(images=[_dot()], model="stranger")),
        (DimensionError, "48", lambda: client.search(vectors=x[:, :12], model=cloud)),
        (DimensionError, "2 vectors", lambda: client.search(vectors=two, model=cloud)),
        (DimensionError, "12", lambda: client.add(["a"], vectors=x[:, :12], model=cloud)),
        (InvalidVectorError, "NaN", lambda: client.search(vectors=nan, model=cloud)),
        (InvalidVectorError, "NaN", lambda: client.add(["a"], vectors=nan, model=cloud)),
        (InvalidVectorError, "infinity", lambda: client.search(vectors=huge, model=cloud)),
        (InvalidVectorError, "floats", lambda: client.search(vectors=x[0], model=cloud)),
        (FilterError, "like", lambda: client.search(vectors=x, model=edge, where=odd)),
        (UnknownIdError, "nobody", lambda: client.get(["nobody"])),
        (ConfigError, "non-empty|at least 1", lambda: client.get([""])),
        (ConfigError, "65 items", lambda: client.get(["a"] * 65)),
        (ConfigError, "does not run here", lambda: client.search(images=[_dot()], model="none")),
        (ConfigError, "either vectors or images", lambda: client.search(model=cloud)),
        (ConfigError, "the model that made them", lambda: client.search(vectors=x)),
        (ConfigError, "JSON", lambda: client.add(["a"], vectors=x, model=cloud, payloads=[{1}])),
        (DecodeError, "picture 0", lambda: client.search(images=[b"nothing"])),
        (DecodeError, "nowhere.png", lambda: client.search(images=["nowhere.png"])),
        (ImageTooLargeError, "1,000,000", lambda: client.search(images=[large.getvalue()])),
        (ServiceError, "400,000 bytes", lambda: client.search(images=[noise])),
    ]  # fmt: skip
    for kind, words, call in calls:
        with pytest.raises(kind, match=words):
            call()
    with pytest.raises(ServiceError) as told:
        client.search(images=[noise])
    assert (told.value.status, told.value.reason) == (413, "body-too-large")


def _dot() -> Image.Image:
    return Image.new("RGB", (20, 20), "red")


def test_keys(service: Running, cloud: Embedder) -> None:
    path = Path(service.process.args[4])  # type: ignore[index]
    reader = new_key(path, "reader", "read")
    service.follows(reader)
    x = vectors(1, seed=22)
    with Client(service.url, key=reader) as client:
        assert len(client.search(vectors=x, model=cloud, k=1)) == 1
        with pytest.raises(KeyRefusedError, match="scope write") as told:
            client.add(["a"], vectors=x, model=cloud)
        assert (told.value.status, told.value.reason) == (403, "no-scope")
    for key in (None, "sks_wrong_key"):
        with Client(service.url, key=key) as client, pytest.raises(KeyRefusedError) as told:
            client.stats()
        assert told.value.status == 401
    for key in ("two words", "line\n", "ü"):
        with pytest.raises(ConfigError, match="not a key") as refused:
            Client(service.url, key=key)
        assert key not in str(refused.value)


def test_settings_that_cannot_be_used() -> None:
    for more in ({"timeout": 0}, {"retries": -1}):
        with pytest.raises(ConfigError, match="cannot be used"):
            Client("http://127.0.0.1:1", **more)
    for url in ("http://[::1", "nowhere", "ftp://x", "http://"):
        with pytest.raises(ConfigError, match="cannot use the address"):
            Client(url)


def test_it_needs_little() -> None:
    code = """
import sys
from samespace import Client
with Client("http://127.0.0.1:1", retries=0) as client:
    pass
heavy = {"faiss", "fastapi", "uvicorn", "pydantic", "onnxruntime", "jinja2", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# servers that misbehave


class Misbehaving(http.server.ThreadingHTTPServer):
    """Answers the requests that it counts by a script; the last line of it goes on for ever."""

    daemon_threads = True

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.asked: list[str] = []
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Misbehaving

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        step = self.server.script[min(len(self.server.asked), len(self.server.script) - 1)]
        self.server.asked.append(self.path.partition("?")[0])
        if step == "hang up":
            self.close_connection = True
            return
        if step == "keep silent":
            self.server.over.wait()
            return
        status, headers, body = step
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def misbehaving(*script: Any) -> Iterator[Misbehaving]:
    server = Misbehaving(list(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def problem(reason: str, status: int, **headers: str) -> tuple[int, dict[str, str], Any]:
    return status, {k.replace("_", "-"): v for k, v in headers.items()}, {
        "reason": reason,
        "detail": f"because of {reason}",
    }  # fmt: skip


GOOD = (200, {}, {"items": 1, "upgrade": None, "results": []})
X = vectors(1, seed=23)
WHO = ModelIdentity("x", Fingerprint("ab" * 32), "v", "cd" * 32, Fingerprint("ef" * 32), DIM)

CALLS: dict[str, tuple[Callable[[Client], object], bool]] = {
    "search": (lambda c: c.search(vectors=X, model=WHO), True),
    "status": (lambda c: c.upgrade_status(), True),
    "replace": (lambda c: c.add(["a"], vectors=X, model=WHO, replace=True), True),
    "add": (lambda c: c.add(["a"], vectors=X, model=WHO), False),
    "add pictures": (lambda c: c.add(["a"], images=[_dot()]), False),
    "delete": (lambda c: c.delete(["a"]), False),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("trouble", ["hang up", (502, {}, b"<html>"), (504, {}, b"<html>")])
def test_only_what_may_be_done_twice_is_asked_again(name: str, trouble: Any) -> None:
    call, may = CALLS[name]
    with (
        misbehaving(trouble, GOOD) as server,
        Client(server.url, retries=1) as client,
        contextlib.ExitStack() as expecting,
    ):
        if not may:
            expecting.enter_context(pytest.raises(ServiceError))
        call(client)
    assert len(server.asked) == (2 if may else 1)


@pytest.mark.parametrize("name", ["search", "add", "delete"])
def test_what_was_surely_not_done_is_asked_again(name: str) -> None:
    call, may = CALLS[name]
    script = [problem("too-many-requests", 429), problem("not-ready", 503), (503, {}, b""), GOOD]
    with misbehaving(*script) as server, Client(server.url, retries=3) as client:
        call(client)
    assert len(server.asked) == 4
    # A server of galleries that did not answer in time may have stored a part.
    busy = problem("gallery-busy", 503)
    with misbehaving(busy, GOOD) as server, Client(server.url, retries=1) as client:
        if may:
            call(client)
        else:
            with pytest.raises(SamespaceError, match="because of gallery-busy"):
                call(client)
    assert len(server.asked) == (2 if may else 1)


def test_it_waits_as_long_as_it_is_asked_to() -> None:
    for asked, least in (("1", 1.0), ("a date", 1.0), ("nonsense", 0.0)):
        started = time.monotonic()
        if asked == "a date":  # in whole seconds
            asked = format_datetime(datetime.fromtimestamp(time.time() + 2.5, UTC), usegmt=True)
        script = [problem("too-many-requests", 429, retry_after=asked), GOOD]
        with misbehaving(*script) as server, Client(server.url, retries=1) as client:
            client.upgrade_status()
        assert time.monotonic() - started >= least
        assert len(server.asked) == 2


def test_it_gives_up_in_the_end() -> None:
    answers: list[tuple[Any, type[SamespaceError], str, int]] = [
        ("hang up", ServiceUnreachableError, "did not answer GET /v1/upgrade", 3),
        (problem("too-much-at-once", 429), ServiceBusyError, "because of too-much", 3),
        ((503, {}, b"<html>"), ServiceBusyError, "the status 503", 3),
        ((500, {}, b"<html>"), ServiceError, "the status 500", 1),
        (problem("of-a-later-version", 418), ServiceError, "because of of-a-later", 1),
        ((401, {}, b""), KeyRefusedError, "the status 401", 1),
        ((200, {}, b"<html>"), ServiceError, "is it a samespace service", 1),
    ]
    for step, kind, words, times in answers:
        with (
            misbehaving(step) as server,
            Client(server.url, retries=2) as client,
            pytest.raises(kind, match=words),
        ):
            client.upgrade_status()
        assert len(server.asked) == times
    with misbehaving("keep silent") as server:
        with (
            Client(server.url, timeout=0.5, retries=1) as client,
            pytest.raises(ServiceUnreachableError, match="did not answer"),
        ):
            client.upgrade_status()
        until(lambda: len(server.asked) == 2)  # it may read a request after the client has left


def test_a_service_that_goes_away_and_comes_back(
    make_gallery: MakeGallery, tmp_path: Path, cloud: Embedder
) -> None:
    """Callers notice nothing but the wait; what they wrote is there."""
    path, port = make_gallery(tmp_path / "shop"), free_port()
    x = vectors(40, seed=24)
    written: list[str] = []
    over = threading.Event()
    failed: list[SamespaceError] = []

    def write(client: Client) -> None:
        try:
            for n in range(40):
                client.add([f"n{n}"], vectors=x[n : n + 1], model=cloud, replace=True)
                written.append(f"n{n}")
                if n > 10:
                    over.wait(0.05)
        except SamespaceError as error:
            failed.append(error)

    with Client(f"http://127.0.0.1:{port}", retries=0) as hasty:
        with pytest.raises(ServiceUnreachableError, match=r"Is the service running there\?"):
            hasty.stats()
        first = start(path, tmp_path / "log", "--rate", 0, port=port)
        with Client(first.url, retries=200) as client:  # for as long as the next one takes
            before = client.search(vectors=x[:2], model=cloud, k=3, payloads=False).ids
            thread = threading.Thread(target=write, args=(client,))
            thread.start()
            until(lambda: len(written) >= 5)
            first.process.kill()
            first.process.wait()
            with pytest.raises(ServiceUnreachableError):
                hasty.stats()
            with serving(path, tmp_path / "log", "--rate", 0, port=port):
                over.set()
                thread.join(PATIENCE)
                assert not failed
                assert len(written) == 40
                assert [r.id for r in client.get(written)] == written
                client.delete(written)
                assert client.search(vectors=x[:2], model=cloud, k=3, payloads=False).ids == before
                assert hasty.stats().items == client.stats().items


def test_one_client_serves_many_threads(client: Client, cloud: Embedder) -> None:
    x = vectors(40, seed=25)
    expected = client.search(vectors=x, model=cloud, k=2).ids
    found: dict[int, list[str]] = {}

    def ask(first: int) -> None:
        for n in range(first, 40, 4):
            found[n] = client.search(vectors=x[n : n + 1], model=cloud, k=2).ids[0]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(40)] == expected
