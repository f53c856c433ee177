"""Who teaches an edge model where pictures lie: a checkpoint, a bundle, or vectors in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samespace import Item
from samespace_cloud.checkpoint import Checkpoint, clone
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.trainer import best_device
from samespace_cloud.views import embed_views, resized
from samespace_edge import Bundle, ConfigError, DataError, Embedder, Fingerprint


class Teacher:
    """A cloud model, as far as an edge model's training has to know it.

    Attributes:
        space: fingerprint of the model whose space it is.
        dim: width of its vectors.
        labels, classifier: what it was trained on and the directions (C, D) of its classifier,
            where they are known.
        model: its network, where an edge model could start from its weights.
        about: what it is, for an edge model's card.
        per_view: whether it can say where an augmented view lies, and not only a picture.
    """

    per_view = True

    def __init__(
        self,
        space: Fingerprint,
        dim: int,
        about: str,
        labels: Sequence[str] = (),
        classifier: Tensor | None = None,
        model: EmbeddingModel | None = None,
    ) -> None:
        self.space, self.dim, self.about = space, dim, about
        self.labels, self.classifier, self.model = tuple(labels), classifier, model

    @property
    def key(self) -> str:
        """What decides over the vectors that it gives to views."""
        return self.space.hex

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """Unit vectors (B, D), on the CPU, of views of the pictures in `rows`.

        Args:
            views: uint8 (B, 3, S, S).
            rows: the pictures' places among those that `about_to_teach` was told of.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no vectors")

    def about_to_teach(self, items: Sequence[Item]) -> None:
        """Is told which pictures it will be asked for; raises `DataError` for unknown ones."""

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
    """A checkpoint of our own training: its weights and its classifier are known too."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(
            checkpoint.fingerprint,
            checkpoint.model.config.dim,
            str(checkpoint.card.get("started", "of unknown start")),
            checkpoint.labels,
            checkpoint.classifier,
            checkpoint.model,
        )
        self._device = best_device()
        self._network = clone(checkpoint.model).to(self._device).eval()
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """See `Teacher.vectors`; bfloat16 inside, to be quick."""
        seen = resized(views, self._network.config.input_size)
        return embed_views(self._network, seen, self._device)


class BundleTeacher(Teacher):
    """Any model that runs as a bundle: no labels, no classifier and no weights are needed.

    Args:
        bundle: of a model that anchors its space.

    Raises `ConfigError` for a bundle that lives in another model's space.
    """

    def __init__(self, bundle: Bundle | str | Path) -> None:
        self._embedder = Embedder(bundle)
        manifest = self._embedder.bundle.manifest
        identity = self._embedder.identity
        if not identity.is_anchor:
            raise ConfigError(
                f"{identity} lives in the space {identity.space.short}… of another model; teach "
                "with the bundle of that cloud model"
            )
        super().__init__(
            identity.fingerprint, self._embedder.dim, f"the bundle {manifest.name}, without labels"
        )

    @property
    def key(self) -> str:
        """A variant is not the float model: its vectors differ a little."""
        return f"{self.space.hex} {self._embedder.identity.variant}"

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
        lengths = np.linalg.norm(vectors, axis=1)
        bad = ~np.isfinite(lengths) | (lengths == 0)
        if bad.any():
            raise DataError(
                f"{path}: {int(bad.sum())} of {len(vectors)} vectors are zero, NaN or infinite; "
                f"the first is that of {paths[int(np.argmax(bad))]}"
            )
        unit = np.ascontiguousarray(vectors / lengths[:, None], np.float32)
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

    def about_to_teach(self, items: Sequence[Item]) -> None:
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


def _read_vectors(path: Path, train: Sequence[Item]) -> tuple[list[str], NDArray[np.float32]]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable .npy or .npz file: {error}") from None
    if isinstance(loaded, np.ndarray):
        paths, vectors = [i.path for i in train], loaded
    else:
        with loaded:
            if missing := {"paths", "vectors"} - set(loaded.files):
                raise DataError(f"{path} has no array {' and no array '.join(sorted(missing))}")
            paths, vectors = [str(p) for p in loaded["paths"]], loaded["vectors"]
    if vectors.ndim != 2 or len(vectors) != len(paths) or vectors.dtype.kind != "f":
        raise DataError(
            f"{path} holds {vectors.dtype} vectors of shape {vectors.shape}; expected are floats "
            f"({len(paths)}, D), one row for each of {len(paths)} pictures"
        )
    return paths, vectors.astype(np.float32)


def teacher_of(cloud: Checkpoint | Teacher) -> Teacher:
    """`cloud`, if it can teach already, or what makes a checkpoint teach."""
    return cloud if isinstance(cloud, Teacher) else CheckpointTeacher(cloud)
