"""The gallery when things go wrong: kill -9, damage, a full disk, other writers."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from samespace import Embedder, Gallery
from samespace_edge import (
    GalleryBusyError,
    GalleryDamagedError,
    GalleryError,
    GalleryStorageError,
    NotCertifiedError,
)
from tests.sdk.test_gallery import DIM, vectors


@pytest.fixture
def cloud(bundles: dict[str, Path]) -> Embedder:
    return Embedder(bundles["cloud"])


@pytest.fixture
def path(tmp_path: Path, cloud: Embedder) -> Path:
    """A closed gallery of 2,000 items."""
    with Gallery.create(tmp_path / "shop", cloud) as gallery:
        ids = [f"i{i}" for i in range(2000)]
        payloads = [{"n": i} for i in range(2000)]
        gallery.add(ids, vectors=vectors(2000), model=cloud, payloads=payloads)
    return tmp_path / "shop"


WRITER = """
    import sys
    import numpy as np
    from samespace import Embedder, Gallery
    path, bundle, start = sys.argv[1], sys.argv[2], int(sys.argv[3])
    model = Embedder(bundle).identity
    with Gallery.open(path) as gallery:
        rng = np.random.default_rng(start)
        for batch in range(start, start + 100_000):
            ids = [f"w{batch}-{i}" for i in range(50)]
            gallery.add(ids, vectors=rng.standard_normal((50, model.dim)).astype("f"), model=model)
            print(batch, flush=True)
