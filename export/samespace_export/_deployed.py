"""A model as it is shipped: preprocessing in front of it, L2 normalisation behind it."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor, nn

from samespace_edge._runtimes import OUTPUT

# 0 in fp16 would be a division by zero for a picture without any feature, so not smaller.
EPSILON = 1e-4


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
        norm = y.square().sum(dim=1, keepdim=True).sqrt().clamp_min(EPSILON)
        return {OUTPUT: y / norm}

    def _made_of(self, image: Tensor) -> Tensor:
        x = image if self.takes_planes else image.permute(0, 3, 1, 2).to(torch.float32)
        y: Tensor = self.module(x * self.scale + self.shift)
        return y

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """uint8 RGB (N, H, W, 3) to float32 unit vectors (N, D), 64 pictures at a time."""
        return torch.cat([self(pixels[i : i + 64])[OUTPUT] for i in range(0, len(pixels), 64)])


class Unnormalised(Deployed):
    """The same without the L2 normalisation: for logits, and for features that a head follows."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """uint8 RGB (N, H, W, 3) to what the module makes, float32 (N, D)."""
        return {OUTPUT: self._made_of(image)}
