"""The service as it lives: limits, workers, stops and kills; nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from samespace import Client, Embedder, Gallery
from samespace.cli._root import run as samespace
from samespace.gallery import GivenVectors
from samespace.service._limits import RateLimit
from tests.patience import PATIENCE, until
from tests.sdk.conftest import MakeGallery
from tests.sdk.service_process import Running, ask, new_key, serving, start
from tests.sdk.test_gallery import vectors
from tests.sdk.test_service import ADD, SEARCH, maker, refused, well


@pytest.fixture(scope="module")
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


def slow_request(service: Running, body: bytes, path: str) -> tuple[socket.socket, bytes]:
    """A connection on which all of a request but the second half of its body was sent."""
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.settimeout(PATIENCE)
    key = service.headers.get("authorization", "")
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost:{service.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        + (f"authorization: {key}\r\n" if key else "")
        + "\r\n"
    )
    half = len(body) // 2
    connection.sendall(head.encode() + body[:half])
    return connection, body[half:]


def answer_of(connection: socket.socket) -> bytes:
    """What comes until the headers are there, and what came with them."""
    got = b""
    while b"\r\n\r\n" not in got and (part := connection.recv(65536)):
        got += part
    return got


GET_ONE = b'{"ids": ["item01/0.png"]}'


# limits


@pytest.fixture(scope="module")
def limited(
    make_gallery: MakeGallery, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Two workers with a bundle on offer.

    A bucket holds `BURST` requests, and is filled with one more in nearly three hours: how many are
    served does not depend on how fast they come.
    """
    folder = tmp_path_factory.mktemp("limited")
    path = make_gallery(folder / "shop")
    key = new_key(path, "phone", "read")
    options = ["--rate", 0.0001, "--burst", BURST, "--workers", 2, "--offer", bundles["edge"]]
    with serving(path, folder / "log", *options, key=key) as running:
        running.is_measured()
        yield running


BURST = 20


def spend(service: Running, name: str) -> list[httpx.Response]:
    """Make a key, and ask with it more often than it may; the answers."""
    key = new_key(Path(service.process.args[4]), name)  # type: ignore[index]
    headers = service.follows(key)  # takes one
    return [service.ask("GET", "/v1/upgrade", headers=headers) for _ in range(BURST + 4)]


def test_over_the_rate_is_a_clean_429(limited: Running) -> None:
    answers = spend(limited, "hasty")
    good, bad = answers[: BURST - 1], answers[BURST - 1 :]
    assert {a.status_code for a in good} == {200}, "the bucket is one for both workers"
    for answer in bad:
        refused(answer, 429, "too-many-requests", "'hasty'", "0.0001 requests a second")
        assert 0 < int(answer.headers["retry-after"]) <= 10_000
    assert limited.ask("GET", "/v1/upgrade").status_code == 200, "another key has its own"
    assert ask("GET", f"{limited.url}/healthz").status_code == 200


def test_a_bucket_is_filled_with_time() -> None:
    bucket = RateLimit(rate=4.0, burst=8)
    assert [bucket.wait("a", now=100.0) for _ in range(10)] == [0.0] * 8 + [0.25] * 2
    assert bucket.wait("b", now=100.0) == 0.0
    assert bucket.wait("a", now=100.125) == 0.125
    assert [bucket.wait("a", now=101.0) for _ in range(5)] == [0.0] * 4 + [0.25]
    assert bucket.wait("a", now=50.0) == 0.25, "the clock was set back"
    assert [bucket.wait("a", now=1000.0) for _ in range(9)] == [0.0] * 8 + [0.25]


def test_the_client_waits_its_turn(make_gallery: MakeGallery, tmp_path: Path) -> None:
    options = ["--rate", 2, "--burst", 2]
    with (
        serving(make_gallery(tmp_path / "shop"), tmp_path / "log", *options) as service,
        Client(service.url) as client,
    ):
        for _ in range(4):
            assert client.upgrade_status() is None


