"""The bank of a hub correction: pictures without labels, none of which is a test picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samespace._dataset import Dataset, Item
from samespace._files import FolderFiles, is_picture
from samespace.metrics import HUB_NEIGHBOURS, HUB_WEIGHT
from samespace.verification._inputs import Progress, batches, silent
from samespace.verification._report import Bank
from samespace_edge import Embedder, VerificationError

BankLike = Dataset | str | Path | Sequence[str | Path | bytes]

MOST = 2000
"""Pictures that are taken of a dataset or a folder; more would only cost time."""


class _Encoded:
    """Pictures given one by one, as the files of a dataset."""

    def __init__(self, contents: dict[str, bytes | Path]) -> None:
        self._contents = contents

    def names(self) -> list[str]:
        return sorted(self._contents)

    def read(self, name: str) -> bytes:
        content = self._contents[name]
        return content if isinstance(content, bytes) else content.read_bytes()


def open_bank(source: BankLike, most: int = MOST) -> Dataset:
    """A bank as a dataset, all of whose items are its pictures.

    Args:
        source: a dataset, or what `Dataset.open` takes, of which the train pictures are used; a
            folder with pictures in it that are in no further folders; or a sequence of paths and
            encoded pictures, which is used as it is.
        most: how many of a dataset's or folder's pictures are used: the same ones every time.

    Raises `VerificationError` where there are none, `DataError`.
    """
    if isinstance(source, str | Path):
        source = _pictures_of(Path(source)) or Dataset.open(source)
    if isinstance(source, Dataset):
        items = sorted(source.train, key=lambda i: i.path)
        if not items:
            raise VerificationError(f"{source.source} has no train pictures to make a bank of")
        if len(items) > most:
            chosen = np.random.default_rng(0).choice(len(items), most, replace=False)
            items = [items[i] for i in np.sort(chosen)]
        return source.subset(items)
    contents: dict[str, bytes | Path] = {}
    for i, picture in enumerate(source):
        if not isinstance(picture, str | Path | bytes):
            raise VerificationError(
                f"picture {i} of the bank is {type(picture).__name__}; a bank is given as paths or "
                "encoded pictures, so that it can be told from the test pictures"
            )
        contents[f"picture {i}"] = Path(picture) if isinstance(picture, str) else picture
    if not contents:
        raise VerificationError("the bank holds no pictures")
    return Dataset("bank", _items(contents), _Encoded(contents), "the bank")


def _pictures_of(folder: Path) -> Dataset | None:
    """The pictures that lie in a folder itself, if nothing lies deeper: it has no labels then."""
    if not folder.is_dir():
        return None
    files = FolderFiles(folder)
    seen = [n for n in files.names() if not n.startswith(".")]  # what systems leave there
    names = [n for n in seen if is_picture(n)]
    if not names or any("/" in n for n in names) or (folder / "manifest.csv").exists():
        return None
    return Dataset(folder.name, _items(names), files, str(folder))


def _items(names: Iterable[str]) -> list[Item]:
    return [Item(name, "", "train", "train") for name in names]


def bank_entry(bank: Dataset) -> Bank:
    """A bank as it stands in a report."""
    digest = bank.sha256(bank.items)
    return Bank(bank.name, digest, len(bank.items), HUB_NEIGHBOURS, HUB_WEIGHT)


def refuse_test_pictures(bank: Dataset, data: Dataset) -> None:
    """Raise `VerificationError` if a picture of the bank is, byte for byte, one of `data`'s test.

    With test pictures in the bank, the figures would be of a search that had seen its queries.
    """
    test = {_hash(data, item): item.path for item in (*data.queries, *data.gallery)}
    for item in bank.items:
        if (same := test.get(_hash(bank, item))) is not None:
            raise VerificationError(
                f"{item.path} of the bank is the test picture {same} of {data.source}; take "
                "pictures that are not searched for or in, such as the train part"
            )


def _hash(data: Dataset, item: Item) -> bytes:
    return hashlib.sha256(data.read(item)).digest()


def embed_bank(
    embedder: Embedder, bank: Dataset, label: str, progress: Progress = silent
) -> NDArray[np.float32]:
    """Unit vectors (B, D) of a bank's pictures; raises `VerificationError` naming a bad one."""
    vectors = []
    done = 0
    for pixels in batches(embedder.bundle.manifest.resize, bank, bank.items):
        vectors.append(embedder.embed_pixels(pixels))
        done += len(pixels)
        progress(f"embed the bank with {label}", done, len(bank.items))
    return np.concatenate(vectors)
