"""One process that embeds, and what to do when it dies."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from samespace.pool._embed import Made
from samespace_edge import Embedder, ImageSource, SamespaceError

_ALONE = 3
"""How often a picture may be alone with a process that dies before it is taken for the culprit:
a process also dies of what others do, such as filling the memory."""

_STARTS = 5
"""How often a process may die before it is ready."""


class _DiedError(Exception):
    """The process is gone; the message says how."""


class Child:
    """A process that embeds pictures, started when it is needed and again when it has died."""

    def __init__(self, model: Embedder) -> None:
        what = (str(model.bundle.path), model.variant.name, model.runtime)
        self._command = [sys.executable, "-m", "samespace.pool", *what]
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._taking = threading.Lock()  # of `_process`: whoever takes it, ends it

    def embed(self, sources: Sequence[ImageSource]) -> list[Made]:
        """As `embed_each`. A picture that makes the process die again and again gets that as its
        reason; the others are embedded. Raises `SamespaceError` where no process can be started.
        """
        try:
            return self._ask(sources)
        except _DiedError:
            if self._stopped:
                raise
        return [self._alone(source) for source in sources]

    def stop(self) -> None:
        """End the process, whatever it is at; `embed` then raises."""
        self._stopped = True
        self._end()

    def _alone(self, source: ImageSource) -> Made:
        how = ""
        for _ in range(_ALONE):
            try:
                return self._ask([source])[0]
            except _DiedError as error:
                if self._stopped:
                    raise
                how = str(error)
        return f"its process died {_ALONE} times while embedding it alone ({how})"

    def _ask(self, sources: Sequence[ImageSource]) -> list[Made]:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        assert process.stdin is not None
        try:
            pickle.dump(list(sources), process.stdin)
            process.stdin.flush()
            made: list[Made] = self._hear(process)
        except (OSError, EOFError, pickle.UnpicklingError, ValueError):
            raise self._death(process) from None
        return made

    def _start(self) -> subprocess.Popen[bytes]:
        self._end()
        for _ in range(_STARTS):
            # In a session of its own, Ctrl-C on the terminal is for the one who started it.
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            with self._taking:
                self._process = process
            if self._stopped:
                self._end()
            try:
                problem = self._hear(process)
            except (OSError, EOFError, pickle.UnpicklingError, ValueError):
                death = self._death(process)
                if self._stopped:
                    raise death from None
                continue
            if problem is not None:
                raise SamespaceError(str(problem))
            return process
        raise SamespaceError(
            f"a process that embeds pictures did not start ({death}), perhaps for want of memory; "
            "what is done is kept: run it again, with fewer workers"
        )

    @staticmethod
    def _hear(process: subprocess.Popen[bytes]) -> Any:
        assert process.stdout is not None
        return pickle.load(process.stdout)

    def _death(self, process: subprocess.Popen[bytes]) -> _DiedError:
        self._end()
        code = process.returncode
        if code is not None and code < 0:
            return _DiedError(f"by {signal.Signals(-code).name}")
        return _DiedError(f"exit code {code}")

    def _end(self) -> None:
        with self._taking:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:  # what was not sent is for nobody any more
                continue
