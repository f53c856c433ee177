"""Groups of vectors by cosine; scikit-learn does the work."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace_edge import ConfigError

Vectors = NDArray[np.float32]
Groups = NDArray[np.int64]

EXACT_UP_TO = 5_000
"""Items up to which every pair is compared: N² × 8 bytes then, 200 MB at most."""

CENTRES = 4_000
"""Of more items, so many k-means centres, or half as many as items, are grouped in their place."""

_BATCH, _PASSES = 4096, 20


def group(
    vectors: Vectors, *, distance: float | None, count: int | None, seed: int
) -> tuple[Groups, str]:
    """A group for every vector, int64 (N,), and how they were found.

    Args:
        vectors: unit vectors (N, D).
        distance: groups are merged while the mean of 1 - cosine over all their pairs is below it.
        count: or: how many groups.
        seed: of k-means.

    Raises `ConfigError` where scikit-learn is missing, or there are fewer vectors than groups.
    """
    many = len(vectors)
    if count is not None and count > many:
        raise ConfigError(f"{many} items cannot be in {count} clusters")
    if many < 2:
        return np.zeros(many, np.int64), "average linkage"
    if many <= EXACT_UP_TO:
        return _linked(vectors, distance, count), "average linkage"
    if count is not None:
        return _k_means(vectors, count, seed)[0], "k-means"
    near, centres = _k_means(vectors, min(CENTRES, many // 2), seed, init="random")
    used, near = np.unique(near, return_inverse=True)
    return _linked(centres[used], distance, None)[near], "k-means, then average linkage"


def _linked(vectors: Vectors, distance: float | None, count: int | None) -> Groups:
    linkage = _cluster().AgglomerativeClustering(
        n_clusters=count, distance_threshold=distance, metric="cosine", linkage="average"
    )
    return np.asarray(linkage.fit_predict(vectors), np.int64)


def _k_means(
    vectors: Vectors, count: int, seed: int, init: str = "k-means++"
) -> tuple[Groups, Vectors]:
    """Nearest centre of every vector (N,), and the centres (C, D).

    For unit vectors the nearest centre by distance is nearly that by cosine, and memory is that
    of a batch.
    """
    means = _cluster().MiniBatchKMeans(
        count, init=init, n_init=1, batch_size=_BATCH, max_iter=_PASSES, random_state=seed
    )
    with warnings.catch_warnings():
        # Of fewer different vectors than centres: there are that many clusters then.
        warnings.simplefilter("ignore")
        near = means.fit_predict(vectors)
    return np.asarray(near, np.int64), np.asarray(means.cluster_centers_, np.float32)


def _cluster() -> Any:
    try:
        from sklearn import cluster
    except ImportError:
        raise ConfigError('clusters need scikit-learn: pip install "samespace[analysis]"') from None
    return cluster
