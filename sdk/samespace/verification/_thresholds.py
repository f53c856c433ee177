"""What a score threshold that was set for one model does to the queries of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace.verification._models import Model
from samespace.verification._report import Threshold
from samespace_edge import VerificationError

FAR = 0.01
"""The false accept rate that a gallery model's threshold is set at, unless told otherwise."""

_BINS = np.linspace(-1.0, 1.0, 41)


def checked_threshold(threshold: float | None) -> float | None:
    """The user's own threshold; raises `VerificationError` for what is no cosine."""
    if threshold is None:
        return None
    if not -1 <= threshold <= 1:
        raise VerificationError(
            f"a threshold is a cosine, from -1 to 1, not {threshold}; distances have to be turned "
            "into cosines first"
        )
    return float(threshold)


def threshold_met(
    query: Model,
    gallery: Model,
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
    given: float | None,
) -> Threshold:
    """What `query` meets at the threshold of `gallery`'s own queries.

    Args:
        query_labels, gallery_labels: (Q,) and (G,).
        given: the user's own threshold; None for that at FAR 1 %.
    """
    labels = (query_labels, gallery_labels)
    at = given
    if at is None:
        at = metrics.threshold_at_far(gallery.queries, gallery.gallery, *labels, FAR)
    own = metrics.operating_point(gallery.queries, gallery.gallery, *labels, at)
    other = metrics.operating_point(query.queries, gallery.gallery, *labels, at)
    similarity = np.clip(query.queries @ gallery.gallery.T, -1, 1)
    match = query_labels[:, None] == gallery_labels[None, :]
    same, _ = np.histogram(similarity[match], _BINS)
    different, _ = np.histogram(similarity[~match], _BINS)
    return Threshold(
        query=query.label,
        gallery=gallery.label,
        threshold=finite(at),
        own_far=finite(own.far),
        own_tar=finite(own.tar),
        far=finite(other.far),
        tar=finite(other.tar),
        bins=tuple(round(float(b), 3) for b in _BINS),
        same=tuple(int(n) for n in same),
        different=tuple(int(n) for n in different),
    )


def finite(value: float) -> float:
    """JSON has no NaN; a gallery of one label has no pairs of different ones, so 1 and 0."""
    return value if np.isfinite(value) else 0.0
