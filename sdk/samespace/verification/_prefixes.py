"""Searches with shorter vectors: the first numbers of every query and gallery vector alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from samespace import metrics
from samespace.verification._criteria import Rankings
from samespace_edge import VerificationError

Vectors = NDArray[np.float32]


def checked_widths(prefixes: Iterable[int], dims: Mapping[str, int]) -> tuple[int, ...]:
    """The widths to measure, ascending, each once.

    Args:
        dims: the width of every model's vectors, by label.

    Raises `VerificationError` for one that is below 2 or not below the width of every model.
    """
    widths = tuple(sorted({int(p) for p in prefixes}))
    for width in widths:
        for label, dim in dims.items():
            if not 2 <= width < dim:
                raise VerificationError(
                    f"a prefix of {width} was asked for, and {label} makes vectors of {dim}: "
                    f"prefixes are from 2 to {dim - 1} numbers long"
                )
    return widths


def shorter_rankings(
    sides: Mapping[str, tuple[Vectors, Vectors]],
    pairs: Sequence[tuple[str, str]],
    width: int,
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
) -> Rankings:
    """What every pair finds when vectors are cut to their first `width` numbers.

    Args:
        sides: query (Q, D) and gallery vectors (G, D) of every model, by label.
        pairs: labels of query and gallery model.
        query_labels, gallery_labels: (Q,) and (G,).
    """
    cut = {
        label: (metrics.shorten(queries, width), metrics.shorten(gallery, width))
        for label, (queries, gallery) in sides.items()
    }
    return {
        (q, g): metrics.rank(cut[q][0], cut[g][1], query_labels, gallery_labels) for q, g in pairs
    }
