"""A service that runs a TFLite file alone, and one client of 8 threads.

Nobody gets, or stores, what is of another's picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samespace import Client, Embedder, Gallery
from tests.conftest import Colours, picture
from tests.sdk.service_process import Running, serving
from tests.tflite_file import only_tflite
from tests.threads import THREADS, at_once

EACH = 24  # pictures of every thread


@pytest.fixture(scope="module")
def bundle(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lite")
    return only_tflite(bundles["cloud"], Colours(seed=1), folder / "lite.bundle")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Pictures by the id that they are to have."""
    made = {}
    for label in range(THREADS):
        for shot in range(EACH):
            file = io.BytesIO()
            picture(label, shot).save(file, "PNG")
            made[f"t{label}-{shot}"] = file.getvalue()
    return made


@pytest.fixture(scope="module")
def service(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    Gallery.create(folder / "shop", bundle).close()
    options = ["--bundle", bundle, "--rate", 0, "--threads", THREADS]
    with serving(folder / "shop", folder / "log", *options) as running:
        yield running


def test_every_client_gets_and_stores_its_own(
    service: Running, bundle: Path, files: dict[str, bytes]
) -> None:
    expected = dict(zip(files, Embedder(bundle).embed(list(files.values())), strict=True))
    with Client(service.url, retries=0) as client:

        def work(number: int) -> None:
            for shot in range(0, EACH, 2):
                ids = [f"t{number}-{shot}", f"t{number}-{shot + 1}"]
                own = [files[i] for i in ids]
                client.add(ids[:1], images=own[:1], payloads=[{"by": number}])
                client.add(ids[1:], images=own[:1])
                client.add(ids[1:], images=own[1:], replace=True)
                for images in (own, [Image.open(io.BytesIO(f)) for f in own]):
                    found = client.search(images=images, k=1)
                    assert found.ids == [[i] for i in ids]
                    assert np.abs(found.scores - 1).max() < 1e-5
                assert found.payloads == [[{"by": number}], [None]]
                for record in client.get(ids):
                    assert np.abs(record.vector - expected[record.id]).max() < 1e-6
            client.add([f"gone{number}"], images=own[:1])
            client.delete([f"gone{number}"])
            assert f"gone{number}" not in client
            assert client.stats().items <= len(files) + THREADS

        at_once(work)
        for record in client.get(list(files)):
            assert np.abs(record.vector - expected[record.id]).max() < 1e-6
