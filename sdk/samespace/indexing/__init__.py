"""Very many pictures into a gallery: from a manifest, resumable, each of them once.

>>> index_pictures("shop.parquet", gallery, cloud, workers=8)  # doctest: +SKIP
IndexReport(48,112 added, 0 embedded again, 0 payloads, 1,888 were there, 3 set aside)
"""

from samespace.indexing._failures import Failure, read_failures
from samespace.indexing._manifest import Manifest
from samespace.indexing._pictures import PooledPictures, noted_sources
from samespace.indexing._run import IndexReport, index_pictures

__all__ = [
    "Failure",
    "IndexReport",
    "Manifest",
    "PooledPictures",
    "index_pictures",
    "noted_sources",
    "read_failures",
]
