"""Pairs from two bundles: the train pictures of a dataset, embedded by both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samespace._dataset import Dataset
from samespace.verification._inputs import Progress, batches, silent
from samespace_edge import Bundle, ConfigError, Embedder

MOST_PAIRS = 20_000
"""Pictures that are embedded unless told otherwise: what Drift-Adapter (EMNLP 2025) needed."""


def embed_pairs(
    source: Embedder | Bundle | str | Path,
    target: Embedder | Bundle | str | Path,
    dataset: Dataset | str | Path,
    *,
    most: int = MOST_PAIRS,
    progress: Progress = silent,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed a dataset's train pictures, never its test pictures, with two bundles.

    Args:
        source, target: the bundles of the two models.
        dataset: a dataset, or what `Dataset.open` takes.
        most: how many pictures are used at most: the same ones every time.
        progress: is told the stage and how many pictures of how many are done.

    Returns unit vectors (N, D) of the source and (N, O) of the target; raises as
    `embed_train_pictures` does.
    """
    models = {"source": source, "target": target}
    made = embed_train_pictures(models, dataset, most=most, progress=progress)
    return made["source"], made["target"]


def embed_train_pictures(
    models: Mapping[str, Embedder | Bundle | str | Path],
    dataset: Dataset | str | Path,
    *,
    most: int = MOST_PAIRS,
    progress: Progress = silent,
) -> dict[str, NDArray[np.float32]]:
    """Embed a dataset's train pictures with several bundles; see `embed_pairs`.

    Args:
        models: bundles by what they are, such as `source` and `side`.

    Returns unit vectors (N, D) by the same names. Raises `ConfigError` where there are no train
    pictures, `VerificationError` naming a picture that cannot be read, and the errors of datasets
    and bundles.
    """
    data = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    items = sorted(data.train, key=lambda i: i.path)
    if not items:
        raise ConfigError(
            f"{data.source} has no train pictures to fit an adapter to; test pictures are never "
            "used for it"
        )
    if len(items) > most:
        chosen = np.random.default_rng(0).choice(len(items), most, replace=False)
        items = [items[i] for i in np.sort(chosen)]
    made = {}
    for role, model in models.items():
        embedder = model if isinstance(model, Embedder) else Embedder(model)
        stage = f"embed with {role} {embedder.identity.name}"
        vectors = []
        done = 0
        for pixels in batches(embedder.bundle.manifest.resize, data, items):
            vectors.append(embedder.embed_pixels(pixels))
            done += len(pixels)
            progress(stage, done, len(items))
        made[role] = np.concatenate(vectors)
    return made