"""


@contextmanager
def writer(path: Path, bundle: Path, start: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A process that adds batches for ever, and prints the number of each that is acknowledged."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(bundle), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process
        finally:
            process.kill()


def test_acknowledged_adds_survive_kill_9(
    tmp_path: Path, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    path = tmp_path / "shop"
    Gallery.create(path, cloud).close()
    acknowledged: list[int] = []
    chance = random.Random(0)
    for round_ in range(4):
        with writer(path, bundles["cloud"], start=1000 * round_) as process:
            acknowledged.append(int(process.stdout.readline()))
            timer = threading.Timer(chance.uniform(0.05, 0.4), process.kill)
            timer.start()
            acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
            assert process.wait() == -signal.SIGKILL
            timer.join()
    with Gallery.open(path) as gallery:
        wanted = [f"w{batch}-{i}" for batch in acknowledged for i in range(50)]
        assert len(gallery.get(wanted)) == len(wanted)
        # At most the one batch in flight per round is there besides, and never half of it.
        assert len(gallery) % 50 == 0
        assert len(wanted) <= len(gallery) <= len(wanted) + 4 * 50
        record = gallery.get(wanted[-1:])[0]
        hit = gallery.search(vectors=record.vector[None], model=cloud, k=1)[0][0]
        assert hit.id == wanted[-1]


def test_two_writers_at_once_both_succeed(
    tmp_path: Path, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    path = tmp_path / "shop"
    Gallery.create(path, cloud).close()
    with (
        writer(path, bundles["cloud"]) as one,
        writer(path, bundles["cloud"], start=1_000_000) as other,
    ):
        done = [[int(process.stdout.readline()) for _ in range(20)] for process in (one, other)]
    with Gallery.open(path) as gallery:
        wanted = [f"w{batch}-0" for batches in done for batch in batches]
        assert len(gallery.get(wanted)) == 40


def test_a_writer_that_does_not_let_go_is_named(path: Path, cloud: Embedder) -> None:
    other = sqlite3.connect(path / "gallery.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Gallery.open(path, busy_timeout=0.1) as gallery:
        with pytest.raises(GalleryBusyError, match="another process is writing"):
            gallery.add(["x"], vectors=vectors(1), model=cloud)
        assert len(gallery) == 2000  # reading goes on
        other.execute("ROLLBACK")
        gallery.add(["x"], vectors=vectors(1), model=cloud)
    other.close()


def flip(file: Path, position: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 0x10]))


def test_a_damaged_database_is_reported_and_never_searched(path: Path, tmp_path: Path) -> None:
    database = path / "gallery.db"
    chance = random.Random(1)
    size = database.stat().st_size
    places = [chance.randrange(size) for _ in range(25)]
    for keeps_time in (True, False):
        missed = 0
        for n, place in enumerate(places):
            copy = tmp_path / f"copy{n}-{keeps_time}"
            shutil.copytree(path, copy)
            before = (copy / "gallery.db").stat()
            flip(copy / "gallery.db", place)
            if keeps_time:  # as a failing disk does: nobody wrote, so the times stay
                os.utime(copy / "gallery.db", ns=(before.st_atime_ns, before.st_mtime_ns))
            try:
                with Gallery.open(copy) as gallery:
                    # A bit of unused space was hit: everything is as it was written.
                    missed += 1
                    assert len(gallery) == 2000
            except GalleryDamagedError as error:
                assert "Restore the folder from a backup" in str(error)  # noqa: PT017
            except GalleryError:
                assert place < 100  # the header itself
        assert missed <= (0 if keeps_time else 8)


def test_a_truncated_database_is_reported(path: Path) -> None:
    database = path / "gallery.db"
    with database.open("r+b") as stream:
        stream.truncate(database.stat().st_size // 2)
    with pytest.raises(GalleryDamagedError):
        Gallery.open(path)
    database.write_bytes(b"this is not a database, but it is long enough to be one" * 100)
    with pytest.raises(GalleryDamagedError):
        Gallery.open(path)


def test_a_row_damaged_while_open_is_not_returned(path: Path, cloud: Embedder) -> None:
    with Gallery.open(path) as gallery:
        assert len(gallery) == 2000
        other = sqlite3.connect(path / "gallery.db", isolation_level=None)
        other.execute("UPDATE items SET payload = '{\"n\": 666}' WHERE id = 'i7'")
        other.close()
        with pytest.raises(GalleryDamagedError, match="'i7'"):
            gallery.get(["i7"])


def test_full_disk_in_mid_add_loses_nothing(
    path: Path, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    """A file-size limit of the operating system stands for the full disk."""
    code = f"""
        import resource, signal, sys
        import numpy as np
        from samespace import Embedder, Gallery
        from samespace_edge import GalleryStorageError
        model = Embedder({str(bundles["cloud"])!r}).identity
        gallery = Gallery.open({str(path)!r})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        x = np.random.default_rng(0).standard_normal((20_000, model.dim)).astype("f")
        try:
            gallery.add([f"n{{i}}" for i in range(20_000)], vectors=x, model=model)
        except GalleryStorageError as error:
            assert "Nothing of this call was stored" in str(error), error
            assert len(gallery) == 2000
            gallery.search(vectors=x[:1], model=model)
            sys.exit(7)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr
    with Gallery.open(path) as gallery:
        assert len(gallery) == 2000
        gallery.add(["after"], vectors=vectors(1), model=cloud)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(action: str, path: Path, bundle: Path) -> str:
    """Run `action` as a user who may not write, also where the tests run as root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        result = "nothing"
        try:
            model = Embedder(bundle).identity
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            if action == "create":
                Gallery.create(path / "new", bundle)
            elif action == "read":
                with Gallery.open(path, read_only=True) as gallery:
                    found = gallery.search(vectors=vectors(1), model=model, k=1)
                    result = f"found {found.ids[0][0]}"
                    gallery.add(["x"], vectors=vectors(1), model=model)
            else:
                gallery = Gallery.open(path)
                gallery.add(["x"], vectors=vectors(1), model=model)
        except GalleryStorageError as error:
            result += f" storage: {error}"
        except BaseException as error:
            result += f" {error!r}"
        finally:
            os.write(writing, result.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        return stream.read()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
# Where other tests loaded the TFLite converter, which brings JAX.
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_read_only_folder(open_folder: Path, cloud: Embedder, bundles: dict[str, Path]) -> None:
    path = open_folder / "shop"
    bundle = open_folder / "cloud.bundle"
    shutil.copytree(bundles["cloud"], bundle)
    with Gallery.create(path, cloud) as gallery:
        gallery.add(["a"], vectors=vectors(1), model=cloud)
    for entry in (path, *path.iterdir()):
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    try:
        assert "cannot create a gallery" in as_nobody("create", path, bundle)
        assert "storage: " in as_nobody("write", path, bundle)
        read = as_nobody("read", path, bundle)
        assert "found a" in read
        assert "opened with read_only=True" in read
    finally:
        path.chmod(0o755)
    with Gallery.open(path) as gallery:
        assert len(gallery) == 1


@pytest.fixture
def indexed(tmp_path: Path, cloud: Embedder) -> Path:
    """A closed gallery with an approximate index beside it."""
    with Gallery.create(tmp_path / "big", cloud, approximate_from=3000) as gallery:
        for start in range(0, 5000, 1000):
            ids = [f"i{i}" for i in range(start, start + 1000)]
            gallery.add(ids, vectors=vectors(1000, seed=start), model=cloud)
        assert gallery.stats().approximate
    assert list((tmp_path / "big" / "index").glob("*.faiss"))
    return tmp_path / "big"


@pytest.mark.parametrize("damage", ["flip graph", "flip table", "truncate", "remove", "note"])
def test_a_damaged_index_is_rebuilt(indexed: Path, cloud: Embedder, damage: str) -> None:
    graph = next((indexed / "index").glob("*.faiss"))
    table = next((indexed / "index").glob("*.npz"))
    if damage.startswith("flip"):
        file = graph if damage == "flip graph" else table
        flip(file, file.stat().st_size // 2)
    elif damage == "truncate":
        with graph.open("r+b") as stream:
            stream.truncate(1000)
    elif damage == "remove":
        shutil.rmtree(indexed / "index")
    else:
        (indexed / "index" / "index.json").write_text("{}")
    x = vectors(1000, seed=2000)
    with Gallery.open(indexed) as gallery:
        assert len(gallery) == 5000
        found = gallery.search(vectors=x[:50], model=cloud, k=1)
        assert found.ids == [[f"i{2000 + i}"] for i in range(50)]
        assert gallery.stats().approximate
    assert list((indexed / "index").glob("*.faiss"))


def test_a_stale_index_is_caught_up(indexed: Path, cloud: Embedder, tmp_path: Path) -> None:
    shutil.copytree(indexed / "index", tmp_path / "old")
    x = vectors(3, seed=77)
    with Gallery.open(indexed) as gallery:
        gallery.delete(["i10", "i11"])
        gallery.update("i12", vector=x[0], model=cloud)
        gallery.add(["new"], vectors=x[1:2], model=cloud)
    shutil.rmtree(indexed / "index")
    shutil.copytree(tmp_path / "old", indexed / "index")
    with Gallery.open(indexed) as gallery:
        assert len(gallery) == 4999
        ids = gallery.search(vectors=x[:2], model=cloud, k=1).ids
        assert ids == [["i12"], ["new"]]
        old = vectors(1000, seed=0)[10:13]
        near = gallery.search(vectors=old, model=cloud, k=5, exact=True).ids
        assert not {"i10", "i11"} & {i for row in near for i in row}


def test_an_index_of_a_restored_backup_is_not_trusted(
    indexed: Path, cloud: Embedder, tmp_path: Path
) -> None:
    """The database goes back in time, the index beside it does not."""
    shutil.copy(indexed / "gallery.db", tmp_path / "backup.db")
    with Gallery.open(indexed) as gallery:
        for start in range(5000, 10000, 1000):
            ids = [f"i{i}" for i in range(start, start + 1000)]
            gallery.add(ids, vectors=vectors(1000, seed=start), model=cloud)
        assert len(gallery) == 10000
    shutil.copy(tmp_path / "backup.db", indexed / "gallery.db")
    with Gallery.open(indexed) as gallery:
        assert len(gallery) == 5000
        found = gallery.search(vectors=vectors(20, seed=7000), model=cloud, k=5).ids
        assert all(int(i[1:]) < 5000 for row in found for i in row)


def test_readers_go_on_while_a_writer_writes(
    path: Path, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    with writer(path, bundles["cloud"]), Gallery.open(path) as gallery:
        sizes: list[int] = []
        while len(set(sizes)) < 5:
            result = gallery.search(vectors=vectors(3), model=cloud, k=1)
            assert result.ids[0] == ["i0"]
            sizes.append(len(gallery))
        assert sizes == sorted(sizes)
        assert all((size - 2000) % 50 == 0 for size in sizes)


def test_searches_from_many_threads(path: Path, cloud: Embedder) -> None:
    x = vectors(2000)
    with Gallery.open(path) as gallery:
        wrong: list[int] = []

        def search(start: int) -> None:
            for i in range(start, start + 50):
                if gallery.search(vectors=x[i : i + 1], model=cloud, k=1).ids != [[f"i{i}"]]:
                    wrong.append(i)

        threads = [threading.Thread(target=search, args=(100 * n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        gallery.add(["more"], vectors=vectors(1, seed=5), model=cloud)
        for thread in threads:
            thread.join()
        assert not wrong


def test_another_anchor_is_refused_after_reopening(path: Path, bundles: dict[str, Path]) -> None:
    with Gallery.open(path) as gallery, pytest.raises(NotCertifiedError):
        gallery.search(vectors=np.ones((1, DIM), np.float32), model=Embedder(bundles["stranger"]))


def test_read_only_sees_what_a_killed_writer_left(
    tmp_path: Path, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    path = tmp_path / "shop"
    Gallery.create(path, cloud).close()
    with writer(path, bundles["cloud"]) as process:
        done = [int(process.stdout.readline()) for _ in range(5)]
    with Gallery.open(path, read_only=True) as gallery:
        assert len(gallery.get([f"w{batch}-0" for batch in done])) == 5


STEP_BY_STEP = """
    import sys
    import numpy as np
    from samespace import Embedder, Gallery
    path, bundle = sys.argv[1:]
    model = Embedder(bundle).identity
    with Gallery.open(path) as gallery:
        print("opened", flush=True)
        for n, _ in enumerate(sys.stdin):
            gallery.add([f"s{n}"], vectors=np.ones((1, model.dim), "f"), model=model)
            print("added", flush=True)
