"""Whose logits a new tagger is held to: a tagger's, an ensemble's, or saved ones."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from samespace import Dataset, Item
from samespace.regressions import read_predictions
from samespace_cloud.tagging.checkpoint import FrozenTaggers, TaggerCheckpoint, is_tagger
from samespace_cloud.tagging.sees import Report
from samespace_edge import ConfigError, DataError


class Reference:
    """Somebody who gives logits to pictures; views are taught by `vectors`, see
    `samespace_cloud.views.Teaches`.

    Attributes:
        classes: what the logits stand for.
        key: what decides over them, as text.
        about: what it is, for a tagger's card.
        head: its last layer, where there is one.
    """

    head: nn.Linear | None = None

    def __init__(self, classes: Sequence[str], key: str, about: str) -> None:
        self.classes, self.key, self.about = tuple(classes), key, about

    @property
    def dim(self) -> int:
        """How many logits it gives."""
        return len(self.classes)

    @property
    def side(self) -> int:
        """Of the pictures that it sees, in pixels; 0 where it sees none."""
        return 0

    def about_to_teach(
        self, items: Sequence[Item], views: int = 1, cache: Path | None = None
    ) -> None:
        """Prepare for these pictures; raises `DataError` for unknown ones.

        Args:
            views: how many views of each will be asked for.
            cache: a folder for what the next update of this tagger needs again.
        """

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """Logits float32 (B, C), on the CPU, of views, uint8 (B, 3, S, S), of the pictures in
        `rows` of what `about_to_teach` was given."""
        raise NotImplementedError(f"{type(self).__name__} gives no logits")

    def predict(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        cache: Path | None = None,
        report: Report = lambda done, total: None,
    ) -> Tensor:
        """Logits float32 (N, C), on the CPU, of unchanged pictures."""
        raise NotImplementedError(f"{type(self).__name__} gives no logits")


class TaggerReference(Reference):
    """A tagger, or an ensemble: it sees the very view that the new tagger learns from."""

    def __init__(self, checkpoint: TaggerCheckpoint) -> None:
        fingerprint = checkpoint.fingerprint
        count = len(checkpoint.members)
        kind = f"an ensemble of {count}" if count > 1 else "the tagger"
        super().__init__(
            checkpoint.classes,
            f"logits of {fingerprint.hex}",
            f"{kind} {fingerprint.short}…, {checkpoint.sees.architecture}",
        )
        self._sees = checkpoint.sees
        self._frozen = FrozenTaggers(checkpoint.members)
        self._of: int | None = None
        if count == 1:
            self.head = checkpoint.tagger.head

    @property
    def side(self) -> int:
        """See `Reference.side`."""
        return self._sees.side

    def about_to_teach(
        self, items: Sequence[Item], views: int = 1, cache: Path | None = None
    ) -> None:
        """See `Reference.about_to_teach`."""
        self._of = len(items) * views
        if cache:
            self._frozen.keep_in(cache)

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """See `Reference.vectors`; raises `DataError` where logits are not finite."""
        return self._logits(self._sees.of_views(views), self._of)

    def predict(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        cache: Path | None = None,
        report: Report = lambda done, total: None,
    ) -> Tensor:
        """See `Reference.predict`."""
        return self._logits(self._sees.read(dataset, items, cache, report), len(items))

    def _logits(self, inputs: Tensor, of: int | None) -> Tensor:
        logits = self._frozen.logits(inputs, of)
        if not torch.isfinite(logits).all():
            raise DataError(f"{self.about} gives logits that are not finite; train it anew")
        return logits


class SavedLogits(Reference):
    """Logits that a tagger, of any kind, gave to the pictures once.

    It knows the pictures as they are and none of their views: whatever a view shows, the new tagger
    is held to what was said of the picture, and 1[old right] is that of the picture.

    Args:
        path: `.npz` with `ids` (N,), the pictures' paths in the dataset, `classes` (C,) and
            `logits` (N, C); or `probabilities`, whose logarithms, less their mean over the classes,
            then stand for the logits: what softmax does not see is lost, so `focal-logit` and `ldi`
            hold the new tagger to other constants than the old one had.

    Raises `DataError` for a file that is not as described.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if path.suffix.lower() != ".npz":
            raise DataError(
                f"{path} is neither a tagger's folder nor an .npz of its logits; answers alone "
                "say too little to hold another tagger to"
            )
        found = read_predictions(path, labelled=False)
        assert found.classes is not None
        logits = _logits(path)
        digest = hashlib.sha256("\0".join((*found.ids, *found.classes)).encode())
        digest.update(logits.tobytes())
        super().__init__(
            found.classes, f"saved {digest.hexdigest()}", f"the logits in {path.name}, by picture"
        )
        self._place = {name: i for i, name in enumerate(found.ids)}
        self._logits = torch.from_numpy(logits)
        self._asked = self._logits[:0]
        self._name = path

    def about_to_teach(
        self, items: Sequence[Item], views: int = 1, cache: Path | None = None
    ) -> None:
        """See `Reference.about_to_teach`."""
        self._asked = self._of(items)

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """See `Reference.vectors`: those of the pictures, whatever the views show of them."""
        return self._asked[rows]

    def predict(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        cache: Path | None = None,
        report: Report = lambda done, total: None,
    ) -> Tensor:
        """See `Reference.predict`; raises `DataError` for pictures that it does not know."""
        return self._of(items)

    def knows(self, items: Sequence[Item]) -> bool:
        """Whether it has logits of all of these."""
        return all(i.path in self._place for i in items)

    def _of(self, items: Sequence[Item]) -> Tensor:
        if lost := [i.path for i in items if i.path not in self._place]:
            raise DataError(
                f"{self._name} has no logits of {len(lost)} of {len(items)} pictures, such as "
                f"{lost[0]!r}; it has those of {len(self._place)} others, such as "
                f"{next(iter(self._place))!r}. Write them with 'samespace train tagger "
                "--predictions x.npz --split train', ids being the paths in the manifest"
            )
        return self._logits[[self._place[i.path] for i in items]]


def _logits(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Logits float32 (N, C) of a file that `read_predictions` has found whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if "logits" in file.files:
                found: np.ndarray[tuple[int, int], np.dtype[np.float32]]
                found = file["logits"].astype(np.float32)
                return found
            probabilities = file["probabilities"].astype(np.float64)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if (probabilities <= 0).any():
        raise DataError(
            f"{path} holds probabilities of 0, whose logits are not finite; save the logits"
        )
    logs = np.log(probabilities)
    centred: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    centred = (logs - logs.mean(1, keepdims=True)).astype(np.float32)
    return centred


def reference_of(old: TaggerCheckpoint | Reference | str | Path) -> Reference:
    """Who gives the old logits: a checkpoint, the folder of one, or an `.npz`."""
    if isinstance(old, Reference):
        return old
    if isinstance(old, TaggerCheckpoint):
        return TaggerReference(old)
    path = Path(old)
    if not path.exists():
        raise ConfigError(f"there is no old tagger at {path}")
    if is_tagger(path) or path.is_dir():
        return TaggerReference(TaggerCheckpoint.load(path))
    return SavedLogits(path)
