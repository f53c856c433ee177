"""The service as it is asked: every route, and everything that it refuses."""

from __future__ import annotations

import io
import json
import socket
import struct
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from samespace import Dataset, Embedder, ModelIdentity
from samespace.service._config import KEYS_FILE
from tests.patience import PATIENCE
from tests.sdk.conftest import MakeGallery
from tests.sdk.service_process import Running, ask, new_key, serving
from tests.sdk.test_gallery import DIM, vectors

ADD = "/v1/items/vectors"
SEARCH = "/v1/search/vectors"


@pytest.fixture(scope="module")
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture(scope="module")
def edge(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["edge"])


def maker(model: ModelIdentity | Embedder) -> dict[str, str]:
    identity = model.identity if isinstance(model, Embedder) else model
    return {"fingerprint": identity.fingerprint.hex, "variant": identity.variant_sha256}


def body(ids: list[str], x: np.ndarray, **more: object) -> dict[str, object]:
    return {"ids": ids, "vectors": x.tolist(), **more}


def refused(answer: httpx.Response, status: int, reason: str, *words: str) -> None:
    """A problem with this status and reason, whose detail has these words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["reason"] == reason
    assert told["type"] == f"urn:samespace:problem:{reason}"
    assert told["status"] == status
    assert told["request_id"] == answer.headers["x-request-id"]
    for word in words:
        assert word in told["detail"]


def well(service: Running) -> None:
    """The service answers as ever."""
    assert service.ask("GET", "/readyz").json() == {"status": "ok"}
    assert service.ask("GET", "/v1/stats").json()["name"] == "shop"


def png(width: int, height: int) -> bytes:
    """A picture of one colour, so many rows that it is small; made without holding it."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = b""
    for kind, content in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")):
        crc = zlib.crc32(kind + content)
        chunks += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)
    return b"\x89PNG\r\n\x1a\n" + chunks


# what it answers


def test_a_picture_finds_its_kind_in_every_way_it_is_sent(service: Running, shop: Dataset) -> None:
    item = shop.queries[0]
    picture = shop.read(item)
    sent = [
        {"content": picture, "headers": {"content-type": "image/png"}},
        {"content": picture, "headers": {"content-type": "application/octet-stream"}},
        {"files": [("image", ("a.png", picture))]},
    ]
    for how in sent:
        answer = service.ask("POST", "/v1/search/pictures?k=2&model=edge", **how)
        assert answer.status_code == 200, answer.text
        (hits,) = answer.json()["results"]
        assert len(hits) == 2
        assert hits[0]["payload"]["label"] == item.label
        assert answer.json()["model"]["name"] == "edge"
    three = [("image", (f"{i}.png", shop.read(q))) for i, q in enumerate(shop.queries[:3])]
    answer = service.ask("POST", "/v1/search/pictures?k=1", files=three)
    assert answer.json()["model"]["name"] == "cloud", "the anchor is the default"
    labels = [hits[0]["payload"]["label"] for hits in answer.json()["results"]]
    assert labels == [q.label for q in shop.queries[:3]]


def test_vectors_of_a_device_search(service: Running, shop: Dataset, edge: Embedder) -> None:
    x = edge.embed([shop.read(q) for q in shop.queries[:4]])
    by_json = service.ask(
        "POST", SEARCH, params={**maker(edge), "k": 3}, json={"vectors": x.tolist()}
    )
    assert by_json.status_code == 200, by_json.text
    binary = {"content": x.astype("<f4").tobytes()}
    binary["headers"] = {"content-type": "application/octet-stream"}
    alone = {"fingerprint": edge.identity.fingerprint.hex, "k": 3}
    by_bytes = service.ask("POST", SEARCH, params=alone, **binary)
    assert by_bytes.json()["results"] == by_json.json()["results"]
    found = [hits[0]["payload"]["label"] for hits in by_json.json()["results"]]
    assert found == [q.label for q in shop.queries[:4]]
    where = {**maker(edge), "filter": json.dumps({"aisle": "1"})}
    filtered = service.ask("POST", SEARCH, params=where, json={"vectors": x.tolist()}).json()
    assert {h["payload"]["aisle"] for hits in filtered["results"] for h in hits} == {"1"}


