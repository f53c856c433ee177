"""What goes wrong is told in words that a visitor can act on, and can be put right."""

from __future__ import annotations

import json
from pathlib import Path

from samespace import Embedder, Gallery
from tests.sdk.service_process import new_key, serving, start
from tests.web.browser import needs_browser, visit
from tests.web.conftest import Place, options
from tests.web.scene import GOLDEN, Scene, replace_golden

pytestmark = needs_browser


def test_a_file_that_is_no_picture(place: Place, tmp_path: Path) -> None:
    bad = tmp_path / "notes.jpg"
    bad.write_text("no picture")
    seen = visit(
        "unreadable", **place.where, picture=place.gallery_picture(3), bad=str(bad), screen="phone"
    )
    assert seen["errors"] == []
    for told in (seen["alone"], seen["compared"]):
        assert told["text"].startswith("“notes.jpg” is not a picture that this browser can read.")
        assert "Use a JPEG, PNG or WebP picture." in told["text"]
        assert told["button"] is None  # to try it again would not help
    assert seen["alerts"] == 1  # told once, though the server cannot read it either
    assert seen["left"] == 0  # and gone with the next picture


def test_no_key_a_wrong_one_and_one_without_the_scope(place: Place) -> None:
    writer = new_key(place.scene.folder, "writer", "write")
    seen = visit("keys", **place.where, writer=writer, picture=place.gallery_picture(3))
    assert seen["errors"] == []
    assert seen["none"]["text"].startswith("This gallery asks for a key.")
    assert seen["none"]["button"] == "Enter a key"
    assert "not known here" in seen["refused"]
    assert seen["scope"]["text"].startswith("This key may not read.")
    assert seen["scope"]["button"] == "Use another key"
    assert seen["kept"] == [0, ""]  # only for this tab


def test_a_service_that_goes_away_and_comes_back(scene: Scene, tmp_path: Path) -> None:
    key = new_key(scene.folder, "patient-visitor", "read")
    running = start(scene.folder, tmp_path / "log", *options(scene), key=key)
    started = [running]

    def stop(_: object) -> None:
        running.process.kill()
        running.process.wait()

    def again(_: object) -> None:
        more = start(scene.folder, tmp_path / "log", *options(scene), port=running.port, key=key)
        started.append(more)

    picture = str(scene.pictures / scene.dataset.gallery[3].path)
    try:
        seen = visit("away", stop, again, url=running.url, key=key, picture=picture)
    finally:
        for one in started:
            one.process.kill()
            one.process.wait()
    assert seen["errors"] == []
    for part in ("search", "models", "upgrade"):
        assert seen[part]["text"].startswith("The service does not answer.")
        assert seen[part]["button"] == "Try again"


def test_a_model_that_is_not_certified(scene: Scene, tmp_path: Path) -> None:
    key = new_key(scene.folder, "stranger", "read")
    words = ["--page", scene.bundles["stranger"]]
    with serving(scene.folder, tmp_path / "log", *words, key=key) as running:
        picture = str(scene.pictures / scene.dataset.gallery[3].path)
        seen = visit("uncertified", url=running.url, key=key, picture=picture)
    assert seen["errors"] == []
    assert seen["refused"]["text"].startswith("The gallery does not accept this model’s vectors.")
    assert "samespace gallery admit" in seen["refused"]["text"]
    # Without a model of its own, the service has nothing to compare with, and the page says so.
    assert seen["disabled"]
    assert "--bundle" in seen["hint"]


def test_a_browser_that_computes_other_vectors(scene: Scene, tmp_path: Path, copied: Path) -> None:
    golden = json.loads((copied / GOLDEN).read_text())
    for picture in golden["images"]:
        picture["embedded"]["onnx-fp32"] = [-x for x in picture["embedded"]["onnx-fp32"]]
    replace_golden(copied, json.dumps(golden))
    words = ["--page", copied]
    key = new_key(scene.folder, "elsewhere", "read")
    with serving(scene.folder, tmp_path / "log", *words, key=key) as running:
        seen = visit("departing", url=running.url, key=key)
    assert seen["errors"] == []
    assert seen["refused"]["text"].startswith("This browser computes other vectors than the model")
    assert "onnx-fp32 on wasm by 2, where 0.00001 passes" in seen["refused"]["text"]
    assert seen["refused"]["button"] is None


def test_an_empty_gallery_that_needs_no_key(scene: Scene, tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "shop", Embedder(scene.bundles["cloud"])) as gallery:
        gallery.admit(scene.certificate)
    with serving(tmp_path / "shop", tmp_path / "log", *options(scene)) as running:
        picture = str(scene.pictures / scene.dataset.gallery[3].path)
        seen = visit("empty", url=running.url, picture=picture)
    assert seen["errors"] == []
    assert seen["status"] == "Nothing was found."


def test_too_many_searches(scene: Scene, tmp_path: Path) -> None:
    key = new_key(scene.folder, "hasty", "read")
    words = [*options(scene), "--rate", 0.05, "--burst", 1]
    with serving(scene.folder, tmp_path / "log", *words, key=key) as running:
        picture = str(scene.pictures / scene.dataset.gallery[3].path)
        seen = visit("uncertified", url=running.url, key=key, picture=picture)
    assert seen["refused"]["text"].startswith("Too many searches in a short time. Wait")
    assert seen["refused"]["button"] == "Try again"
