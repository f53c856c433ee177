"""The service's web page in a real Chromium, driven by Playwright.

Needs node, Chromium, and what `make web` builds: `make test-web` has all of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from samespace import Dataset, Embedder, Gallery
from samespace.service._page import WEB
from samespace.verification import verify, write_certificates
from tests.sdk.service_process import Running, new_key, serving

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
LACKING = [
    what
    for what, there in (
        ("node", shutil.which("node")),
        (CHROMIUM, shutil.which(CHROMIUM)),
        ("playwright-core", (ROOT / "edge_runtime/web/node_modules/playwright-core").exists()),
        ("the page's scripts", (WEB / "vendor").exists()),
    )
    if not there
]
pytestmark = pytest.mark.skipif(
    bool(LACKING), reason=f"no {', no '.join(LACKING)}: 'make test-web' runs this"
)


@pytest.fixture(scope="module")
def place(
    bundles: dict[str, Path], shop: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Path, str]]:
    """A service with its page, a folder of the items' pictures, and a key."""
    folder = tmp_path_factory.mktemp("page")
    cloud = Embedder(bundles["cloud"])
    report = verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=bundles["poor"])
    (certificate,) = write_certificates(report, folder).values()
    pictures = folder / "pictures"
    with Gallery.create(folder / "shop", cloud) as gallery:
        gallery.admit(certificate)
        for item in shop.gallery:
            (pictures / item.path).parent.mkdir(parents=True, exist_ok=True)
            (pictures / item.path).write_bytes(shop.read(item))
        gallery.add(
            [item.path for item in shop.gallery],
            images=[shop.read(item) for item in shop.gallery],
            model=cloud,
            payloads=[{"label": item.label} for item in shop.gallery],
        )
    key = new_key(folder / "shop", "visitor", "read")
    options = ["--bundle", bundles["cloud"], "--page", bundles["edge"], "--images", pictures]
    with serving(folder / "shop", folder / "log", *options, key=key) as running:
        yield running, pictures, key


def visit(what: str, **given: Any) -> dict[str, Any]:
    """What the browser saw; see page.mjs."""
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("page.mjs")), what, json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CHROMIUM": CHROMIUM},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["errors"] == []
    return found


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_a_dropped_picture_finds_its_product(
    place: tuple[Running, Path, str], shop: Dataset, width: int
) -> None:
    running, pictures, key = place
    item = shop.gallery[3]
    found = visit(
        "search", url=running.url, key=key, picture=str(pictures / item.path), width=width
    )
    assert found["ids"][0] == item.path
    assert found["labels"][0] == item.label
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert found["scores"][0] > 0.99
    assert found["pictures"] == len(found["ids"])
    # Only the vector travelled.
    assert all(r["path"].startswith("/v1/search/vectors?") for r in found["sent"])
    dim = Embedder(place_bundle(running)).identity.dim
    # Once without a key, and once with it.
    assert [r["bytes"] for r in found["sent"]] == [4 * dim, 4 * dim]
    assert found["overflow"] == 0  # nothing sticks out of the screen


def place_bundle(running: Running) -> str:
    """The bundle that the page runs."""
    words = running.process.args
    assert isinstance(words, list)
    return str(words[words.index("--page") + 1])


def test_both_lists_with_what_differs_between_them(
    place: tuple[Running, Path, str], shop: Dataset
) -> None:
    running, pictures, key = place
    picture = str(pictures / shop.gallery[3].path)
    found = visit("compare", url=running.url, key=key, picture=picture, width=1280)
    here, there = found["here"], found["there"]
    assert there["ids"][0] == shop.gallery[3].path
    lone = [i for i in here["ids"] if i not in there["ids"]]
    assert {m["id"] for m in here["marked"] if m["text"] == "only in this list"} == set(lone)
    assert f"{len(here['ids']) - len(lone)} of {len(here['ids'])} items" in found["agreement"]
    assert "embedded in" in here["costs"]
    assert "sent" in there["costs"]


def test_models_and_upgrade(place: tuple[Running, Path, str]) -> None:
    running, _, key = place
    found = visit("look", url=running.url, key=key, width=1280)
    assert [row[0] for row in found["models"]] == ["cloud", "edge"]
    assert "anchor" in found["models"][0][-1]
    assert "points above poor" in found["models"][1][-1]
    assert all(cell.endswith(" %") for cell in found["models"][1][3:7])
    assert found["upgrade"] == "No upgrade is under way: all items are of one model."


def test_what_is_no_picture_and_a_wrong_key(
    place: tuple[Running, Path, str], tmp_path: Path
) -> None:
    running, _, key = place
    (tmp_path / "notes.jpg").write_text("no picture")
    found = visit("refused", url=running.url, key=key, picture=str(tmp_path / "notes.jpg"))
    assert found["asked"] == 2  # the wrong key was refused, and asked for again
    assert "notes.jpg" in found["error"]


def test_the_page_gives_out_nothing_else(place: tuple[Running, Path, str]) -> None:
    running, _, _ = place
    answer = running.ask("GET", "/")
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]
    for path in ("/page/../_keys.py", "/page/%2e%2e/_keys.py", "/page/bundle/../manifest.json"):
        assert running.ask("GET", path).status_code == 404
    assert running.ask("GET", "/v1/pictures/%2e%2e/shop/gallery.sqlite").status_code == 404
    nobody = {"authorization": ""}
    assert running.ask("GET", "/v1/pictures/x.png", headers=nobody).status_code == 401
    assert running.ask("GET", "/page/bundle/manifest.json", headers=nobody).status_code == 200
