"""One resize for every language: the definition in edge_runtime/README.md, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samespace_edge._errors import BundleFormatError

Pixels: TypeAlias = NDArray[np.uint8]
"""uint8 RGB (H, W, 3)."""

ResizePolicy = Literal["crop", "squash", "pad"]

_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Resize:
    """How a decoded picture becomes the graph's input.

    Attributes:
        width, height: size of the result, in pixels.
        policy: `crop` takes the largest centred part that has the target's proportions, `squash`
            takes the whole picture whatever its proportions, `pad` fits the whole picture in and
            fills the rest with white.

    The filter is always the antialiased triangle ("bilinear" in Pillow): its support grows with
    the reduction, each pass (first along rows, then along columns) is rounded to 8 bits.
    """

    width: int
    height: int
    policy: ResizePolicy = "crop"

    def __post_init__(self) -> None:
        if not (0 < self.width <= 4096 and 0 < self.height <= 4096):
            raise BundleFormatError(
                f"an input of {self.width}x{self.height} pixels is outside 1 to 4096"
            )
        if self.policy not in get_args(ResizePolicy):
            known = ", ".join(get_args(ResizePolicy))
            raise BundleFormatError(f"there is no resize policy {self.policy!r}; choose {known}")

    def __call__(self, pixels: Pixels | Image.Image) -> Pixels:
        """uint8 RGB (H, W, 3), or a PIL image of mode RGB, to uint8 RGB (height, width, 3)."""
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        if self.policy == "pad":
            return self._pad(image)
        if self.policy == "crop":
            image = self._cut(image)
        return np.asarray(_triangle(image, self.width, self.height))

    def _cut(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        # Whole pixels, so that every language cuts at the same place.
        if width * self.height > height * self.width:
            part = max(1, height * self.width // self.height)
            left = (width - part) // 2
            return image.crop((left, 0, left + part, height))
        part = max(1, width * self.height // self.width)
        top = (height - part) // 2
        return image.crop((0, top, width, top + part))

    def _pad(self, image: Image.Image) -> Pixels:
        width, height = image.size
        if width * self.height > height * self.width:
            inner = (self.width, _nearest(height * self.width, width))
        else:
            inner = (_nearest(width * self.height, height), self.height)
        canvas = Image.new("RGB", (self.width, self.height), _WHITE)
        left, top = (self.width - inner[0]) // 2, (self.height - inner[1]) // 2
        canvas.paste(_triangle(image, *inner), (left, top))
        return np.asarray(canvas)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a bundle's manifest."""
        return {"width": self.width, "height": self.height, "policy": self.policy}


def _nearest(numerator: int, denominator: int) -> int:
    return max(1, (2 * numerator + denominator) // (2 * denominator))


def _triangle(image: Image.Image, width: int, height: int) -> Image.Image:
    # Two calls: in one, Pillow may take the columns first where that is less work, and since each
    # pass is rounded the result would differ by a level.
    if image.width != width:
        image = image.resize((width, image.height), Image.Resampling.BILINEAR)
    if image.height != height:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image
