"""The pictures behind the ids, small, for a report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from samespace._dataset import Dataset
from samespace._files import Files, FolderFiles
from samespace_edge import DataError, SamespaceError
from samespace_edge._image import decode_image

_SIDE = 192


@dataclass(frozen=True)
class Pictures:
    """Where pictures are found by their ids.

    Attributes:
        dataset: whose paths are the ids; None for a plain folder.
        files: of a folder, in which ids are relative paths; None for a dataset.
    """

    dataset: Dataset | None = None
    files: Files | None = None

    @classmethod
    def open(cls, path: str | Path) -> Pictures:
        """A manifest, a zip, a folder with a `manifest.csv`, or a folder of pictures.

        Raises `DataError` where there is none.
        """
        path = Path(path)
        if path.is_dir() and not (path / "manifest.csv").exists():
            return cls(files=FolderFiles(path))
        return cls(dataset=Dataset.open(path))

    def thumbnails(self, ids: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """JPEGs of at most 192 px as data URLs, by id; and why there is none of the others."""
        items = {} if self.dataset is None else {i.path: i for i in self.dataset.items}
        found, missing = {}, {}
        for name in ids:
            try:
                if self.dataset is None:
                    assert self.files is not None
                    content = self.files.read(name)
                elif name in items:
                    content = self.dataset.read(items[name])
                else:
                    raise DataError(f"not in {self.dataset.source}")
                found[name] = _thumbnail(content)
            except (OSError, ValueError) as error:  # the latter of a NUL
                missing[name] = getattr(error, "strerror", None) or str(error)
            except SamespaceError as error:
                missing[name] = str(error)
        return found, missing


def _thumbnail(content: bytes) -> str:
    image = decode_image(content)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
