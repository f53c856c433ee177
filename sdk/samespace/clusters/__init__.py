"""Clusters of a gallery's items, whose numbers stay when items and models come and go."""

from samespace.clusters._cluster import DISTANCE, cluster_gallery
from samespace.clusters._group import EXACT_UP_TO
from samespace.clusters._store import read_clustering
from samespace.clusters._values import Changes, Clustering

__all__ = [
    "DISTANCE",
    "EXACT_UP_TO",
    "Changes",
    "Clustering",
    "cluster_gallery",
    "read_clustering",
]
