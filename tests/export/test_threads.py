"""Every file in its runtime with 8 threads at one `Embedder`, and loading in several at once."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from samespace_edge import Bundle, Embedder
from samespace_export import TARGETS
from samespace_export._quiet import quiet
from tests.threads import THREADS, at_once


@pytest.mark.parametrize("name", TARGETS)
def test_every_thread_gets_the_vectors_of_its_own_pictures(
    name: str, every_bundle: Bundle, photographs: NDArray[np.uint8]
) -> None:
    embedder = Embedder(every_bundle, variant=name, runtime=TARGETS[name].runtime)
    own = photographs[: 2 * THREADS].reshape(THREADS, 2, *photographs.shape[1:])
    alone = [embedder.embed_pixels(pixels) for pixels in own]

    def work(number: int) -> float:
        made = [embedder.embed_pixels(own[number]) for _ in range(10)]
        return float(np.abs(np.stack(made) - alone[number]).max())

    assert max(at_once(work)) < 1e-6
    assert np.abs(np.stack(alone[1:]) - np.stack(alone[:-1])).max() > 1e-2


def test_core_ml_files_are_loaded_by_several_threads_and_the_process_goes_on_talking(
    every_bundle: Bundle, photographs: NDArray[np.uint8]
) -> None:
    before = _voice()

    def work(number: int) -> NDArray[np.float32]:
        embedder = Embedder(every_bundle, variant="coreml-fp16", runtime="mil-interpreter")
        return embedder.embed_pixels(photographs[:1])

    assert np.ptp(np.stack(at_once(work, threads=3)), axis=0).max() < 1e-6
    assert _voice() == before


def test_silence_of_many_threads_ends_with_the_last_of_them() -> None:
    before = _voice()

    def work(number: int) -> None:
        for _ in range(50):
            with quiet(), quiet():
                print("nobody hears this")

    at_once(work)
    assert _voice() == before


def _voice() -> tuple[object, ...]:
    """Where this process prints, warns and logs."""
    error = os.fstat(2)
    return (
        sys.stdout,
        sys.stderr,
        (error.st_dev, error.st_ino),
        logging.root.manager.disable,
        [*warnings.filters],
    )
