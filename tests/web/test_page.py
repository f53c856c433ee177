"""The service's web page in a real Chromium, driven by Playwright.

Needs node, Chromium, and what `make web` builds: `make test-web` has all of it.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from samespace import Embedder
from samespace_edge import Bundle
from tests.web.browser import Seen, needs_browser, visit
from tests.web.conftest import Place

pytestmark = needs_browser


def carried(seen: Seen) -> list[Seen]:
    """The requests that carried something; no other could have."""
    assert all(r["bytes"] for r in seen["asked"] if r["method"] not in ("GET", "HEAD"))
    return [request for request in seen["asked"] if request["bytes"]]


@pytest.mark.parametrize("screen", ["desk", "phone"])
def test_a_picture_finds_its_product_and_only_its_vector_travels(place: Place, screen: str) -> None:
    item = place.scene.dataset.gallery[40]
    picture = place.gallery_picture(40)
    seen = visit("search", **place.where, picture=picture, screen=screen)
    assert seen["errors"] == []
    assert seen["ids"][0] == item.path
    assert seen["labels"][0] == item.label
    assert len(seen["ids"]) == len(set(seen["ids"])) == 12
    assert seen["scores"] == sorted(seen["scores"], reverse=True)
    assert seen["scores"][0] > 0.99
    assert seen["pictures"] == 12
    assert seen["status"] == f"12 found, first {item.label}."
    assert seen["items"] == f"{len(place.scene.dataset.gallery)} items"
    assert seen["capture"] == "environment"
    assert seen["overflow"] == 0  # nothing sticks out of the screen
    # One body left this device, to one place: the very vector that Python makes of the picture.
    assert {request["origin"] for request in seen["asked"]} <= {place.running.url, "null"}
    (sent,) = carried(seen)
    assert sent["path"] == "/v1/search/vectors"
    assert sent["bytes"] == 4 * Embedder(place.scene.bundles["edge"]).identity.dim
    vector = np.frombuffer(base64.b64decode(sent["body"]), "<f4")
    expected = Embedder(place.scene.bundles["edge"]).embed([Path(picture).read_bytes()])[0]
    np.testing.assert_allclose(vector, expected, atol=1e-4)
    costs = " ".join(seen["costs"])
    assert f"sent: a vector{4 * expected.size} B" in costs
    assert "ms of it to embed" in costs


def test_only_the_first_visit_fetches_golden_vectors(place: Place) -> None:
    picture = place.gallery_picture(40)
    seen = visit("again", **place.where, picture=picture)
    assert seen["errors"] == []
    bundle = Bundle.open(place.scene.bundles["edge"])
    pictures = json.loads(bundle.read("golden/golden.json"))["images"]
    compared = ["golden/golden.json", *(f"golden/{p['resized']}" for p in pictures)]
    first, second = ([p.removeprefix("/page/bundle/") for p in v] for v in seen["visits"])
    assert first == sorted([*compared, "manifest.json", "model.onnx"])
    assert second == ["manifest.json", "model.onnx"]
    # What the page announces is what these weigh.
    about = place.running.ask("GET", "/page/about.json").json()
    sizes = [(bundle.path / name).stat().st_size for name in first if name != "manifest.json"]
    assert about["bytes"] == sum(sizes)


@pytest.mark.parametrize("screen", ["desk", "phone"])
def test_both_lists_with_flips_marked(place: Place, flips: list[str], screen: str) -> None:
    query = flips[0]
    picture = place.scene.queries / query
    seen = visit("compare", **place.where, picture=str(picture), screen=screen)
    assert seen["errors"] == []
    here, there = place.scene.found("edge")[query], place.scene.found("cloud")[query]
    assert seen["here"]["ids"] == here
    assert seen["there"]["ids"] == there
    for shown, own, other in (("here", here, there), ("there", there, here)):
        marked = seen[shown]["marked"]
        assert [m["id"] for m in marked if m["isFlip"]] == own[:1]
        lone = [i for i in own[1:] if i not in other]
        assert [m["id"] for m in marked if not m["isFlip"]] == lone
        assert all(m["text"] == "only in this list" for m in marked if not m["isFlip"])
    both = len(set(here) & set(there))
    assert seen["agreement"].startswith("A flip: each finds another item first.")
    assert f"{both} of 12 items are in both lists" in seen["agreement"]
    assert "the server gets the picture as well" in seen["promise"]
    # Side by side, and level, on the phone too.
    (left, top), (right, also) = seen["tops"]
    assert right > left
    assert top == pytest.approx(also, abs=1)
    assert seen["overflow"] == 0
    # Each list says what it took; the picture went to the server as it is.
    size = picture.stat().st_size
    assert "sent: a vector96 B" in seen["here"]["costs"]
    assert any(cost.startswith("sent: the picture") for cost in seen["there"]["costs"])
    assert all(seen[of]["costs"][0].endswith("ms") for of in ("here", "there"))
    to_server = [r for r in carried(seen) if r["path"] == "/v1/search/pictures"]
    assert [r["bytes"] for r in to_server] == [size]


def test_lists_that_agree_have_no_flip(place: Place) -> None:
    seen = visit("compare", **place.where, picture=place.gallery_picture(7))
    first = place.scene.dataset.gallery[7].path
    assert seen["here"]["ids"][0] == seen["there"]["ids"][0] == first
    assert not any(m["isFlip"] for m in seen["here"]["marked"] + seen["there"]["marked"])
    assert seen["agreement"].startswith("Both find the same item first.")


@pytest.mark.parametrize("screen", ["desk", "phone"])
def test_the_matrix_and_the_certificates(place: Place, screen: str) -> None:
    seen = visit("models", **place.where, screen=screen)
    assert seen["errors"] == []
    (head,) = seen["head"]
    assert head[1:] == [["cloud · onnx-fp32", f"{len(place.scene.dataset.gallery)} items"]]
    anchor, edge = seen["body"]
    assert anchor[0] == ["cloud · onnx-fp32", "the gallery’s anchor, on the server"]
    assert anchor[1] == ["its own vectors"]
    assert edge[0] == ["edge · onnx-fp32", "in this page, for download"]
    assert edge[1][0] == "100.0 %"
    assert edge[1][1].endswith("points above poor (onnx-fp32)")
    (certificate,) = seen["certificates"]
    for part in ("edge · onnx-fp32", "shop: 32 queries in 16 pictures", "R@1 100.0 %", "digest"):
        assert part in certificate
    assert seen["overflow"] == 0