def test_metrics_are_of_all_workers(limited: Running) -> None:
    assert spend(limited, "greedy")[-1].status_code == 429
    pids = {p.pid for p in limited.workers()}
    assert len(pids) == 2
    texts = {limited.ask("GET", "/metrics").text for _ in range(2)}
    for text in texts:
        assert 'samespace_refusals_total{reason="too-many-requests"}' in text
        assert "samespace_recall_canary 1.0" in text


def test_a_bundle_is_downloaded_by_readers(
    limited: Running, bundles: dict[str, Path], tmp_path: Path, cloud: Embedder
) -> None:
    models = limited.ask("GET", "/v1/models").json()["models"]
    edge = next(m for m in models if m["is_offered"])
    base = f"/v1/models/{edge['model']['fingerprint']}/bundle"
    assert [m["model"]["name"] for m in models if m["is_offered"]] == ["edge"]
    manifest = limited.ask("GET", f"{base}/manifest.json").json()
    assert manifest["fingerprint"] == edge["model"]["fingerprint"]
    name = manifest["variants"][0]["file"]
    file = limited.ask("GET", f"{base}/{name}")
    assert file.content == (bundles["edge"] / name).read_bytes()
    assert file.headers["etag"] == f'"{manifest["files"][name]}"'
    known = {"if-none-match": file.headers["etag"]}
    assert limited.ask("GET", f"{base}/{name}", headers=known).status_code == 304
    for path in (f"{base}/../manifest.json", f"{base}/nothing", f"{base}/..%2Fshop%2Fgallery.db"):
        refused(limited.ask("GET", path), 404, "not-found")
    other = f"/v1/models/{cloud.identity.fingerprint.hex}/bundle/manifest.json"
    refused(
        limited.ask("GET", other), 404, "not-found", "--offer", edge["model"]["fingerprint"][:12]
    )
    refused(ask("GET", f"{limited.url}{base}/manifest.json"), 401, "no-key")


# one process, no keys