def test_items_come_are_replaced_and_go(service: Running, cloud: Embedder) -> None:
    x = vectors(2, seed=1)
    ids = ["a/b c", "ü%2F"]
    first = service.ask(
        "POST", ADD, params=maker(cloud), json=body(ids, x, payloads=[{"n": 1}, None])
    )
    assert first.json() == {"items": 2}
    one = service.ask("GET", "/v1/items/a%2Fb%20c?vectors=true").json()
    assert one["payload"] == {"n": 1}
    assert np.allclose(one["vector"], x[0], atol=1e-6)
    again = {**maker(cloud), "replace": "false"}
    refused(service.ask("POST", ADD, params=again, json=body(ids, x)), 409, "duplicate-id", "a/b c")
    new = body([*ids, "c"], vectors(3, seed=2))
    assert service.ask("POST", ADD, params=maker(cloud), json=new).status_code == 200
    got = service.ask("POST", "/v1/items/get", json={"ids": ["c", *ids]}).json()["items"]
    assert [g["id"] for g in got] == ["c", *ids]
    assert got[1]["payload"] is None
    missing = service.ask("POST", "/v1/items/delete", json={"ids": ["c", "nobody"]})
    refused(missing, 404, "unknown-id", "nobody")
    assert service.ask("DELETE", "/v1/items/a%2Fb%20c").json() == {"items": 1}
    assert service.ask("POST", "/v1/items/delete", json={"ids": ["c", "ü%2F"]}).json()["items"] == 2
    refused(service.ask("GET", "/v1/items/c"), 404, "unknown-id")


def test_pictures_are_added(service: Running, shop: Dataset) -> None:
    pictures = [("image", ("x", shop.read(q))) for q in shop.queries[:2]]
    form = {"id": ["p0", "p1"], "payload": ['{"n": 0}', "null"]}
    done = service.ask("POST", "/v1/items/pictures", files=pictures, data=form)
    assert done.status_code == 200, done.text
    found = service.ask("POST", "/v1/search/pictures?k=1", files=pictures[:1]).json()["results"]
    assert found[0][0]["id"] == "p0"
    assert found[0][0]["score"] == pytest.approx(1, abs=1e-5)
    wrong = service.ask("POST", "/v1/items/pictures", files=pictures, data={"id": "p0"})
    refused(wrong, 422, "bad-request", "1 ids for 2 pictures")
    assert service.ask("POST", "/v1/items/delete", json={"ids": ["p0", "p1"]}).status_code == 200


def test_it_tells_of_itself(service: Running, cloud: Embedder, edge: Embedder) -> None:
    stats = service.ask("GET", "/v1/stats").json()
    assert stats["space"] == cloud.identity.space.hex
    assert stats["by_model"][0]["model"] == cloud.identity.to_json()
    models = service.ask("GET", "/v1/models").json()["models"]
    assert [m["model"]["name"] for m in models] == ["cloud", "edge"]
    assert models[0]["certificate"] is None
    assert models[1]["certificate"]["query"] == edge.identity.to_json()
    assert all(m["runs_here"] for m in models)
    assert service.ask("GET", "/v1/upgrade").json() == {"upgrade": None}
    assert ask("GET", f"{service.url}/healthz").json() == {"status": "ok"}
    assert ask("GET", f"{service.url}/openapi.json").json()["info"]["title"] == "samespace"
    text = service.ask("GET", "/metrics").text
    for word in (
        'samespace_requests_total{method="GET",route="/v1/stats",status="200"}',
        "samespace_request_seconds_bucket",
        "samespace_recall_canary 1.0",
        "samespace_backfilled_share 1.0",
        "samespace_items ",
    ):
        assert word in text


# what it refuses


def test_only_who_may_is_served(service: Running, cloud: Embedder) -> None:
    bare = {"json": {"vectors": [[1.0] * DIM]}, "params": maker(cloud)}
    for shown in (None, "Bearer", "Bearer sks_x_y", "Basic abc", "Bearer " + "é" * 40):
        headers = {} if shown is None else {"authorization": shown.encode("utf-8")}
        answer = ask("POST", service.url + SEARCH, headers=headers, **bare)
        refused(answer, 401, "no-key", "Authorization: Bearer KEY")
        assert answer.headers["www-authenticate"] == "Bearer"
    real = service.headers["authorization"]
    wrong = {"authorization": real[:-1] + ("a" if real[-1] != "a" else "b")}
    refused(ask("GET", f"{service.url}/v1/stats", headers=wrong), 401, "no-key")
    refused(ask("GET", f"{service.url}/metrics"), 401, "no-key")
    well(service)