"""


def test_who_opens_and_closes_meanwhile_takes_nothing_from_a_writer(
    path: Path, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    """SQLite's locks are the process's: closing any handle on the file would drop them, and who
    closes next would take the log away, with all that is written to it afterwards."""
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(STEP_BY_STEP),
        str(path),
        str(bundles["cloud"]),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "opened\n"
        for n in range(4):
            with Gallery.open(path) as other:
                assert len(other) == 2000 + n
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "added\n"
        process.kill()
    with Gallery.open(path) as gallery:
        assert len(gallery) == 2004
        assert len(gallery.get([f"s{n}" for n in range(4)])) == 4


def test_two_galleries_of_one_process_do_not_drop_each_others_locks(
    path: Path, cloud: Embedder, bundles: dict[str, Path]
) -> None:
    with Gallery.open(path) as one:
        for _ in range(2):
            with Gallery.open(path) as two:
                assert len(two) == 2000
        code = textwrap.dedent("""
            import sys
            from samespace import Gallery
            with Gallery.open(sys.argv[1]) as gallery:
                assert len(gallery) == 2000
        """)
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        one.add(["later"], vectors=vectors(1), model=cloud)
        assert (path / "gallery.db-wal").exists(), "the log is still the one that everybody has"
        with Gallery.open(path) as two:
            assert "later" in two
