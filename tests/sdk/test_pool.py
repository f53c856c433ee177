"""Pools of processes: order, bounds, and pictures that kill."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from samespace import Embedder
from samespace.pool import HerePool, ProcessPool, embed_each, is_url, located, open_pool, stamp
from samespace_edge import ConfigError, DecodeError, SamespaceError
from tests.conftest import picture
from tests.sdk.indexing_scene import bomb


@pytest.fixture
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{n}.png" for n in range(12)]
    for n, path in enumerate(paths):
        picture(n, 0).save(path)
    return [str(p) for p in paths]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_batch_comes_back_with_its_vectors(
    cloud: Embedder, photos: list[str], workers: int
) -> None:
    batches = [(n, photos[n : n + 3]) for n in range(0, 12, 3)]
    with open_pool(cloud, workers=workers) as pool:
        made = dict(pool.run(batches))
        again = dict(pool.run(batches[:1]))  # the processes are still there
    own = cloud.embed(photos)
    assert np.abs(np.concatenate([np.stack(made[n]) for n in (0, 3, 6, 9)]) - own).max() < 1e-6
    assert np.abs(np.stack(again[0]) - own[:3]).max() < 1e-6


def test_a_bad_picture_comes_back_as_its_reason(
    cloud: Embedder, photos: list[str], tmp_path: Path
) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb())
    sources = [photos[0], str(tmp_path / "bomb.png"), str(tmp_path / "none.png"), b"x", photos[1]]
    with ProcessPool(cloud, 1) as pool:
        ((_, made),) = pool.run([("a", sources)])
    assert np.abs(np.stack([made[0], made[4]]) - cloud.embed(photos[:2])).max() < 1e-6
    assert "the limit is 64,000,000 pixels" in made[1]
    assert "there is no file" in made[2]
    assert "not an image" in made[3]


def test_no_more_batches_are_taken_than_the_bound(cloud: Embedder, photos: list[str]) -> None:
    taken = given = most = 0

    def batches() -> Iterator[tuple[int, list[str]]]:
        nonlocal taken, most
        for n in range(60):
            taken += 1
            most = max(most, taken - given)
            yield n, photos[:1]

    with ProcessPool(cloud, 2) as pool:
        assert pool.ahead == 7
        for _ in pool.run(batches()):
            time.sleep(0.02)  # a slow writer: everything behind it has to wait
            given += 1
    assert taken == given == 60
    assert 3 <= most <= pool.ahead + 1  # one is here, being written


class Killer:
    """A picture that kills the process that it is handed to."""

    def __reduce__(self) -> Any:
        return signal.raise_signal, (signal.SIGKILL,)


def test_a_picture_that_kills_its_process_is_found_and_the_others_are_embedded(
    cloud: Embedder, photos: list[str]
) -> None:
    sources: list[Any] = [*photos[:3], Killer(), *photos[3:5]]
    with ProcessPool(cloud, 2) as pool:
        made = dict(pool.run([(0, sources), (1, photos[5:])]))
    assert made[0][3] == "its process died 3 times while embedding it alone (by SIGKILL)"
    good = np.stack([v for v in [*made[0], *made[1]] if not isinstance(v, str)])
    assert np.abs(good - cloud.embed(photos)).max() < 1e-6


def test_a_process_that_is_killed_from_outside_costs_nothing(
    cloud: Embedder, photos: list[str]
) -> None:
    made, killed = {}, 0
    with ProcessPool(cloud, 2) as pool:
        for n, vectors in pool.run((n, photos) for n in range(60)):
            made[n] = vectors
            if len(made) in (9, 25, 41):
                children = psutil.Process().children()
                random.choice([c for c in children if "samespace.pool" in c.cmdline()]).kill()
                killed += 1
    assert killed == 3
    own = cloud.embed(photos)
    assert sorted(made) == list(range(60))
    for vectors in made.values():
        assert np.abs(np.stack(vectors) - own).max() < 1e-6


def test_processes_end_with_the_pool_and_with_the_one_who_started_them(
    cloud: Embedder, photos: list[str]
) -> None:
    with ProcessPool(cloud, 2) as pool:
        run = pool.run((n, photos) for n in range(1000))
        next(run)
        children = [c for c in psutil.Process().children() if "samespace.pool" in c.cmdline()]
        assert children
        run.close()  # as on Ctrl-C
        assert not [c for c in children if c.is_running() and c.status() != "zombie"]


def test_no_process_is_started_for_batches_of_nothing(cloud: Embedder) -> None:
    with ProcessPool(cloud, 2) as pool:
        assert list(pool.run([("a", []), ("b", [])])) == [("a", []), ("b", [])]
        assert not [c for c in psutil.Process().children() if "samespace.pool" in c.cmdline()]


def test_what_the_batches_raise_is_raised(cloud: Embedder, photos: list[str]) -> None:
    def batches() -> Iterator[tuple[int, list[str]]]:
        yield 0, photos[:1]
        raise ZeroDivisionError("here")

    with ProcessPool(cloud, 1) as pool, pytest.raises(ZeroDivisionError, match="here"):
        list(pool.run(batches()))


def test_a_run_can_be_left_while_it_waits_for_batches(cloud: Embedder, photos: list[str]) -> None:
    never = threading.Event()

    def batches() -> Iterator[tuple[int, list[str]]]:
        yield 0, photos[:1]
        never.wait()  # as on a share that hangs

    with ProcessPool(cloud, 1) as pool:
        run = pool.run(batches())
        assert next(run)[0] == 0
        run.close()
    never.set()


def test_a_bundle_that_is_gone_says_so(copied: Path, photos: list[str]) -> None:
    model = Embedder(copied)
    (copied / "manifest.json").unlink()
    with ProcessPool(model, 1) as pool, pytest.raises(SamespaceError, match="is not a bundle"):
        list(pool.run([(0, photos)]))


def test_urls(cloud: Embedder, photos: list[str]) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/shop/cup.png", Path(photos[0]).read_bytes())
    urls = ["memory://shop/cup.png", f"file://{photos[1]}"]
    made = embed_each(cloud, [*urls, "memory://shop/none.png"])
    assert np.abs(np.stack(made[:2]) - cloud.embed(photos[:2])).max() < 1e-6
    assert "there is no file memory://shop/none.png" in str(made[2])
    before = [stamp(u) for u in urls]
    assert before == [stamp(u) for u in urls]
    memory.pipe("/shop/cup.png", Path(photos[1]).read_bytes())
    assert stamp(urls[0]) != before[0]
    with pytest.raises(DecodeError, match="there is no file"):
        stamp("memory://shop/none.png")
    with pytest.raises(ConfigError, match="nothing that is installed reads fly://"):
        stamp("fly://shop/cup.png")
    with ProcessPool(cloud, 1) as pool:  # another process reads a URL too
        ((_, there),) = pool.run([("a", urls[1:])])
    assert np.abs(there[0] - cloud.embed(photos[1])[0]).max() < 1e-6


def test_where_pictures_are() -> None:
    assert located("a/b.png", "/shop") == "/shop/a/b.png"
    assert located("/a/b.png", "/shop") == "/a/b.png"
    assert located("a/b.png", "s3://shop/x") == "s3://shop/x/a/b.png"
    assert located("s3://other/b.png", "/shop") == "s3://other/b.png"
    assert is_url("s3://shop/b.png")
    assert not is_url("C:/shop/b.png")
    assert not is_url(b"s3://")


def test_wrong_settings(cloud: Embedder) -> None:
    with pytest.raises(ConfigError, match="workers has to be 1 or more"):
        ProcessPool(cloud, -1)
    with pytest.raises(ConfigError, match="say ray=True"):
        open_pool(cloud, ray_address="auto")
    assert HerePool(cloud).workers == 1
