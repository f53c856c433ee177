"""Who teaches an edge model, or a later cloud model, where pictures lie: a checkpoint, a bundle, or
vectors in a file."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samespace import Item
from samespace_cloud.checkpoint import Checkpoint, clone
from samespace_cloud.closed_form import class_centres
from samespace_cloud.frozen_network import frozen, unit_vectors
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.trainer import best_device
from samespace_edge import (
    Bundle,
    BundleFormatError,
    ConfigError,
    DataError,
    Embedder,
    Fingerprint,
)


class Teacher:
    """A cloud model, as far as the training of an edge model or of its successor has to know it.

    Attributes:
        space: fingerprint of the model that anchors its space: its own, or that of the model whose
            later version it is.
        fingerprint: its own.
        dim: width of its vectors.
        labels, classifier: what it was trained on and the directions (C, D) of its classifier,
            where they are known.
        model: its network, where a training could start from its weights.
        about: what it is, for a model's card.
        per_view: whether it can say where an augmented view lies, and not only a picture.
        embeds: whether it can say where pictures lie at all.
    """

    per_view = True
    embeds = True

    def __init__(
        self,
        space: Fingerprint,
        dim: int,
        about: str,
        labels: Sequence[str] = (),
        classifier: Tensor | None = None,
        model: EmbeddingModel | None = None,
        fingerprint: Fingerprint | None = None,
    ) -> None:
        self.space, self.dim, self.about = space, dim, about
        self.fingerprint = fingerprint or space
        self.labels, self.classifier, self.model = tuple(labels), classifier, model

    @property
    def key(self) -> str:
        """What decides over the vectors that it gives to views."""
        return self.fingerprint.hex

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """Unit vectors (B, D), on the CPU, of views of the pictures in `rows`.

        Args:
            views: uint8 (B, 3, S, S).
            rows: the pictures' places among those that `about_to_teach` was given.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no vectors")

    def about_to_teach(
        self, items: Sequence[Item], views: int = 1, cache: Path | None = None
    ) -> None:
        """Prepare for these pictures; raises `DataError` for unknown ones.

        Args:
            views: how many views of each will be asked for.
            cache: a folder for what the next training with this teacher needs again.
        """

    def vectors_of(self, items: Sequence[Item], pictures: NDArray[np.uint8]) -> Tensor:
        """Unit vectors (N, D) of unchanged pictures, uint8 (N, S, S, 3)."""
        self.about_to_teach(items)
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        parts = [torch.empty(0, self.dim)]
        for start in range(0, len(images), 64):
            rows = slice(start, min(start + 64, len(images)))
            parts.append(self.vectors(images[rows], rows))
        return torch.cat(parts)


