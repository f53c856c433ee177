"""The one door in front of every model: pictures in, unit vectors out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samespace_edge._bundle import Bundle, Variant
from samespace_edge._errors import (
    BundleFormatError,
    ConfigError,
    DepartingGraphError,
    ImageError,
    RuntimeUnavailableError,
    SamespaceError,
)
from samespace_edge._golden import agreement
from samespace_edge._identity import ModelIdentity
from samespace_edge._image import ImageSource, decode_image
from samespace_edge._processor import instruction_set
from samespace_edge._runtimes import RUNTIMES, Runtime, find_runtime, load_runtime

Images: TypeAlias = ImageSource | Iterable[ImageSource]


class Embedder:
    """Runs a bundle.

    >>> embedder = Embedder("edge-s.bundle")        # doctest: +SKIP
    >>> embedder.embed(["cup.jpg", "mug.jpg"]).shape  # doctest: +SKIP
    (2, 128)

    Any number of threads may use one embedder at the same time, in every runtime. Each call gets
    the vectors of the pictures that it gave:

    - onnxruntime and the interpreter of Core ML files run the calls side by side.
    - LiteRT and tflite-runtime lend an interpreter to every call. There is one after loading.
      Another is made when a call finds none idle, up to one for every processor that the process
      may use (divided by `threads`). Then calls wait, in the order in which they came.
    - Core ML runs one call after the other.

    Every further interpreter takes 1.2 to 1.5 times the size of its file in memory: 3.3 MiB for the
    demo's edge network. On two cores of an Intel Xeon (Sapphire Rapids) two threads embedded 1.9
    times as many pictures a second as one. See "Threads" in edge_runtime/README.md.

    Args:
        bundle: a bundle or the path of one.
        variant: which graph file, by name (`onnx-fp32`); by default the first in the bundle that
            an installed runtime runs, and computes here like the exporter.
        runtime: which runtime, by name (`onnxruntime`, `ai_edge_litert`, `tflite_runtime`,
            `coremltools`); by default the first of these that is installed and has a file to run.
        threads: threads of the runtime for one call. Edge models are so small that one is
            usually the fastest.
        providers: onnxruntime's execution providers (`CUDAExecutionProvider`,
            `CoreMLExecutionProvider`, `NnapiExecutionProvider`, ...), or one of Core ML's compute
            units (`ALL`, `CPU_ONLY`, ...); by default the runtime's own choice of processor.
        check: compare the file with its golden vectors on this processor, the first time that it
            is opened here. The verdict is kept in the folder that the environment variable
            SAMESPACE_CACHE names, by default ~/.cache/samespace. A file that departs is refused;
            where neither `variant` nor `runtime` is named, the next file is taken instead.

    Raises the errors of `Bundle.open`, `RuntimeUnavailableError` where nothing that is installed
    runs the file, `ConfigError` for a runtime that does not go with the variant, and
    `DepartingGraphError` for a file that this processor computes otherwise than the exporter.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        variant: str | None = None,
        runtime: str | None = None,
        threads: int = 1,
        providers: Sequence[str] = (),
        check: bool = True,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"threads has to be 1 or more, not {threads}")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self._resize = self.bundle.manifest.resize
        candidates = _candidates(self.bundle, variant, runtime)
        opened = _open(self.bundle, candidates, threads, providers, check)
        self.variant, self.runtime, self._runtime = opened

    def __repr__(self) -> str:
        return f"Embedder({self.identity}, {self.runtime})"

    @property
    def identity(self) -> ModelIdentity:
        """Who makes these vectors: what a gallery asks for."""
        return self.bundle.identity(self.variant)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.bundle.manifest.dim

    def preprocess(self, image: ImageSource) -> NDArray[np.uint8]:
        """Decode and resize one picture to the graph's input: uint8 RGB (H, W, 3)."""
        return self._resize(decode_image(image))

    def embed(self, images: Images, batch_size: int = 32) -> NDArray[np.float32]:
        """Embed one picture or many.

        Args:
            images: a path, bytes, a PIL image or uint8 RGB pixels (H, W, 3); or a sequence of
                them, or an array (N, H, W, 3).
            batch_size: how many pictures run through the graph at once.

        Returns float32 unit vectors (N, D), in the order given; N is 1 for a single picture.
        Raises `DecodeError` or `ImageTooLargeError`, naming the picture.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size has to be 1 or more, not {batch_size}")
        vectors = [self.embed_pixels(batch) for batch in self._batches(images, batch_size)]
        if not vectors:
            return np.empty((0, self.dim), np.float32)
        return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)

    def embed_pixels(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Preprocessed pixels, uint8 RGB (N, height, width, 3), to unit vectors (N, D)."""
        vectors = self._runtime.run(batch)
        if vectors.shape != (len(batch), self.dim):
            raise BundleFormatError(
                f"the graph of {self.identity} returned {vectors.shape} for {len(batch)} "
                f"pictures; the manifest promises ({len(batch)}, {self.dim})"
            )
        if not np.isfinite(vectors).all():
            raise BundleFormatError(
                f"the graph of {self.identity} returned NaN or infinity; run 'samespace bundle "
                "check' on this machine"
            )
        return vectors

    def _batches(self, images: Images, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        resize = self._resize
        batch = np.empty((batch_size, resize.height, resize.width, 3), np.uint8)
        filled = 0
        for position, image in enumerate(_each(images)):
            try:
                batch[filled] = resize(decode_image(image))
            except ImageError as error:
                raise type(error)(f"picture {position}: {error}") from None
            filled += 1
            if filled == batch_size:
                yield batch
                filled = 0
        if filled:
            yield batch[:filled]


def _candidates(
    bundle: Bundle, variant: str | None, runtime: str | None
) -> list[tuple[Variant, str]]:
    """Return the files and runtimes that fit what was asked for, best first.

    More than one only where neither was named.
    """
    variants = bundle.manifest.variants if variant is None else (bundle.variant(variant),)
    if runtime is not None:
        kind = find_runtime(runtime)
        for candidate in variants:
            if candidate.format == kind.format:
                return [(candidate, runtime)]
        held = ", ".join(v.name for v in variants)
        raise ConfigError(
            f"{runtime} runs {kind.format} files; bundle {bundle.manifest.name!r} "
            f"{'has' if variant is None else 'was asked for'}: {held}"
        )
    found: list[tuple[Variant, str]] = []
    reasons: list[str] = []
    for name, kind in RUNTIMES.items():
        fitting = [v for v in variants if v.format == kind.format]
        if not fitting:
            continue
        if (missing := kind.missing()) is None:
            found += [(v, name) for v in fitting]
        else:
            reasons.append(missing)
    if not found:
        held = ", ".join(v.name for v in variants)
        raise RuntimeUnavailableError(
            f"nothing that is installed runs {held} of bundle {bundle.manifest.name!r}. "
            + ("; ".join(reasons) or f"This version knows no format {variants[0].format}")
        )
    return found if variant is None else found[:1]


def _open(
    bundle: Bundle,
    candidates: Sequence[tuple[Variant, str]],
    threads: int,
    providers: Sequence[str],
    check: bool,
) -> tuple[Variant, str, Runtime]:
    """Load the first candidate that this processor computes as the exporter expects.

    Raises `DepartingGraphError` where there is none.
    """
    departing: list[str] = []
    for variant, name in candidates:
        loaded = load_runtime(name, bundle.graph(variant), threads, providers)
        found = agreement(bundle, variant, name, providers, loaded.run) if check else None
        if found is None or found.ok:
            return variant, name, loaded
        departing.append(
            f"{variant.name} in {name} by {found.error:.2g}, where {found.tolerance:g} passes"
        )
    raise DepartingGraphError(
        f"on this processor ({instruction_set()}), bundle {bundle.manifest.name!r} gives other "
        f"vectors than its golden vectors (1 - cosine): {'; '.join(departing)}. Such vectors "
        f"would find other things in a gallery. {_instead(bundle, candidates, threads)}"
    )


def _instead(bundle: Bundle, refused: Sequence[tuple[Variant, str]], threads: int) -> str:
    """Say which file of the bundle to use in place of the refused ones."""
    for variant, name in _candidates(bundle, None, None):
        if (variant, name) in refused:
            continue
        try:
            loaded = load_runtime(name, bundle.graph(variant), threads, ())
            found = agreement(bundle, variant, name, (), loaded.run)
        except SamespaceError:
            continue
        if found is not None and found.ok:
            return f"Use variant {variant.name!r} (runtime {name!r}), which agrees here."
    return (
        "Export the bundle again with this version, whose int8 files give the same vectors on "
        "every processor; no other file of the bundle agrees here."
    )


def _each(images: Images) -> Iterable[ImageSource]:
    if isinstance(images, np.ndarray):
        return images if images.ndim == 4 else (images,)
    if isinstance(images, str | os.PathLike | bytes | Image.Image) or not isinstance(
        images, Iterable
    ):
        return (images,)
    return images
