"""Everybody can use the page, and nothing but its own scripts can."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web.browser import needs_browser, visit
from tests.web.conftest import Place

pytestmark = needs_browser

STATES = ("key", "empty", "search", "compare", "error", "models", "upgrade")


@pytest.mark.parametrize("screen", ["desk", "phone"])
def test_axe_finds_nothing(place: Place, flips: list[str], tmp_path: Path, screen: str) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    seen = visit(
        "audit",
        **place.where,
        picture=place.gallery_picture(40),
        flip=str(place.scene.queries / flips[0]),
        bad=str(tmp_path / "notes.jpg"),
        screen=screen,
    )
    assert seen["errors"] == []
    assert seen["looked"] == [f"{s}, {c}" for c in ("light", "dark") for s in STATES]
    assert seen["found"] == []


def test_contrast(place: Place) -> None:
    seen = visit("contrast", **place.where)
    for scheme in ("light", "dark"):
        low = {pair: ratio for pair, ratio in seen[scheme]["text"] if ratio < 4.5}
        faint = {pair: ratio for pair, ratio in seen[scheme]["edges"] if ratio < 3}
        assert (scheme, low, faint) == (scheme, {}, {})


def test_the_keyboard_is_enough(place: Place) -> None:
    seen = visit("keyboard", **place.where, picture=place.gallery_picture(3))
    assert seen["errors"] == []
    order = [name for name, _ in seen["order"]]
    assert order[:3] == ["key-value", "Skip to the content", "file"]
    assert order[-1] == "matrix-place"
    assert all(outline == "solid" for _, outline in seen["order"])  # the focus is seen everywhere
    assert seen["skipped"] == ["main", ""]
    assert seen["title"] == ["models-title", "Models · furniture"]


def test_nothing_moves_for_who_asked_for_that(place: Place) -> None:
    seen = visit("motion", url=place.running.url)
    assert seen["usual"][0] != "0s"
    assert all(part == "0s" for value in seen["reduced"] for part in value.split(", "))


def test_the_policy_stops_what_is_not_the_page(place: Place) -> None:
    stopped = {"script-src-elem", "style-src-elem", "connect-src", "img-src"}
    seen = visit("policy", kinds=len(stopped), **place.where)
    assert not seen["ran"]
    assert set(seen["found"]) == stopped
