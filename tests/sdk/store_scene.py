"""Places for galleries: folders, and a real Milvus. What runs over both asks for a `Store`."""

from __future__ import annotations

import abc
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from samespace import Gallery
from samespace_edge import GalleryBusyError, SamespaceError
from tests.milvus_server import MilvusProcess
from tests.patience import until

DIM = 24
WITH_MILVUS = os.environ.get("SAMESPACE_TEST_MILVUS") == "1"
STORES = ("embedded", "milvus") if WITH_MILVUS else ("embedded",)

WRITER = """
    import sys
    import numpy as np
    from samespace import Embedder, Gallery
    place, bundle, start = sys.argv[1], sys.argv[2], int(sys.argv[3])
    model = Embedder(bundle).identity
    with Gallery.open(place) as gallery:
        rng = np.random.default_rng(start)
        for batch in range(start, start + 100_000):
            ids = [f"w{batch}-{i}" for i in range(50)]
            x = rng.standard_normal((50, model.dim)).astype("f")
            gallery.add(ids, vectors=x, model=model, payloads=[{"batch": batch}] * 50)
            print(batch, flush=True)
"""

UPGRADER = """
    import sys
    import numpy as np
    from samespace import Embedder, Gallery
    from samespace.gallery import GivenVectors
    place, bundle, table = sys.argv[1:]
    held = np.load(table)
    with Gallery.open(place) as gallery:
        given = GivenVectors(Embedder(bundle).identity, held["ids"].tolist(), held["vectors"])
        gallery.upgrade.run(given, batch=5, progress=lambda *told: print(*told, flush=True))
"""


def vectors(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Unit vectors (n, dim), float32."""
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def grouped(n: int, seed: int = 0, groups: int = 200) -> np.ndarray:
    """Unit vectors (n, DIM) around a few centres, as those of pictures lie."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(77).standard_normal((groups, DIM))
    x = centres[rng.integers(0, groups, n)] + 0.5 * rng.standard_normal((n, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


class Store(abc.ABC):
    """Where galleries are kept in a test.

    Args:
        folder: for what the test leaves.
    """

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abc.abstractmethod
    def place(self) -> str | Path:
        """A place with no gallery."""

    @abc.abstractmethod
    def settle(self, gallery: Gallery) -> None:
        """Have every item be in the approximate index."""

    @abc.abstractmethod
    def crash(self, writer: subprocess.Popen[str]) -> None:
        """kill -9 of what is writing, and start again what has to run."""

    @abc.abstractmethod
    def close(self) -> None:
        """Remove what a test left."""


class Embedded(Store):
    """Galleries in folders."""

    name = "embedded"

    def place(self) -> Path:
        return self.folder / uuid.uuid4().hex

    def settle(self, gallery: Gallery) -> None:
        gallery.search(vectors=vectors(1), model=gallery.admitted[0], k=1)
        assert gallery.stats().approximate

    def crash(self, writer: subprocess.Popen[str]) -> None:
        writer.kill()

    def close(self) -> None:
        """The folder is pytest's."""


class Milvus(Store):
    """Galleries in a server."""

    name = "milvus"

    def __init__(self, folder: Path, server: MilvusProcess) -> None:
        super().__init__(folder)
        self.server = server
        self._made: list[str] = []

    def place(self) -> str:
        url = f"milvus://{self.server.address}/shop_{uuid.uuid4().hex[:8]}"
        self._made.append(url)
        return url

    def client(self) -> Any:
        from pymilvus import MilvusClient

        return MilvusClient(uri=f"http://{self.server.address}")

    def settle(self, gallery: Gallery) -> None:
        client = self.client()
        base = gallery._store.base  # type: ignore[attr-defined]
        client.flush(base)

        def is_indexed() -> bool:
            about = client.describe_index(base, "vector")
            return bool(about["total_rows"] == about["indexed_rows"] == len(gallery))

        until(is_indexed, every=0.5)
        client.close()

    def crash(self, writer: subprocess.Popen[str]) -> None:
        self.server.kill()
        self.server.start()

    def close(self) -> None:
        from samespace.gallery._milvus import remove

        for url in self._made:
            remove(url, timeout=90)


def wait_for_milvus(url: str) -> None:
    """Wait until a Milvus that says it is healthy is ready, too."""

    def is_ready() -> bool:
        try:
            Gallery.open(f"{url}/there_is_none")
        except GalleryBusyError:
            return False
        except SamespaceError:
            return True
        raise AssertionError("there is one")

    until(is_ready, every=0.5)


@contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a script, killed at the end."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()
