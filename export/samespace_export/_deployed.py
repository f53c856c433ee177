"""A model as it is shipped: preprocessing in front of it, L2 normalisation behind it."""

from __future__ import annotations

import math
from copy import copy

import torch
from torch import Tensor, nn

from samespace_edge._runtimes import OUTPUT

# 0 in fp16 would be a division by zero for a picture without any feature, so not smaller.
EPSILON = 1e-4

# Lengths of embeddings that fp16 squares without loss, and the one that others are brought to.
_SHORTEST, _LONGEST, _USUAL = 2.0**-2, 2.0**6, 2.0**2
_LARGEST_POWER = 100
_BATCH = 64


class Deployed(nn.Module):
    """uint8 RGB (N, H, W, 3) to float32 unit vectors (N, D), by the name of the output.

    Args:
        module: normalised float32 pictures (N, 3, H, W) to embeddings (N, D).
        mean, std: normalisation of the pixels as fractions, R, G, B.
    """

    def __init__(self, module: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.module = module
        self.takes_planes = False
        self.gain = 1.0
        self.scale: Tensor
        self.shift: Tensor
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float32))
        shift = -torch.tensor(mean, dtype=torch.float32) / torch.tensor(std)
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        self.register_buffer("shift", shift.view(1, 3, 1, 1))
        self.eval()

    def planar(self) -> Deployed:
        """The same, but for float 0 to 255 (N, 3, H, W): what Core ML makes of an image."""
        other = copy(self)
        other.takes_planes = True
        return other

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """See the class."""
        y = self._made_of(image)
        if self.gain != 1:
            y = y * self.gain
        norm = y.square().sum(dim=1, keepdim=True).sqrt().clamp_min(EPSILON)
        return {OUTPUT: y / norm}

    @torch.no_grad()
    def find_gain(self, pixels: Tensor) -> float:
        """Return a power of two that brings embeddings near to length 4; 1 for usual lengths.

        A cosine does not depend on the length of an embedding, but squares of very short or very
        long ones are lost, in fp16 first.

        Args:
            pixels: typical pictures, uint8 RGB (N, H, W, 3).
        """
        lengths = self._made_of(pixels[:_BATCH]).double().norm(dim=1)
        lengths = lengths[(lengths > 0) & lengths.isfinite()]
        if not len(lengths) or _SHORTEST <= float(lengths.median()) <= _LONGEST:
            return 1.0
        power = round(math.log2(_USUAL / float(lengths.median())))
        return float(2.0 ** max(-_LARGEST_POWER, min(_LARGEST_POWER, power)))

    def _made_of(self, image: Tensor) -> Tensor:
        x = image if self.takes_planes else image.permute(0, 3, 1, 2).to(torch.float32)
        y: Tensor = self.module(x * self.scale + self.shift)
        return y

    @torch.no_grad()
    def embed(self, pixels: Tensor, gain: float | None = None) -> Tensor:
        """uint8 RGB (N, H, W, 3) to float32 unit vectors (N, D), 64 pictures at a time.

        What `forward` computes, in double precision behind the module.
        """
        parts = [self._made_of(pixels[i : i + _BATCH]) for i in range(0, len(pixels), _BATCH)]
        y = torch.cat(parts).double() * (self.gain if gain is None else gain)
        unit: Tensor = y / y.norm(dim=1, keepdim=True).clamp_min(EPSILON)
        return unit.float()


class Unnormalised(Deployed):
    """The same without the L2 normalisation: for logits, and for features that a head follows."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """uint8 RGB (N, H, W, 3) to what the module makes, float32 (N, D)."""
        return {OUTPUT: self._made_of(image)}
