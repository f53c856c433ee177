"""Centred orthogonal Procrustes: the rotation that lays one model's vectors on the other's."""

from __future__ import annotations

from typing import Any

import numpy as np

from samespace.adapters._moments import moments
from samespace.adapters._pairs import Pairs
from samespace_edge import AdapterLayers


def fit_procrustes(fit: Pairs, choose: Pairs) -> tuple[AdapterLayers, dict[str, Any]]:
    """The orthogonal matrix R with the smallest |(x - mean x) R - (y - mean y)|.

    With xᵀy = U S Vᵀ, R = U Vᵀ (Schönemann 1966). Where the widths differ, the narrower side is
    thought of as filled up with zeros, which leaves the same formula with a thin decomposition: R
    then has orthonormal rows, or columns. Directions that no pair shows, of which there are some
    with fewer pairs than numbers in a vector, are turned arbitrarily.
    """
    found = moments(fit, choose)
    u, _, vt = np.linalg.svd(found.xy, full_matrices=False)
    return AdapterLayers(
        found.mean_x.astype(np.float32),
        ((u @ vt).astype(np.float32),),
        found.mean_y.astype(np.float32),
    ), {}
