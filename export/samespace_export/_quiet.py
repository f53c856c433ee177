"""Converters talk a great deal; what they say is for their developers."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator

# What is held back belongs to the process. Two threads would each take the other's silence for what
# was there before, and the process would stay silent.
_TURN = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back prints, log records and warnings, of native code too; errors are raised as ever.

    One thread does so at a time; the others wait.
    """
    with _TURN:
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with (
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
                _native_silence(),
            ):
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(level)


@contextlib.contextmanager
def _native_silence() -> Iterator[None]:
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        if sys.__stderr__:
            sys.__stderr__.flush()
        os.dup2(saved, 2)
        os.close(saved)
