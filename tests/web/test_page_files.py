"""What the page's addresses give out, and when it cannot be served; no browser is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from samespace import Embedder, Gallery
from samespace.service import ServiceConfig, _page
from samespace.service._page import WEB, check_page
from samespace_edge import Bundle, ConfigError
from tests.patience import PATIENCE
from tests.sdk.service_process import serving
from tests.web.browser import ROOT
from tests.web.conftest import Place
from tests.web.scene import GOLDEN, Scene, replace_golden

built = pytest.mark.skipif(
    not (WEB / "vendor").exists(), reason="no scripts of the page: 'make web' builds them"
)


@built
def test_the_page_gives_out_nothing_else(place: Place) -> None:
    ask = place.running.ask
    answer = ask("GET", "/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "'unsafe-inline'" not in policy
    assert "'unsafe-eval'" not in policy
    assert "http" not in policy
    for path in ("/page/../_keys.py", "/page/%2e%2e/_keys.py", "/page/bundle/../manifest.json"):
        assert ask("GET", path).status_code == 404
    assert ask("GET", "/v1/pictures/%2e%2e/furniture/gallery.sqlite").status_code == 404
    nobody = {"authorization": ""}
    item = place.scene.dataset.gallery[0].path
    assert ask("GET", f"/v1/pictures/{item}", headers=nobody).status_code == 401
    assert ask("GET", f"/v1/pictures/{item}").headers["content-type"] == "image/jpeg"
    assert ask("GET", "/page/bundle/manifest.json", headers=nobody).status_code == 200


@built
def test_every_file_of_the_bundle_is_given_out_golden_ones_too(place: Place) -> None:
    bundle = Bundle.open(place.scene.bundles["edge"])
    assert GOLDEN in bundle.manifest.files
    for name in bundle.manifest.files:
        answer = place.running.ask("GET", f"/page/bundle/{name}", headers={"authorization": ""})
        assert answer.content == bundle.read(name), name


@pytest.mark.parametrize("spoiled", ["no JSON", "{}", '{"images": [{}]}'])
def test_golden_vectors_that_browsers_would_refuse(
    scene: Scene, copied: Path, spoiled: str
) -> None:
    replace_golden(copied, spoiled)
    config = ServiceConfig(str(scene.folder), page=str(copied))
    with pytest.raises(ConfigError, match=r"golden\.json of the page's bundle is malformed"):
        check_page(config)


def test_bundles_without_golden_vectors_weigh_what_their_file_does(copied: Path) -> None:
    def fetched() -> tuple[int, int]:
        bundle = Bundle.open(copied)
        graph = _page._graph(bundle.manifest)
        return _page._fetched(bundle, graph), graph.bytes

    whole, graph = fetched()
    assert whole > graph
    replace_golden(copied, None)
    assert fetched() == (graph, graph)


@built
def test_files_are_packed_and_sent_once(place: Place) -> None:
    path = "/page/vendor/onnxruntime/ort-wasm-simd-threaded.wasm"
    packed = place.running.ask("GET", path, headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-type"] == "application/wasm"
    assert int(packed.headers["content-length"]) < len(packed.content) / 3
    whole = place.running.ask("GET", path, headers={"accept-encoding": "identity"})
    assert whole.content == packed.content == (WEB / path.removeprefix("/page/")).read_bytes()
    for got in (packed, whole):
        again = {
            "if-none-match": got.headers["etag"],
            "accept-encoding": got.headers.get("content-encoding", "identity"),
        }
        answer = place.running.ask("GET", path, headers=again)
        assert (answer.status_code, answer.content) == (304, b"")


def test_no_page_says_how_to_have_one(scene: Scene, tmp_path: Path) -> None:
    Gallery.create(tmp_path / "shop", Embedder(scene.bundles["cloud"])).close()
    with serving(tmp_path / "shop", tmp_path / "log") as running:
        answer = running.ask("GET", "/")
    assert answer.status_code == 404
    assert "--page" in answer.json()["detail"]


def test_scripts_that_were_not_built(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(WEB, tmp_path / "web", ignore=shutil.ignore_patterns("vendor"))
    monkeypatch.setattr(_page, "WEB", tmp_path / "web")
    config = ServiceConfig(str(scene.folder), page=str(scene.bundles["edge"]))
    with pytest.raises(ConfigError, match="run 'make web'"):
        check_page(config)


def test_a_bundle_that_browsers_cannot_run(scene: Scene) -> None:
    manifest = Bundle.open(scene.bundles["edge"]).manifest
    variants = tuple(replace(v, format="tflite") for v in manifest.variants)
    with pytest.raises(ConfigError, match=r"'edge' has no ONNX file.*--to onnx"):
        _page._graph(replace(manifest, variants=variants))


@built
def test_the_wheel_carries_the_page(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    for file in WEB.rglob("*"):
        if file.is_file():
            assert f"samespace/service/web/{file.relative_to(WEB).as_posix()}" in names
