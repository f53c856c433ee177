"""The gallery: SQLite is the record of truth, faiss the index."""

from samespace.gallery._gallery import APPROXIMATE_FROM, Gallery
from samespace.gallery._values import GalleryStats, Hit, HubCorrection, Record, SearchResult

__all__ = [
    "APPROXIMATE_FROM",
    "Gallery",
    "GalleryStats",
    "Hit",
    "HubCorrection",
    "Record",
    "SearchResult",
]