@pytest.fixture(scope="module")
def small(make_gallery: MakeGallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("small")
    options = ["--concurrency", 2, "--body-timeout", PATIENCE]
    options += ["--head-timeout", 1, "--connections", 20, "--canary-every", 0.3, "--rate", 0]
    with serving(make_gallery(folder / "shop"), folder / "log", *options) as running:
        yield running


def test_over_the_bound_of_work_is_a_429_too(small: Running) -> None:
    held = [slow_request(small, GET_ONE, "/v1/items/get") for _ in range(2)]
    until(lambda: small.ask("GET", "/v1/upgrade").status_code == 429)
    answer = small.ask("GET", "/v1/upgrade")
    refused(answer, 429, "too-much-at-once", "2 requests")
    assert answer.headers["retry-after"] == "1"
    for connection, rest in held:
        connection.sendall(rest)
        assert answer_of(connection).startswith(b"HTTP/1.1 200")
        connection.close()
    well(small)


def connected(service: Running, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.settimeout(PATIENCE)
    connection.sendall(sent)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the service has closed a connection, on which it has not said a word."""
    try:
        assert connection.recv(100, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_slow_heads_are_cut_off(small: Running) -> None:
    """Many clients that trickle the first lines of a request: others are served meanwhile."""
    slow = [connected(small, b"GET /v1/stats HTTP/1.1\r\nhost: loc") for _ in range(10)]

    def all_are_closed() -> bool:
        well(small)
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.sendall(b"a")
        return all(is_closed(connection) for connection in slow)

    until(all_are_closed, every=0.3)
    for connection in slow:
        connection.close()
    well(small)


def test_one_connection_too_many_is_told(small: Running) -> None:
    idle: list[socket.socket] = []

    def one_more() -> httpx.Response | None:
        idle.extend(connected(small) for _ in range(20))  # some may be closed before all are there
        answer = small.ask("GET", "/healthz")
        return answer if answer.status_code != 200 else None

    answer = until(one_more)
    refused(answer, 429, "too-much-at-once", "20 connections")
    assert answer.headers["retry-after"] == "1"
    for connection in idle:
        assert connection.recv(100) == b"", "a connection that is not used is closed"
        connection.close()
    well(small)
    assert 'refusals_total{reason="too-much-at-once"}' in small.ask("GET", "/metrics").text


def test_who_takes_no_answer_is_cut_off(small: Running) -> None:
    """Asks on and on and never reads, until no more fits into any buffer."""
    greedy = connected(small)
    requests = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 100_000
    before = psutil.Process(small.process.pid).memory_info().rss
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        greedy.sendall(requests)
    greedy.close()
    assert psutil.Process(small.process.pid).memory_info().rss - before < 64 * 2**20
    well(small)


def test_an_upgrade_that_another_process_runs_is_told_of(
    small: Running, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    """From half way to its commit, by the service, its metrics and the client alike."""
    edge = Embedder(bundles["edge"])

    def told(share: float) -> bool:
        with Client(small.url) as client:
            status = client.upgrade_status()
            text = small.ask("GET", "/metrics").text
            line = f"samespace_backfilled_share {share}\n"
            return status == gallery.upgrade.status() and line in text

    def soon(share: float) -> None:
        until(lambda: told(share), every=0.1)

    with Gallery.open(small.process.args[4]) as gallery:  # type: ignore[index]
        ids = sorted(r.id for r in gallery.sample(100))
        new = GivenVectors(edge.identity, ids, vectors(len(ids), seed=7))
        gallery.upgrade.run(new, limit=len(ids) // 4)
        soon(0.25)
        state = small.ask("GET", "/v1/upgrade").json()["upgrade"]
        assert (state["state"], state["items"]) == ("running", len(ids))
        assert state["target"] == edge.identity.to_json()
        moved = next(r for r in gallery.get(ids) if r.model == edge.identity)
        with Client(small.url) as client:
            for model in (cloud, edge):
                found = client.search(vectors=moved.vector[None], model=model, k=1)[0][0]
                assert (found.id, round(found.score, 5)) == (moved.id, 1.0)
        gallery.upgrade.run(new)
        gallery.upgrade.commit()
        soon(1.0)
        assert small.ask("GET", "/v1/upgrade").json()["upgrade"]["state"] == "committed"
        counts = {
            m["model"]["name"]: m["items"] for m in small.ask("GET", "/v1/stats").json()["by_model"]
        }
        assert counts == {"cloud": 0, "edge": len(ids)}
        gallery.upgrade.rollback()


def test_without_keys_other_sites_pages_are_refused(small: Running) -> None:
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        refused(small.ask("GET", "/v1/stats", headers=headers), 403, "foreign-page", "localhost")
    well(small)


def test_the_door_is_not_left_open(
    make_gallery: MakeGallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_gallery(tmp_path / "shop")
    for options, words in (
        (["--host", "0.0.0.0"], "samespace serve keys add"),
        (["--bundle", "nowhere"], "nowhere"),
        (["--workers", "0"], "workers has to be 1 or more"),
    ):
        assert samespace(["serve", str(shop), "--port", "0", *options]) == 3
        assert words in " ".join(capsys.readouterr().err.split())


def test_a_gallery_in_a_server_has_its_keys_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = "milvus://127.0.0.1:1/shop"
    adding = ["serve", "keys", "add", elsewhere, "--name", "x"]
    for refused_ in (adding, ["serve", elsewhere, "--host", "0.0.0.0"]):
        assert samespace(refused_) == 3
        assert "with --keys" in " ".join(capsys.readouterr().err.split())
    assert samespace([*adding, "--keys", str(tmp_path / "keys")]) == 0
    assert capsys.readouterr().out.startswith("sks_")


def test_a_revoked_key_is_out(make_gallery: MakeGallery, tmp_path: Path) -> None:
    shop = make_gallery(tmp_path / "shop")
    key = new_key(shop, "phone")
    options = ["--request-timeout", 0.0001]
    with serving(shop, tmp_path / "log", *options, key=key) as service:
        refused(service.ask("GET", "/v1/stats"), 504, "request-timeout", "0.0001 s")
        assert samespace(["serve", "keys", "revoke", str(shop), "phone"]) == 0
        service.follows(key, is_known=False)
        refused(service.ask("GET", "/v1/stats"), 401, "no-key")
        assert service.ask("GET", "/readyz").status_code == 200


def test_a_device_is_served_as_soon_as_its_model_is_admitted(
    tmp_path: Path, cloud: Embedder, bundles: dict[str, Path], certificate: Path
) -> None:
    edge = Embedder(bundles["edge"])
    with Gallery.create(tmp_path / "shop", cloud) as gallery:
        gallery.add(["a"], vectors=vectors(1), model=cloud)
        options = ["--bundle", bundles["cloud"], "--bundle", bundles["edge"]]
        with serving(tmp_path / "shop", tmp_path / "log", *options) as service:
            sent = {"json": {"vectors": vectors(1).tolist()}}
            by_name = {"fingerprint": edge.identity.fingerprint.hex}
            for params in (maker(edge), by_name):
                answer = service.ask("POST", SEARCH, params=params, **sent)
                refused(answer, 403, "not-certified", "certificate proves", "samespace verify")
            assert [m["model"]["name"] for m in models(service)] == ["cloud"]
            gallery.admit(certificate)
            for params in (maker(edge), by_name):
                answer = service.ask("POST", SEARCH, params=params, **sent)
                assert answer.json()["results"][0][0]["id"] == "a"
            assert [m["model"]["name"] for m in models(service)] == ["cloud", "edge"]
        events = [line for line in service.lines() if line["event"] == "not certified"]
        assert [line["model"] for line in events] == [str(edge.identity)]


def models(service: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.ask("GET", "/v1/models").json()["models"]
    return found


# stopped and killed


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_what_runs_is_finished_before_it_stops(
    make_gallery: MakeGallery, tmp_path: Path, workers: int
) -> None:
    options = ["--workers", workers, "--rate", 0]
    with serving(make_gallery(tmp_path / "shop"), tmp_path / "log", *options) as service:
        held = [slow_request(service, GET_ONE, "/v1/items/get") for _ in range(4 * workers)]
        all_are_held = f"samespace_requests_held {len(held) + 1}.0\n"  # with the one that asks
        until(lambda: all_are_held in service.ask("GET", "/metrics").text)
        serve = service.workers()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # for a service that does not wait to end
        assert service.process.poll() is None, "it waits"
        for connection, rest in held:
            connection.sendall(rest)
            assert answer_of(connection).startswith(b"HTTP/1.1 200")
            connection.close()
        assert service.process.wait(PATIENCE) == 0
        assert not psutil.wait_procs(serve, PATIENCE)[1]
        with pytest.raises(httpx.TransportError):
            ask("GET", f"{service.url}/healthz")
        events = [line["event"] for line in service.lines()]
        assert events.count("closed") == workers
        assert "error" not in events


class Writers:
    """Threads that add one item after the other, and remember what was acknowledged."""

    def __init__(self, service: Running, cloud: Embedder, first: str, count: int = 3) -> None:
        self.acknowledged: dict[str, int] = {}
        self._service, self._cloud, self._first = service, cloud, first
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(i,)) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        n = 0
        service = self._service
        with httpx.Client(
            base_url=service.url, headers=service.headers, timeout=PATIENCE, verify=False
        ) as client:
            while not self._over.is_set():
                id_, seed = f"{self._first}-{number}-{n}", number * 100_000 + n
                n += 1
                sent = {"ids": [id_], "vectors": vectors(1, seed).tolist(), "payloads": [seed]}
                try:
                    answer = client.post(ADD, params=maker(self._cloud), json=sent)
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                if answer.status_code == 200:
                    self.acknowledged[id_] = seed

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.acknowledged) >= count, every=0.01)

    def stop(self) -> dict[str, int]:
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.acknowledged


def all_there(records: dict[str, tuple[np.ndarray, object]], acknowledged: dict[str, int]) -> None:
    for id_, seed in acknowledged.items():
        vector, payload = records[id_]
        assert payload == seed
        assert np.allclose(vector, vectors(1, seed)[0], atol=1e-6)


def stored(path: Path, ids: list[str]) -> dict[str, tuple[np.ndarray, object]]:
    with Gallery.open(path) as gallery:
        return {r.id: (r.vector, r.payload) for r in gallery.get(ids)}


def killed_service(path: Path, log: Path, cloud: Embedder, rounds: int) -> None:
    """Kill -9 the service while it writes, again and again."""
    acknowledged: dict[str, int] = {}
    for n in range(rounds):
        service = start(path, log, "--rate", 0)
        try:
            writers = Writers(service, cloud, f"round{n}")
            writers.wait_for(10)
            time.sleep(random.uniform(0, 0.2))
        finally:
            service.process.kill()
            service.process.wait()
        acknowledged |= writers.stop()
        all_there(stored(path, list(acknowledged)), acknowledged)


def killed_workers(path: Path, log: Path, cloud: Embedder, rounds: int) -> None:
    """Kill -9 one of two workers while they write, again and again."""
    with serving(path, log, "--rate", 0, "--workers", 2) as service:
        writers = Writers(service, cloud, "w", count=4)
        for n in range(rounds):
            writers.wait_for(len(writers.acknowledged) + 10)
            before = {p.pid for p in service.workers()}
            victim = random.choice(sorted(before))
            if n % 2 == 0:  # killed while it is asked whether it still answers
                os.kill(victim, signal.SIGSTOP)
                time.sleep(1)
            os.kill(victim, signal.SIGKILL)
            until(lambda: {p.pid for p in service.workers()} - before)  # noqa: B023
        writers.wait_for(len(writers.acknowledged) + 10)
        acknowledged = writers.stop()
        all_there(stored(path, list(acknowledged)), acknowledged)
        # Every worker answers for what every other one wrote, each on connections of its own.
        ids = sorted(acknowledged)
        for _ in range(6):
            for start_ in range(0, len(ids), 200):
                some = ids[start_ : start_ + 200]
                answer = service.ask("POST", "/v1/items/get", json={"ids": some})
                assert answer.status_code == 200
        well(service)


def test_a_killed_service_loses_nothing(
    make_gallery: MakeGallery, tmp_path: Path, cloud: Embedder
) -> None:
    killed_service(make_gallery(tmp_path / "shop"), tmp_path / "log", cloud, rounds=1)


def test_a_killed_worker_loses_nothing(
    make_gallery: MakeGallery, tmp_path: Path, cloud: Embedder
) -> None:
    killed_workers(make_gallery(tmp_path / "shop"), tmp_path / "log", cloud, rounds=1)


@pytest.mark.slow
def test_killed_many_times(
    make_gallery: MakeGallery, tmp_path: Path, cloud: Embedder, request: pytest.FixtureRequest
) -> None:
    rounds = request.config.getoption("--kill-rounds")
    path = make_gallery(tmp_path / "shop")
    killed_service(path, tmp_path / "log", cloud, rounds)
    killed_workers(path, tmp_path / "log", cloud, rounds)


@pytest.mark.slow
def test_workers_go_when_their_parent_is_killed(
    make_gallery: MakeGallery, tmp_path: Path, cloud: Embedder
) -> None:
    path = make_gallery(tmp_path / "shop")
    service = start(path, tmp_path / "log", "--rate", 0, "--workers", 2)
    until(lambda: [line["event"] for line in service.lines()].count("ready") == 2)
    writers = Writers(service, cloud, "p")
    writers.wait_for(10)
    workers = service.workers()
    assert len(workers) == 2
    service.process.kill()
    service.process.wait()
    _, alive = psutil.wait_procs(workers, PATIENCE)
    acknowledged = writers.stop()
    assert not alive
    all_there(stored(path, list(acknowledged)), acknowledged)