def test_scopes(service: Running, cloud: Embedder) -> None:
    well(service)
    gallery = Path(service.process.args[4])  # type: ignore[index]
    file = gallery / KEYS_FILE
    scopes = {"read": new_key(gallery, "phone"), "write": new_key(gallery, "till", "write")}
    for key in scopes.values():
        service.follows(key)
    x = vectors(1, seed=3)
    calls = {
        "read": ("POST", SEARCH, {"params": maker(cloud), "json": {"vectors": x.tolist()}}),
        "write": ("POST", ADD, {"params": maker(cloud), "json": body(["w"], x)}),
    }
    for scope, key in scopes.items():
        for needed, (method, path, more) in calls.items():
            headers = {"authorization": f"Bearer {key}", "x-request-id": f"{scope}-{needed}"}
            answer = service.ask(method, path, headers=headers, **more)
            if needed == scope:
                assert answer.status_code == 200, answer.text
            else:
                refused(answer, 403, "no-scope", f"scope {needed}")
            named = service.line(f"{scope}-{needed}")["key"]
            assert named == {"read": "phone", "write": "till"}[scope]
    text = file.read_text() + service.log.read_text()
    for key in (*scopes.values(), service.headers["authorization"].split()[1]):
        assert key not in text
        assert key.split("_", 2)[2] not in text
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_phone_cannot_poison_the_index(
    service: Running, bundles: dict[str, Path], cloud: Embedder
) -> None:
    before = service.ask("GET", "/v1/items/item01%2F0.png?vectors=true").json()
    x = vectors(1, seed=4)
    unknown = {"fingerprint": "ab" * 32, "variant": "cd" * 32}
    stranger = maker(Embedder(bundles["stranger"]))
    other_file = {**maker(cloud), "variant": "0" * 64}
    for who in (unknown, stranger, other_file):
        for path, sent in ((ADD, body(["item01/0.png"], x)), (SEARCH, {"vectors": x.tolist()})):
            answer = service.ask("POST", path, params=who, json=sent)
            refused(answer, 403, "not-certified", who["fingerprint"][:12], "samespace verify")
    picture = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(picture, "PNG")
    files = [("image", ("x", picture.getvalue()))]
    by_picture = service.ask(
        "POST", "/v1/items/pictures?model=stranger", files=files, data={"id": "item01/0.png"}
    )
    refused(by_picture, 403, "not-certified", "belongs to space")
    alone = {"fingerprint": cloud.identity.fingerprint.hex}
    refused(
        service.ask("POST", ADD, params=alone, json=body(["x"], x)), 422, "bad-request", "variant"
    )
    assert service.ask("GET", "/v1/items/item01%2F0.png?vectors=true").json() == before


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ('{"vectors": [[1, 2]]}', "wrong-width"),
        ('{"vectors": [[1, 2], [3]]}', "wrong-width"),
        ('{"vectors": [[' + "NaN," * (DIM - 1) + "1]]}", "bad-vector"),
        ('{"vectors": [[' + "1e300," * (DIM - 1) + "1]]}", "bad-vector"),
        ('{"vectors": [[' + "0," * (DIM - 1) + "0]]}", "bad-vector"),
        ('{"vectors": []}', "bad-request"),
        ('{"vectors": "x"}', "bad-request"),
        ('{"vectors"', "bad-request"),
        ("[" * 100_000, "bad-request"),
        ('{"vectors": [[1]], "more": 1}', "bad-request"),
        ('{"vectors": [' + ",".join(["[1]"] * 65) + "]}", "bad-request"),
    ],
)
def test_vectors_that_are_none(service: Running, cloud: Embedder, sent: str, reason: str) -> None:
    headers = {"content-type": "application/json"}
    answer = service.ask("POST", SEARCH, params=maker(cloud), content=sent, headers=headers)
    refused(answer, 422, reason)
    assert len(answer.content) < 2000, "what was sent is not sent back"
    adding = sent.replace("{", '{"ids": ["x"], ', 1)
    answer = service.ask("POST", ADD, params=maker(cloud), content=adding, headers=headers)
    assert answer.status_code == 422
    refused(service.ask("GET", "/v1/items/x"), 404, "unknown-id")


