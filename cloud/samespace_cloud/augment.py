"""Random views of a batch of pictures, on kornia."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How a view differs from its picture.

    Attributes:
        degrees: largest rotation.
        scale: range of the zoom; below 1 shows more of the surroundings (reflected).
        translate: largest shift, as a share of the side.
        shear: largest shear, in degrees.
        flip: probability of mirroring.
        brightness, contrast, saturation: largest relative change.
        hue: largest turn of the colour circle, 0 to 0.5; five times slower than all the rest.
        blur: probability of a slight blur.
    """

    degrees: float = 20.0
    scale: tuple[float, float] = (0.9, 1.5)
    translate: float = 0.05
    shear: float = 5.0
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.0
    blur: float = 0.3


def augment(images: Tensor, how: Augmentation, seed: int) -> Tensor:
    """uint8 (N, 3, H, W) to a random view of each, uint8 (N, 3, H, W); the same for one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x = _pipeline(how)(images.to(torch.float32) / 255)
    return (x.clamp_(0, 1) * 255).round_().to(torch.uint8)


def blend(images: Tensor, seed: int) -> Tensor:
    """Each picture mixed with another of the batch, uint8 (N, 3, H, W), shares .2 to .8 (mixup,
    Zhang et al. 2018, for teaching without labels: the teacher sees the same blend)."""
    generator = torch.Generator().manual_seed(seed)
    other = images[torch.randperm(len(images), generator=generator)]
    share = 0.2 + 0.6 * torch.rand(len(images), 1, 1, 1, generator=generator)
    mixed = share * images + (1 - share) * other
    return mixed.round_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=8)
def _pipeline(how: Augmentation) -> Callable[[Tensor], Tensor]:
    import kornia.augmentation as K

    steps: list[Any] = [
        K.RandomHorizontalFlip(p=how.flip),
        K.RandomAffine(
            degrees=how.degrees,
            translate=(how.translate, how.translate),
            scale=how.scale,
            shear=how.shear,
            padding_mode="reflection",
            p=1.0,
        ),
        K.ColorJitter(how.brightness, how.contrast, how.saturation, 0.0, p=1.0),
        K.RandomGaussianBlur((3, 3), (0.4, 1.0), p=how.blur),
    ]
    if how.hue:
        steps.append(K.RandomHue((-how.hue, how.hue), p=1.0))
    pipeline: Callable[[Tensor], Tensor] = K.AugmentationSequential(*steps, data_keys=["input"])
    return pipeline
