"""A shop of furniture, served with its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from samespace import Dataset
from tests.sdk.service_process import Running, new_key, serving
from tests.web.scene import Scene, furnish


@dataclass(frozen=True)
class Place:
    """A served scene.

    Attributes:
        scene: what is served.
        running: the service.
        key: with the scope `read`.
    """

    scene: Scene
    running: Running
    key: str

    @property
    def where(self) -> dict[str, str]:
        """What every visit needs."""
        return {"url": self.running.url, "key": self.key}

    def gallery_picture(self, place: int) -> str:
        """The picture of an item."""
        return str(self.scene.pictures / self.scene.dataset.gallery[place].path)


def options(scene: Scene, page: str = "edge") -> list[object]:
    """Of `samespace serve`."""
    return [
        *("--bundle", scene.bundles["cloud"]),
        *("--page", scene.bundles[page]),
        *("--images", scene.pictures),
    ]


@pytest.fixture(scope="session")
def scene(
    bundles: dict[str, Path], shop: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    return furnish(tmp_path_factory.mktemp("scene"), bundles, shop)


@pytest.fixture(scope="session")
def place(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    key = new_key(scene.folder, "visitor", "read")
    log = tmp_path_factory.mktemp("log") / "log"
    with serving(scene.folder, log, *options(scene), key=key) as running:
        yield Place(scene, running, key)


@pytest.fixture(scope="session")
def flips(scene: Scene) -> list[str]:
    """Query pictures for which the two models find another item first."""
    here, there = scene.found("edge"), scene.found("cloud")
    return [query for query in here if here[query][0] != there[query][0]]
