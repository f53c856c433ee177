"""One object, any number of threads: everybody gets what is his."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samespace.client._values import encoded
from samespace_edge import Adapter, DimensionError, Embedder, Fingerprint, decode
from samespace_edge._layers import AdapterLayers
from samespace_edge._lent import Lent
from samespace_edge._runtimes import _processors
from tests.conftest import Colours, picture
from tests.tflite_file import only_tflite
from tests.threads import THREADS, at_once

ROOT = Path(__file__).parents[2]

ROUNDS = 100


@pytest.fixture(scope="module")
def files(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The cloud model's bundle, by the runtime that its file is for."""
    lite = only_tflite(bundles["cloud"], Colours(seed=1), tmp_path_factory.mktemp("l") / "x.bundle")
    return {"onnxruntime": bundles["cloud"], "ai_edge_litert": lite}


RUNTIMES = ("onnxruntime", "ai_edge_litert")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_thread_gets_the_vectors_of_its_own_pictures(
    runtime: str, files: dict[str, Path]
) -> None:
    embedder = Embedder(files[runtime])
    assert embedder.runtime == runtime
    pictures = [[picture(label, shot) for shot in range(3)] for label in range(THREADS)]
    alone = [embedder.embed(own) for own in pictures]

    def work(number: int) -> float:
        made = [embedder.embed(pictures[number], batch_size=2) for _ in range(ROUNDS)]
        return float(np.abs(np.stack(made) - alone[number]).max())

    assert max(at_once(work)) < 1e-6
    assert np.abs(np.stack(alone[1:]) - np.stack(alone[:-1])).max() > 0.1


