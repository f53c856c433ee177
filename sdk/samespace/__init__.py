"""The SDK: verify that models retrieve against one another, and search a gallery with them.

>>> from samespace import Embedder, Gallery, verify
>>> report = verify(["edge.bundle"], ["cloud.bundle"], "manifest.csv")  # doctest: +SKIP
>>> report.passed  # doctest: +SKIP
True
"""

from typing import TYPE_CHECKING, Any

from samespace._certificate import Certificate
from samespace._dataset import Dataset, Item
from samespace_edge import Bundle, Embedder, Fingerprint, ModelIdentity, SamespaceError

if TYPE_CHECKING:
    from samespace.client import Client
    from samespace.gallery import Gallery
    from samespace.verification import Report, verify

__all__ = [
    "Bundle",
    "Certificate",
    "Client",
    "Dataset",
    "Embedder",
    "Fingerprint",
    "Gallery",
    "Item",
    "ModelIdentity",
    "Report",
    "SamespaceError",
    "verify",
]


def __getattr__(name: str) -> Any:
    # faiss and what plots need are only imported by those who search or verify.
    if name == "Gallery":
        from samespace.gallery import Gallery

        return Gallery
    if name == "Client":
        from samespace.client import Client

        return Client
    if name in ("Report", "verify"):
        import importlib

        return getattr(importlib.import_module("samespace.verification"), name)
    raise AttributeError(f"module 'samespace' has no attribute {name!r}")