class CheckpointTeacher(Teacher):
    """A checkpoint of our own training: its weights and its classifier are known too.

    Raises `ConfigError` for an edge model of another model's space.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        fingerprint = checkpoint.fingerprint
        space = checkpoint.space or fingerprint
        _need_cloud_or_anchor(
            f"the checkpoint {fingerprint.short}…", checkpoint.role, fingerprint, space
        )
        super().__init__(
            space,
            checkpoint.model.config.dim,
            str(checkpoint.card.get("started", "of unknown start")),
            checkpoint.labels,
            checkpoint.classifier,
            checkpoint.model,
            fingerprint,
        )
        self._network = checkpoint.frozen or frozen(checkpoint.model, best_device())
        self._head = clone(checkpoint.model)
        self._of: int | None = None

    def about_to_teach(
        self, items: Sequence[Item], views: int = 1, cache: Path | None = None
    ) -> None:
        """See `Teacher.about_to_teach`."""
        self._of = len(items) * views
        self._network.cache = cache or self._network.cache

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """See `Teacher.vectors`."""
        return unit_vectors(self._head, self._network.features(views, self._of))


class BundleTeacher(Teacher):
    """Any model that runs as a bundle: no labels, no classifier and no weights are needed.

    Args:
        bundle: of a model that anchors its space, or of a later cloud model of the space.

    Raises `ConfigError` for an edge model of another model's space.
    """

    def __init__(self, bundle: Bundle | str | Path) -> None:
        self._embedder = Embedder(bundle)
        manifest = self._embedder.bundle.manifest
        identity = self._embedder.identity
        _need_cloud_or_anchor(str(identity), manifest.role, identity.fingerprint, identity.space)
        super().__init__(
            identity.space,
            self._embedder.dim,
            f"the bundle {manifest.name}, without labels",
            fingerprint=identity.fingerprint,
        )

    @property
    def key(self) -> str:
        """A variant is not the float model: its vectors differ a little."""
        return f"{self.fingerprint.hex} {self._embedder.identity.variant}"

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """See `Teacher.vectors`."""
        resize = self._embedder.bundle.manifest.resize
        if (resize.height, resize.width) == tuple(views.shape[-2:]):
            seen = views
        else:
            x = F.interpolate(
                views.float(), (resize.height, resize.width), mode="bilinear", antialias=True
            )
            seen = x.round_().clamp_(0, 255).to(torch.uint8)
        pixels = np.ascontiguousarray(seen.permute(0, 2, 3, 1).numpy())
        return torch.from_numpy(self._embedder.embed_pixels(pixels))


class VectorTeacher(Teacher):
    """Vectors that a model, of any kind, gave to the pictures once.

    It knows the pictures as they are and none of their views, so every view of a picture is taught
    the picture's own vector, and there is nothing to teach of blends.

    Args:
        path: `.npz` with `paths` (N,), the pictures' paths in the dataset, and `vectors` (N, D); or
            `.npy` (N, D), in the order of the dataset's train part.
        train: that train part.
        space: fingerprint of the model that made them; by default it is made of the vectors.

    Raises `DataError` for vectors that do not fit the pictures.
    """

    per_view = False

    def __init__(
        self, path: str | Path, train: Sequence[Item], space: Fingerprint | None = None
    ) -> None:
        path = Path(path)
        paths, vectors = _read_vectors(path, train)
        unit = _unit(path, vectors, paths)
        digest = hashlib.sha256(unit.tobytes()).hexdigest()
        super().__init__(space or Fingerprint(digest), unit.shape[1], f"the vectors in {path.name}")
        self._digest = digest
        self._of: Mapping[str, Tensor] = dict(zip(paths, torch.from_numpy(unit), strict=True))
        self._asked = torch.empty(0, self.dim)
        self._name = path

    @property
    def key(self) -> str:
        """See `Teacher.key`."""
        return self._digest

    def about_to_teach(
        self, items: Sequence[Item], views: int = 1, cache: Path | None = None
    ) -> None:
        """See `Teacher.about_to_teach`."""
        if lost := [i.path for i in items if i.path not in self._of]:
            raise DataError(
                f"{self._name} has no vectors for {len(lost)} of {len(items)} pictures, such as "
                f"{lost[0]}; write an .npz with their paths and vectors"
            )
        self._asked = torch.stack([self._of[i.path] for i in items]) if items else self._asked[:0]

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """See `Teacher.vectors`: those of the pictures, whatever the views show of them."""
        return self._asked[rows]


class LabelledVectors(Teacher):
    """Vectors that an old model gave once, and what they show: no model, no pictures.

    The means of the labels stand in for its classifier (BCT, Shen et al. 2020, section 3.3).
    Nobody can ask it where another picture lies.

    Args:
        path: `.npz` with `vectors`, floats (N, D), and `labels`, text (N,); it may have `space`,
            the fingerprint of the model that anchors their space, as 64 hexadecimal digits.
        space: that fingerprint; by default it is the file's, or made of the vectors.

    Raises `DataError` for a file that is not as described. Pickled arrays are not read.
    """

    per_view = False
    embeds = False

    def __init__(self, path: str | Path, space: Fingerprint | None = None) -> None:
        path = Path(path)
        arrays = _arrays(path, ("labels", "vectors"))
        if not isinstance(arrays, Mapping):
            raise DataError(f"{path} is a single array; expected is an .npz of vectors and labels")
        given, vectors = arrays["labels"], arrays["vectors"]
        if given.ndim != 1 or given.dtype.kind != "U":
            raise DataError(
                f"{path} holds {given.dtype} labels of shape {given.shape}; expected is text (N,)"
            )
        labels = [str(x) for x in given]
        names, codes = np.unique(given, return_inverse=True)
        unit = torch.from_numpy(_unit(path, _checked(path, vectors, len(labels)), labels))
        digest = hashlib.sha256(unit.numpy().tobytes())
        digest.update("\0".join(labels).encode())
        super().__init__(
            space or _space_in(path, arrays) or Fingerprint(digest.hexdigest()),
            unit.shape[1],
            f"the vectors in {path.name}, by label",
            [str(n) for n in names],
            class_centres(unit, torch.from_numpy(codes.astype(np.int64)), len(names)),
        )
        self._digest = digest.hexdigest()

    @property
    def key(self) -> str:
        """See `Teacher.key`."""
        return self._digest


def _need_cloud_or_anchor(
    who: str, role: str, fingerprint: Fingerprint, space: Fingerprint
) -> None:
    if role == "edge" and fingerprint != space:
        raise ConfigError(
            f"{who} is an edge model in the space {space.short}… of another model; teach with "
            "that cloud model, or with a later version of it"
        )


def _arrays(path: Path, wanted: Sequence[str]) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The array of an `.npy` file, or all arrays of an `.npz`, of which `wanted` have to be there.

    Raises `DataError` for what cannot be read without unpickling.
    """
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            if missing := set(wanted) - set(loaded.files):
                raise DataError(f"{path} has no array {' and no array '.join(sorted(missing))}")
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is no readable .npy or .npz file: {error}") from None