def test_one_pil_image_serves_many_threads() -> None:
    """Pillow reads the file only when the first of them asks for pixels."""
    file = io.BytesIO()
    picture(0, 0, (400, 320)).save(file, "JPEG")
    expected = decode(file.getvalue())
    for _ in range(10):
        shared = Image.open(io.BytesIO(file.getvalue()))
        for pixels in at_once(lambda _, shared=shared: decode(shared)):
            assert np.array_equal(pixels, expected)
        sent = Image.open(io.BytesIO(file.getvalue()))
        for png in at_once(lambda _, sent=sent: encoded(sent)):
            assert np.array_equal(decode(png), expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_call_that_fails_is_nothing_to_the_others(runtime: str, files: dict[str, Path]) -> None:
    embedder = Embedder(files[runtime])
    own = np.stack([embedder.preprocess(picture(label, 0)) for label in range(THREADS)])
    alone = embedder.embed_pixels(own)
    narrow = np.zeros((1, 3, 3, 3), np.uint8)

    def work(number: int) -> float:
        worst = 0.0
        for _ in range(ROUNDS // 4):
            with pytest.raises(Exception, match=r"(?i)dimension"):
                embedder.embed_pixels(narrow)
            made = embedder.embed_pixels(own[number : number + 1])
            worst = max(worst, float(np.abs(made - alone[number]).max()))
        return worst

    assert max(at_once(work)) < 1e-6


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_may_load_at_the_same_time(runtime: str, files: dict[str, Path]) -> None:
    loaded = at_once(lambda _: Embedder(files[runtime]))
    vectors = at_once(lambda number: loaded[number].embed(picture(3, 0)))
    assert np.ptp(np.stack(vectors), axis=0).max() < 1e-6


# what is lent


@contextlib.contextmanager
def held(lent: Lent) -> Iterator[Any]:
    """One that another thread has meanwhile."""
    taken: SimpleQueue[Any] = SimpleQueue()
    over = threading.Event()

    def hold(mine: Any) -> None:
        taken.put(mine)
        over.wait(60)

    thread = threading.Thread(target=lent.call, args=(hold,))
    thread.start()
    try:
        yield taken.get(timeout=60)
    finally:
        over.set()
        thread.join()


def waits(lent: Lent, calls: int) -> None:
    """Return once so many calls wait."""
    until = time.monotonic() + 60
    while len(lent._waiting) < calls:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_nothing_is_lent_twice_and_no_more_are_made_than_allowed() -> None:
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([])
        return made[-1]

    lent = Lent(make, 3)

    def work(number: int) -> int:
        def use(mine: list[int]) -> int:
            mine.append(number)
            together = len(mine)
            mine.remove(number)
            return together

        return max(lent.call(use) for _ in range(5 * ROUNDS))

    assert at_once(work) == [1] * THREADS
    assert 1 <= len(made) <= 3
    assert lent.idle == len(made)


def test_one_call_after_the_other_makes_one() -> None:
    made: list[object] = []
    lent = Lent(lambda: made.append(object()) or made[-1], 3)
    for _ in range(5):
        assert lent.call(lambda mine: mine) is made[0]
    with held(lent) as one, held(lent) as other:
        assert one is not other
    assert len(made) == lent.idle == 2


def test_what_could_not_be_made_takes_no_place() -> None:
    outcomes = [MemoryError("full"), "good"]

    def make() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def fail(mine: str) -> None:
        raise KeyError(mine)

    lent = Lent(make, 1)
    with pytest.raises(MemoryError, match="full"):
        lent.call(fail)
    with pytest.raises(KeyError, match="good"):
        lent.call(fail)
    assert lent.call(lambda mine: mine) == "good"


def test_calls_wait_in_the_order_in_which_they_came() -> None:
    lent = Lent(object, 1)
    order: list[int] = []
    threads = [
        threading.Thread(target=lent.call, args=(lambda _, number=number: order.append(number),))
        for number in range(5)
    ]
    with held(lent):
        for number, thread in enumerate(threads):
            thread.start()
            waits(lent, number + 1)
    for thread in threads:
        thread.join()
    assert order == list(range(5))
    assert lent.idle == 1


def test_one_that_waits_makes_its_own_where_another_could_not() -> None:
    begun, go = threading.Event(), threading.Event()
    fails = [True, False]

    def make() -> str:
        if fails.pop(0):
            begun.set()
            go.wait(60)
            raise MemoryError("full")
        return "good"

    def first() -> None:
        with pytest.raises(MemoryError):
            lent.call(got.append)

    lent = Lent(make, 1)
    got: list[str] = []
    threads = [threading.Thread(target=first)]
    threads.append(threading.Thread(target=lent.call, args=(got.append,)))
    threads[0].start()
    begun.wait(60)
    threads[1].start()
    waits(lent, 1)
    go.set()
    for thread in threads:
        thread.join()
    assert got == ["good"]


def test_ctrl_c_while_waiting_loses_no_place() -> None:
    lent = Lent(object, 1)

    def interrupt() -> None:
        waits(lent, 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with held(lent):
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            lent.call(id)
        thread.join()
    lent.call(id)
    assert lent.idle == 1
    assert not lent._waiting


def test_an_interpreter_for_every_processor_and_no_more(files: dict[str, Path]) -> None:
    embedder = Embedder(files["ai_edge_litert"])
    lent = embedder._runtime._interpreters  # type: ignore[attr-defined]
    assert lent.most == _processors()
    at_once(lambda _: [embedder.embed(picture(0, 0)) for _ in range(ROUNDS)])
    assert 1 <= lent.idle <= _processors()
    many = Embedder(files["ai_edge_litert"], threads=_processors() + 1)
    assert many._runtime._interpreters.most == 1  # type: ignore[attr-defined]


_FORK = """
import contextlib, os, signal, sys
import numpy as np
from samespace_edge import Embedder
from tests.conftest import picture
from tests.edge_runtime.test_threads import held
embedder = Embedder(sys.argv[1])
expected = embedder.embed(picture(0, 0))
with contextlib.ExitStack() as busy:
    if embedder.runtime == "ai_edge_litert":
        lent = embedder._runtime._interpreters
        for _ in range(lent.most):  # every one of them is in a call of the parent
            busy.enter_context(held(lent))
    child = os.fork()
    if not child:
        signal.alarm(300)
        same = np.abs(embedder.embed(picture(0, 0)) - expected).max() < 1e-6
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert np.abs(embedder.embed(picture(0, 0)) - expected).max() < 1e-6
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_forked_child_embeds_while_its_parent_does(runtime: str, files: dict[str, Path]) -> None:
    """In a process of its own: other tests load JAX, whose threads do not survive a fork."""
    command = [sys.executable, "-c", _FORK, str(files[runtime])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# the adapter


def test_one_adapter_serves_many_threads(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    widths: tuple[Any, ...] = ((6, 5), (5, 4))
    layers = AdapterLayers(
        draw.standard_normal(6).astype(np.float32),
        (draw.standard_normal((6, 4)).astype(np.float32),),
        draw.standard_normal(4).astype(np.float32),
        tuple(
            (draw.standard_normal(w).astype(np.float32), np.zeros(w[1], np.float32)) for w in widths
        ),
    )
    names = [Fingerprint(letter * 64) for letter in "abc"]
    adapter = Adapter("affine", layers, *names)
    own = draw.standard_normal((THREADS, 50, 6)).astype(np.float32)
    alone = [adapter.apply(rows) for rows in own]
    file = tmp_path / "x.adapter"

    def work(number: int) -> bool:
        same = True
        for _ in range(ROUNDS):
            same &= np.array_equal(adapter.apply(own[number]), alone[number])
            with pytest.raises(DimensionError):
                adapter.apply(own[number][:, :3])
        for _ in range(ROUNDS // 4):
            adapter.write(file)  # all of them to the same file
            same &= Adapter.read(file).fingerprint == adapter.fingerprint
        return same

    assert all(at_once(work))
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
    assert threading.active_count() < THREADS
