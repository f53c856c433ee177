"""A gallery in Milvus; docs/milvus.md says what is the same and what differs."""

from samespace.gallery._milvus._gallery import MilvusGallery
from samespace.gallery._milvus._store import remove

__all__ = ["MilvusGallery", "remove"]
