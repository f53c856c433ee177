"""The views that a training sees, made once and kept, with what the cloud model says of them.

A view depends only on the seed, its number and the picture's place, so a resumed training sees
what it would have seen. The teacher embeds the very view that the student learns from, at the
teacher's own resolution, and its vectors are kept: it runs once per view, however long the
training is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samespace_cloud.augment import Augmentation, augment, blend
from samespace_cloud.closed_form import class_centres
from samespace_cloud.model import EmbeddingModel
from samespace_edge import canonical_json

_BATCH = 128

Progress = Callable[[int, int], None]


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
        taught: the teacher's unit vectors (count, N, D), once `teach` has run.
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
        teacher: EmbeddingModel | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Make all views, and have `teacher` embed them, on `device`."""
        device = device or torch.device("cpu")
        if teacher is not None:
            teacher.to(device)
            teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            teacher.eval()
            self.taught = torch.empty(self.count, len(self), teacher.config.dim)
        shape = (self.count, len(self), 3)
        self.inputs = {s: torch.empty(*shape, s, s, dtype=torch.uint8) for s in self._sizes}
        done, total = 0, self.count * len(self)
        for number in range(self.count):
            for start in range(0, len(self), _BATCH):
                view = self.make(number, start)
                rows = slice(start, start + len(view))
                for size in self._sizes:
                    self.inputs[size][number, rows] = resized(view, size)
                if teacher is not None and self.taught is not None:
                    seen = resized(view, teacher.config.input_size)
                    self.taught[number, rows] = embed_views(teacher, seen, device)
                done += len(view)
                progress(done, total)

    def assign(self, epoch: int) -> Tensor:
        """Which view every picture shows in an epoch, int64 (N,): each in turn, from its own
        start on."""
        generator = torch.Generator().manual_seed(self._seed)
        offsets = torch.randint(self.count, (len(self),), generator=generator)
        return (offsets + epoch) % self.count


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


@torch.no_grad()
def embed_views(model: EmbeddingModel, images: Tensor, device: torch.device) -> Tensor:
    """Unit vectors (N, D), on the CPU, of uint8 (N, 3, S, S); bfloat16 inside, to be quick."""
    with torch.autocast(device.type, torch.bfloat16):
        y = model(normalised(images, model, device))
    return F.normalize(y.float()).cpu()


@torch.no_grad()
def features(model: EmbeddingModel, images: Tensor, device: torch.device) -> Tensor:
    """Pooled features (N, F), on the CPU, of uint8 (N, 3, S, S); bfloat16 inside."""
    model.eval()
    parts = []
    for start in range(0, len(images), _BATCH):
        with torch.autocast(device.type, torch.bfloat16):
            y = model.backbone(normalised(images[start : start + _BATCH], model, device))
        parts.append(y.float().cpu())
    return torch.cat(parts)


def embed_pictures(
    model: EmbeddingModel, pictures: NDArray[np.uint8], device: torch.device
) -> Tensor:
    """Unit vectors (N, D), on the CPU, of unchanged pictures, uint8 (N, H, W, 3)."""
    if not len(pictures):
        return torch.empty(0, model.config.dim)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    model.eval()
    return torch.cat(
        [
            embed_views(model, resized(images[i : i + _BATCH], model.config.input_size), device)
            for i in range(0, len(images), _BATCH)
        ]
    )