def _checked(path: Path, vectors: NDArray[Any], count: int) -> NDArray[np.float32]:
    """`vectors` as float32, if they are floats (count, D)."""
    if vectors.ndim != 2 or len(vectors) != count or vectors.dtype.kind != "f":
        raise DataError(
            f"{path} holds {vectors.dtype} vectors of shape {vectors.shape}; expected are floats "
            f"({count}, D), one row for each of {count} pictures"
        )
    return vectors.astype(np.float32)


def _unit(path: Path, vectors: NDArray[np.float32], whose: Sequence[str]) -> NDArray[np.float32]:
    """Vectors (N, D) as unit vectors, if they have a direction."""
    lengths = np.linalg.norm(vectors, axis=1)
    bad = ~np.isfinite(lengths) | (lengths == 0)
    if bad.any():
        raise DataError(
            f"{path}: {int(bad.sum())} of {len(vectors)} vectors are zero, NaN or infinite; "
            f"the first is that of {whose[int(np.argmax(bad))]}"
        )
    return np.ascontiguousarray(vectors / lengths[:, None], np.float32)


def _space_in(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Fingerprint | None:
    """The space that a file of vectors names."""
    if "space" not in arrays:
        return None
    try:
        return Fingerprint(str(arrays["space"]))
    except BundleFormatError as error:
        raise DataError(f"{path}: space: {error}") from None


def _read_vectors(path: Path, train: Sequence[Item]) -> tuple[list[str], NDArray[np.float32]]:
    arrays = _arrays(path, ("paths", "vectors"))
    if isinstance(arrays, Mapping):
        paths, vectors = [str(p) for p in arrays["paths"]], arrays["vectors"]
    else:
        paths, vectors = [i.path for i in train], arrays
    return paths, _checked(path, vectors, len(paths))


def teacher_of(cloud: Checkpoint | Teacher) -> Teacher:
    """`cloud`, if it can teach already, or what makes a checkpoint teach."""
    return cloud if isinstance(cloud, Teacher) else CheckpointTeacher(cloud)
