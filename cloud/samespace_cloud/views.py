"""The views that a training sees, made once and kept, with what the cloud model says of them.

A view depends only on the seed, its number and the picture's place, so a resumed training sees
what it would have seen. The teacher embeds the very view that the student learns from, at the
teacher's own resolution, and its vectors are kept: it runs once per view, however long the
training is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samespace_cloud.augment import Augmentation, augment, blend
from samespace_cloud.closed_form import class_centres
from samespace_cloud.model import EmbeddingModel
from samespace_edge import canonical_json
from samespace_edge._temporary import temporary_for

_BATCH = 128

Progress = Callable[[int, int], None]


class Teaches(Protocol):
    """Who says where views lie in the cloud's space."""

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        ...

    @property
    def key(self) -> str:
        """What decides over the vectors, as text."""
        ...

    def vectors(self, views: Tensor, rows: slice) -> Tensor:
        """Unit vectors (B, D), on the CPU, of views of the pictures in `rows`, uint8
        (B, 3, S, S)."""
        ...


class Views:
    """Views of pictures for models of given input sizes.

    View 0 is the picture as it is, the last `mixed` ones are blends of two augmented pictures,
    those between are augmented.

    Args:
        pictures: uint8 RGB (N, S, S, 3).
        how: the augmentation.
        sizes: sides of the inputs that are wanted, in pixels.
        count: how many views to make.
        mixed: how many of them are blends; for teaching without labels.
        seed: of the augmentation.

    Attributes:
        inputs: uint8 (count, N, 3, S, S) by side S, once `prepare` has run.
        taught: the teacher's unit vectors (count, N, D), once `prepare` has run with a teacher.
    """

    def __init__(
        self,
        pictures: NDArray[np.uint8],
        how: Augmentation,
        sizes: Sequence[int],
        count: int,
        seed: int,
        mixed: int = 0,
    ) -> None:
        self._pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        self._how = how
        self._sizes = tuple(dict.fromkeys(sizes))
        self._seed = seed
        self.count = count
        self.plain = count - mixed
        self.inputs: dict[int, Tensor] = {}
        self.taught: Tensor | None = None

    def __len__(self) -> int:
        return len(self._pictures)

    def describe(self) -> str:
        """What decides over the views, for a checkpoint to notice when it changes."""
        return canonical_json(
            [vars(self._how), self._sizes, self.count, self.plain, self._seed, len(self)]
        )

    @torch.no_grad()
    def make(self, number: int, start: int) -> Tensor:
        """View `number` of a batch of pictures from place `start` on: uint8 (B, 3, S, S)."""
        batch = self._pictures[start : start + _BATCH]
        if number == 0:
            return batch
        seed = (self._seed * 1_000_003 + number * 10_007 + start) & 0x7FFFFFFF
        view = augment(batch, self._how, seed)
        return blend(view, seed) if number >= self.plain else view

    @torch.no_grad()
    def prepare(
        self,
        progress: Progress = lambda done, total: None,
        teacher: Teaches | None = None,
        cache: Path | None = None,
    ) -> None:
        """Make all views, and have `teacher` say where each of them lies.

        Args:
            cache: a folder where both are kept, by what decides over them, and found by the next
                training: of the same teacher at another input size, say.
        """
        store = _Store(cache, self._pictures, self.describe()) if cache else None
        shape = (self.count, len(self), 3)
        wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]]
        wanted = {f"{s}px": (torch.uint8, (*shape, s, s)) for s in self._sizes}
        if teacher is not None:
            # The student's size does not matter to the teacher.
            wanted[teacher.key] = (torch.float32, (self.count, len(self), teacher.dim))
        found = {k: store.read(k) for k in wanted} if store else dict.fromkeys(wanted)
        made = {k: torch.empty(v[1], dtype=v[0]) for k, v in wanted.items() if found[k] is None}
        done, total = 0, self.count * len(self)
        for number in range(self.count) if made else ():
            for start in range(0, len(self), _BATCH):
                view = self.make(number, start)
                rows = slice(start, start + len(view))
                for size in self._sizes:
                    if f"{size}px" in made:
                        made[f"{size}px"][number, rows] = resized(view, size)
                if teacher is not None and teacher.key in made:
                    made[teacher.key][number, rows] = teacher.vectors(view, rows)
                done += len(view)
                progress(done, total)
        progress(total, total)
        for key, tensor in made.items() if store else ():
            assert store is not None
            store.write(key, tensor)
        whole = {**found, **made}
        self.inputs = {s: _there(whole[f"{s}px"]) for s in self._sizes}
        self.taught = None if teacher is None else _there(whole[teacher.key])

    def assign(self, epoch: int) -> Tensor:
        """Which view every picture shows in an epoch, int64 (N,): each in turn, from its own
        start on."""
        generator = torch.Generator().manual_seed(self._seed)
        offsets = torch.randint(self.count, (len(self),), generator=generator)
        return (offsets + epoch) % self.count

    def blended(self, shown: Tensor) -> Tensor:
        """Which pictures show a blend, bool (N,): a blend shows two labels, so it has none."""
        return shown >= self.plain

    def take(self, shown: Tensor, index: Tensor) -> tuple[Mapping[int, Tensor], Tensor | None]:
        """The inputs of pictures `index` (B,) by side, and what the teacher says of them.

        Args:
            shown: from `assign`.
        """
        view = shown[index]
        taught = None if self.taught is None else self.taught[view, index]
        return _Lazy(self._sizes, lambda size: self.inputs[size][view, index]), taught