def test_other_requests_that_cannot_be_used(service: Running, cloud: Embedder) -> None:
    x = {"vectors": [[1.0] * DIM]}

    def search(**more: object) -> httpx.Response:
        return service.ask("POST", SEARCH, params={**maker(cloud), **more}, json=x)

    refused(search(k=0), 422, "bad-request", "k")
    refused(search(k=10**9), 422, "bad-request", "k")
    refused(search(filter="{"), 422, "bad-filter", "not JSON")
    refused(search(filter='{"a": {"like": 1}}'), 422, "bad-filter", "like")
    refused(search(filter='{"a\\u0000b": 1}'), 422, "bad-filter")
    refused(search(filter='{"a": "\\ud800"}'), 422, "bad-filter")
    assert search(width=12).status_code == 200  # whole vectors are cut
    cut = {"vectors": [[1.0] * 13]}
    wrong = service.ask("POST", SEARCH, params={**maker(cloud), "width": 12}, json=cut)
    refused(wrong, 422, "wrong-width")
    refused(search(width=DIM), 422, "bad-request", "width")
    refused(search(fingerprint="x"), 422, "bad-request", "fingerprint")
    refused(search(corrected="true"), 422, "bad-request", "correct-hubs")
    binary = {"content-type": "application/octet-stream"}
    odd = service.ask("POST", SEARCH, params=maker(cloud), content=b"123", headers=binary)
    refused(odd, 422, "wrong-width", "96 bytes")
    text = service.ask(
        "POST", SEARCH, params=maker(cloud), content="a", headers={"content-type": "a/b"}
    )
    refused(text, 415, "wrong-type", "application/json")
    refused(
        service.ask("POST", "/v1/search/pictures?model=none", content=b"x", headers=binary),
        422,
        "bad-request",
        "does not run here",
    )
    refused(service.ask("GET", "/v1/nothing"), 404, "not-found")
    refused(service.ask("PUT", "/v1/stats"), 405, "wrong-method")
    nan = json.dumps(body(["n"], vectors(1), payloads=[float("nan")]))
    headers = {"content-type": "application/json"}
    refused(
        service.ask("POST", ADD, params=maker(cloud), content=nan, headers=headers),
        422,
        "bad-request",
        "JSON",
    )
    half = '{"ids": ["\\ud800"], "vectors": [[1]]}'
    refused(
        service.ask("POST", ADD, params=maker(cloud), content=half, headers=headers),
        422,
        "bad-request",
    )
    form = {"content-type": "multipart/form-data; boundary=x"}
    broken = service.ask("POST", "/v1/search/pictures", content=b"--x\r\nnonsense", headers=form)
    assert broken.status_code in (400, 422)
    well(service)


def test_a_bomb_does_not_go_off(service: Running) -> None:
    bomb = png(30_000, 30_000)  # 2.7 GB as RGB
    assert len(bomb) < 400_000
    memory = _resident(service)
    for content in (bomb, png(1001, 1000)):
        answer = service.ask(
            "POST", "/v1/search/pictures", content=content, headers={"content-type": "image/png"}
        )
        refused(answer, 413, "picture-too-large", "1,000,000 pixels")
    for content in (b"", b"GIF89a", png(30, 30)[:40]):
        answer = service.ask(
            "POST", "/v1/search/pictures", content=content, headers={"content-type": "image/gif"}
        )
        refused(answer, 422, "picture-unreadable", "picture 0")
    assert _resident(service) - memory < 64 * 2**20
    well(service)


def _resident(service: Running) -> int:
    import psutil

    return int(psutil.Process(service.process.pid).memory_info().rss)


def test_a_body_is_stopped_at_its_size(service: Running) -> None:
    def endless() -> object:
        for _ in range(10_000):
            yield b"x" * 65536

    for content in (b"x" * 500_000, endless()):
        try:
            answer = service.ask(
                "POST",
                "/v1/search/pictures",
                content=content,
                headers={"content-type": "image/png"},
            )
            refused(answer, 413, "body-too-large", "400,000 bytes")
        except httpx.WriteError:  # the endless one may be cut off while it is still being sent
            assert not isinstance(content, bytes)
    well(service)


def test_a_slow_body_is_cut_off(make_gallery: MakeGallery, tmp_path: Path) -> None:
    head = (
        "POST /v1/search/pictures HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n"
        "content-length: 1000\r\n\r\n"
    )
    options = ["--body-timeout", 0.2]
    with serving(make_gallery(tmp_path / "shop"), tmp_path / "log", *options) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as slow:
            slow.settimeout(PATIENCE)
            slow.sendall(head.encode() + b"x")
            answer = b""
            while part := slow.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"reason":"slow-body"' in answer
        assert b"within 0.2 s" in answer
        well(service)


def test_the_log_has_a_line_for_every_request(service: Running, cloud: Embedder) -> None:
    x = vectors(1, seed=9)
    params = {**maker(cloud), "k": 1}
    headers = {"x-request-id": "mine-1"}
    service.ask("POST", SEARCH, params=params, json={"vectors": x.tolist()}, headers=headers)
    service.ask("GET", "/v1/items/secret-id", headers={"x-request-id": "mine-2"})
    one, other = service.line("mine-1"), service.line("mine-2")
    assert one["route"] == SEARCH
    assert (one["status"], one["key"], one["method"]) == (200, "all", "POST")
    assert one["ms"] > 0
    assert (other["reason"], other["route"]) == ("unknown-id", "/v1/items/{id}")
    text = service.log.read_text()
    assert "secret-id" not in text
    assert f"{x[0, 0]:.5f}"[:7] not in text
    assert "Traceback" not in text
