"""A pool of processes on this machine, between two bounded queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Any, TypeVar

from samespace.pool._child import Child
from samespace.pool._embed import Made
from samespace_edge import ConfigError, Embedder, ImageSource

_T = TypeVar("_T")
_LOOK_EVERY = 0.1  # seconds
_LEAVE_AFTER = 2.0  # seconds

_ENDED, _FAILED, _DONE = "ended", "failed", "done"


class ProcessPool:
    """Processes of this machine that embed.

    One thread takes batches, one thread for each process hands them over, and the caller takes what
    comes back: between them are two queues of `workers` batches. So at most `ahead` batches are
    taken and not yet given back, however slow one of the three is.

    Args:
        model: what the processes open again: its bundle, variant and runtime.
        workers: how many.
    """

    def __init__(self, model: Embedder, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"workers has to be 1 or more, not {workers}")
        self._model = model
        self.workers = workers
        self._children: list[Child] = []

    @property
    def ahead(self) -> int:
        """Most batches that are taken and not yet given back."""
        return 3 * self.workers + 1

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the processes, whatever they are at; `run` starts new ones."""
        for child in self._children:
            child.stop()
        self._children = []

    def run(
        self, batches: Iterable[tuple[_T, Sequence[ImageSource]]]
    ) -> Iterator[tuple[_T, list[Made]]]:
        """See `Pool.run`; `batches` is iterated over in a thread of its own."""
        if not self._children:
            self._children = [Child(self._model) for _ in range(self.workers)]
        todo, done = Queue[Any](self.workers), Queue[Any](self.workers)
        stop = threading.Event()
        threads = [threading.Thread(target=_feed, args=(batches, todo, done, stop, self.workers))]
        threads += [
            threading.Thread(target=_work, args=(child, todo, done, stop))
            for child in self._children
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        working = self.workers
        try:
            while working:
                what, value = done.get()
                if what is _FAILED:
                    raise value
                if what is _ENDED:
                    working -= 1
                else:
                    yield value
        finally:
            stop.set()
            if working:
                self.stop()
            # One may never end: where `batches` waits for something, or where Ctrl-C came just when
            # this thread had taken a queue's lock, which then stays locked.
            until = time.monotonic() + _LEAVE_AFTER
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))


def _feed(
    batches: Iterable[Any], todo: Queue[Any], done: Queue[Any], stop: threading.Event, workers: int
) -> None:
    try:
        for batch in batches:
            if not _put(todo, batch, stop):
                return
        for _ in range(workers):
            _put(todo, None, stop)
    except BaseException as error:
        _put(done, (_FAILED, error), stop)


def _work(child: Child, todo: Queue[Any], done: Queue[Any], stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            try:
                batch = todo.get(timeout=_LOOK_EVERY)
            except Empty:
                continue
            if batch is None:
                _put(done, (_ENDED, None), stop)
                return
            tag, sources = batch
            made = child.embed(sources) if len(sources) else []  # for nothing, none is started
            _put(done, (_DONE, (tag, made)), stop)
    except BaseException as error:
        _put(done, (_FAILED, error), stop)


def _put(queue: Queue[Any], value: Any, stop: threading.Event) -> bool:
    """Wait for room; whether there was any before the run was stopped."""
    while not stop.is_set():
        try:
            queue.put(value, timeout=_LOOK_EVERY)
        except Full:
            continue
        return True
    return False
