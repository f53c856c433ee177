"""What an int8 file learns its ranges from: real pictures, and how much of their tails to keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samespace_edge import ConfigError, ImageError, ImageSource, Resize, decode

MINIMUM = 16
"""Fewest pictures that ranges are taken from."""

PERCENTILES = (100.0, 99.99, 99.9)
"""What is tried where no percentile is given."""

# Values that a picture adds to the sample of a tensor.
_SAMPLE = 2048

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value that each tensor of a graph has to hold."""


@dataclass(frozen=True)
class Calibration:
    """Pictures for int8.

    Attributes:
        pixels: uint8 RGB (N, H, W, 3), at the model's input size. Take them from what the device
            will see; 100 to 500 are enough. Every fourth is kept back, to measure what the ranges
            of the others are worth.
        percentile: how much of a tensor's values its range has to cover, in percent. 100 is
            min/max; less clips the extremes and resolves the rest more finely. None tries
            `PERCENTILES` and takes what is measured best.
        largest_error: largest mean of 1 - cosine between the vectors of an int8 file and those of
            its fp32 file, on the pictures kept back. An export beyond that is refused. The default
            is far above what usable files have (0.002 to 0.02), and near what a file has whose
            search finds other things (0.1).
    """

    pixels: NDArray[np.uint8]
    percentile: float | None = None
    largest_error: float = 0.05

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[-1] != 3:
            raise ConfigError(
                "calibration pictures have to be uint8 RGB (N, H, W, 3), not "
                f"{self.pixels.dtype} {self.pixels.shape}"
            )
        if len(self.pixels) < MINIMUM:
            raise ConfigError(
                f"{len(self.pixels)} pictures are too few to take int8 ranges from; "
                f"give at least {MINIMUM}, better 100 or more"
            )
        if self.percentile is not None and not 50 < self.percentile <= 100:
            raise ConfigError(f"percentile {self.percentile} is outside 50 to 100")
        if not 0 < self.largest_error <= 2:
            raise ConfigError(
                f"largest_error {self.largest_error} is outside 0 to 2, the range of 1 - cosine"
            )

    @classmethod
    def of(
        cls,
        pictures: Sequence[ImageSource],
        resize: Resize,
        percentile: float | None = None,
        largest_error: float = 0.05,
    ) -> Calibration:
        """Decode and resize `pictures`; raises `DecodeError` naming the one that cannot be read."""
        pixels = np.empty((len(pictures), resize.height, resize.width, 3), np.uint8)
        for i, picture in enumerate(pictures):
            try:
                pixels[i] = resize(decode(picture))
            except ImageError as error:
                raise type(error)(f"calibration picture {i}: {error}") from None
        return cls(pixels, percentile, largest_error)

    @property
    def percentiles(self) -> tuple[float, ...]:
        """The percentiles to measure."""
        return PERCENTILES if self.percentile is None else (self.percentile,)

    @property
    def for_ranges(self) -> NDArray[np.uint8]:
        """The pictures that ranges are taken from."""
        return np.delete(self.pixels, np.s_[::4], axis=0)

    @property
    def for_judging(self) -> NDArray[np.uint8]:
        """The pictures that were kept back."""
        return self.pixels[::4]

    def fits(self, resize: Resize) -> None:
        """Raise `ConfigError` where the pictures are not of the model's input size."""
        height, width = self.pixels.shape[1:3]
        if (height, width) != (resize.height, resize.width):
            raise ConfigError(
                f"the calibration pictures are {width}x{height}, the model takes "
                f"{resize.width}x{resize.height}; make them with Calibration.of(pictures, resize)"
            )


def measure_ranges(
    values: Iterable[Mapping[str, NDArray[np.float32]]], percentiles: Sequence[float]
) -> dict[float, Ranges]:
    """For each percentile, the range that this share of a tensor's values lies in; of 100, exactly.

    Args:
        values: for each picture, every tensor of the graph by name.
    """
    ends: Ranges = {}
    samples: dict[str, list[NDArray[np.float32]]] = {}
    for picture in values:
        for name, array in picture.items():
            low, high = ends.get(name, (np.inf, -np.inf))
            ends[name] = (min(low, float(array.min())), max(high, float(array.max())))
            flat = array.ravel()
            samples.setdefault(name, []).append(flat[:: max(1, flat.size // _SAMPLE)].copy())
    ranges: dict[float, Ranges] = {p: {} for p in percentiles}
    tails = [(100 - p) / 2 for p in percentiles]
    for name, parts in samples.items():
        found = np.percentile(np.concatenate(parts), [*tails, *(100 - tail for tail in tails)])
        for p, low, high in zip(percentiles, found, found[len(tails) :], strict=False):
            ranges[p][name] = ends[name] if p == 100 else (float(low), float(high))
    return ranges
