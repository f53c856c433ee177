"""The page of a running upgrade, while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from samespace import Dataset, Embedder, Gallery
from samespace.gallery import Pictures
from tests.sdk.service_process import new_key, serving
from tests.web.browser import Seen, needs_browser, visit
from tests.web.conftest import Place, options
from tests.web.scene import furnish

pytestmark = needs_browser


def test_no_upgrade(place: Place) -> None:
    seen = visit("upgrade", **place.where)
    assert seen["errors"] == []
    assert seen["none"]["state"].startswith("No upgrade is under way.")
    items = len(place.scene.dataset.gallery)
    assert seen["none"]["models"] == [f"cloud · onnx-fp32{items} of {items}"]


@pytest.mark.parametrize("screen", ["phone"])
def test_a_half_done_upgrade_and_the_rest_of_it(
    bundles: dict[str, Path], shop: Dataset, tmp_path: Path, screen: str
) -> None:
    scene = furnish(tmp_path, bundles, shop)
    items = len(scene.dataset.gallery)
    originals = Pictures(Embedder(bundles["edge"]), scene.pictures)
    (gone,) = {scene.dataset.gallery[0].path}
    (scene.pictures / gone).unlink()
    key = new_key(scene.folder, "visitor", "read")

    def run(limit: int | None) -> int:
        with Gallery.open(scene.folder) as gallery:
            return gallery.upgrade.run(originals, limit=limit, batch=16).done

    done = run(items // 2)
    assert 0 < done < items - 1

    def go_on(half: Seen) -> None:
        assert half["share"] == f"{100 * done / items:.1f} %"
        assert half["bar"] == pytest.approx(done / items)
        assert half["count"] == f"{done} of {items} items"
        assert "embedded anew with edge · onnx-fp32" in half["state"]
        assert f"edge · onnx-fp32{done} of {items}" in half["models"]
        assert run(None) == items - 1

    with serving(scene.folder, tmp_path / "log", *options(scene), key=key) as running:
        seen = visit("upgrade", go_on, url=running.url, key=key, screen=screen)
    assert seen["errors"] == []
    assert seen["half"]["overflow"] == seen["all"]["overflow"] == 0
    assert seen["all"]["share"] == f"{100 * (items - 1) / items:.1f} %"
    assert f"edge · onnx-fp32{items - 1} of {items}" in seen["all"]["models"]
    # The item whose picture is gone is named, and keeps its old vector.
    (aside,) = seen["all"]["aside"]
    assert aside == "1 item could not be embedded anew and keeps its old vector"
    assert seen["all"]["why"] == [f"{gone}: its picture is gone"]
    assert f"cloud · onnx-fp321 of {items}" in seen["all"]["models"]
