"""The views that a training sees, made once and kept, with what the cloud model says of them.

An epoch e sees view number e modulo `count` of every picture. A view depends only on the seed,
its number and the picture's place, so a resumed training sees what it would have seen. The
teacher embeds the very view that the student learns from, at the teacher's own resolution; its
vectors are kept, so it runs `count` times over the pictures however long the training is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samespace_cloud.augment import Augmentation, augment
from samespace_cloud.model import EmbeddingModel
from samespace_edge import canonical_json

_BATCH = 128

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class View:
    """One view of every picture.

    Attributes:
        inputs: uint8 (N, 3, S, S) by side S.
        taught: the teacher's unit vectors (N, D); None without a teacher.
    """

    inputs: Mapping[int, Tensor]
    taught: Tensor | None


class Views:
    """Views of pictures for models of given input sizes.

    Args:
        pictures: uint8 RGB (N, S, S, 3).
        how: the augmentation.
        sizes: sides of the inputs that are wanted, in pixels.
        count: how many views to make and keep; epochs beyond see them again.
        seed: of the augmentation.
        teacher: embeds every view; frozen.
        device: where the teacher runs.
    """

    def __init__(
        self,
        pictures: NDArray[np.uint8],
        how: Augmentation,
        sizes: Sequence[int],
        count: int,
        seed: int,
        teacher: EmbeddingModel | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        self._how = how
        self._sizes = tuple(dict.fromkeys(sizes))
        self._count = count
        self._seed = seed
        self._teacher = None if teacher is None else _frozen(teacher, device)
        self._device = torch.device(device)
        self._made: dict[int, View] = {}

    def __len__(self) -> int:
        return len(self._pictures)

    def describe(self) -> str:
        """What decides over the views, for a checkpoint to notice when it changes."""
        return canonical_json([vars(self._how), self._sizes, self._count, self._seed])

    def epoch(self, epoch: int, progress: Progress = lambda done, total: None) -> View:
        """The view that epoch number `epoch` sees."""
        number = epoch % self._count
        if number not in self._made:
            self._made[number] = self._make(number, progress)
        return self._made[number]

    @torch.no_grad()
    def _make(self, number: int, progress: Progress) -> View:
        inputs: dict[int, list[Tensor]] = {size: [] for size in self._sizes}
        taught: list[Tensor] = []
        for start in range(0, len(self), _BATCH):
            batch = self._pictures[start : start + _BATCH]
            seed = hash((self._seed, number, start)) & 0x7FFFFFFF
            view = augment(batch, self._how, seed)
            for size in self._sizes:
                inputs[size].append(resized(view, size))
            if self._teacher is not None:
                side = self._teacher.config.input_size
                taught.append(embed_views(self._teacher, resized(view, side), self._device))
            progress(min(start + _BATCH, len(self)), len(self))
        return View(
            {size: torch.cat(parts) for size, parts in inputs.items()},
            torch.cat(taught) if taught else None,
        )


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


def _frozen(model: EmbeddingModel, device: torch.device | str) -> EmbeddingModel:
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False)