class JoinedViews:
    """Views of several sets of pictures, one behind the other, as one set: each set keeps the
    number of views that it has."""

    def __init__(self, parts: Sequence[Views]) -> None:
        self.parts = tuple(parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def describe(self) -> str:
        """What decides over the views."""
        return canonical_json([p.describe() for p in self.parts])

    def assign(self, epoch: int) -> Tensor:
        """See `Views.assign`."""
        return torch.cat([p.assign(epoch) for p in self.parts])

    def blended(self, shown: Tensor) -> Tensor:
        """See `Views.blended`."""
        pieces = torch.split(shown, [len(p) for p in self.parts])
        return torch.cat([p.blended(s) for p, s in zip(self.parts, pieces, strict=True)])

    def take(self, shown: Tensor, index: Tensor) -> tuple[Mapping[int, Tensor], Tensor | None]:
        """See `Views.take`."""
        places, taken, start = [], [], 0
        for part in self.parts:
            where = ((index >= start) & (index < start + len(part))).nonzero()[:, 0]
            places.append(where)
            taken.append(part.take(shown[start : start + len(part)], index[where] - start))
            start += len(part)
        order = torch.cat(places).argsort()
        taught = [t for _, t in taken if t is not None]

        def inputs(size: int) -> Tensor:
            return torch.cat([x[size] for x, _ in taken])[order]

        return _Lazy(list(taken[0][0]), inputs), torch.cat(taught)[order] if taught else None


class _Lazy(Mapping[int, Tensor]):
    """Tensors by side, made when they are asked for."""

    def __init__(self, sizes: Sequence[int], make: Callable[[int], Tensor]) -> None:
        self._sizes, self._make = tuple(sizes), make

    def __getitem__(self, size: int) -> Tensor:
        if size not in self._sizes:
            raise KeyError(size)
        return self._make(size)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


class _Store:
    """Arrays in a folder, named by a hash of all that decides over them."""

    def __init__(self, folder: Path, pictures: Tensor, plan: str) -> None:
        self._folder = folder
        digest = hashlib.sha256(pictures.numpy().tobytes())
        # The sizes stand in every plan, but not in what one size or the teacher sees.
        how, _, *rest = json.loads(plan)
        digest.update(canonical_json([how, *rest]).encode())
        self._plan = digest.hexdigest()

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(f"{self._plan} {key}".encode()).hexdigest()[:24]
        return self._folder / f"{name}.npy"

    def read(self, key: str) -> Tensor | None:
        path = self._path(key)
        if not path.exists():
            return None
        # Mapped, so that only what a step needs is read; copy-on-write, so that it can be changed.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))

    def write(self, key: str, tensor: Tensor) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        temporary = temporary_for(path)
        with temporary.open("wb") as stream:
            np.save(stream, tensor.numpy())
        temporary.replace(path)


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def steadied(taught: Tensor, labels: Tensor, plain: int, weight: float) -> Tensor:
    """The teacher's vectors, drawn towards what it says of the product on the whole.

    A single view's vector says as much of the view as of the product, and what it says of the
    view does not carry over to products never seen. Each vector t of a view becomes the unit
    vector along t + weight * c, with c the unit centre of its label's vectors or, for pictures
    without a label, of its own views' vectors. Blends stay as they are.

    Args:
        taught: unit vectors (V, N, D).
        labels: (N,), -1 for none.
        plain: how many of the V views are no blends.
        weight: of the centre; 0 changes nothing.
    """
    if weight == 0:
        return taught
    mean = taught[:plain].mean(0)
    centre = F.normalize(mean)
    known = labels >= 0
    if known.any():
        classes = class_centres(mean, labels, int(labels.max()) + 1)
        centre[known] = classes[labels[known]]
    drawn = F.normalize(taught[:plain] + weight * centre, dim=-1)
    return torch.cat([drawn, taught[plain:]])


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next(module.parameters()).device


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 (N, 3, H, W) to uint8 (N, 3, size, size), antialiased."""
    if images.shape[-2:] == (size, size):
        return images
    smaller = size < max(images.shape[-2:])
    x = F.interpolate(images.to(torch.float32), (size, size), mode="bilinear", antialias=smaller)
    return x.round_().clamp_(0, 255).to(torch.uint8)


def normalised(images: Tensor, model: EmbeddingModel, device: torch.device) -> Tensor:
    """uint8 (N, 3, S, S) to the float input that `model` takes, on `device`."""
    config = model.config
    mean = torch.tensor(config.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(config.std, device=device).view(1, 3, 1, 1)
    x = (images.to(device).to(torch.float32) / 255 - mean) / std
    return x.contiguous(memory_format=torch.channels_last)
