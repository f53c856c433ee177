"""The gallery: SQLite is the record of truth, faiss the index."""

from typing import TYPE_CHECKING, Any

from samespace.gallery._originals import GivenVectors, Pictures
from samespace.gallery._upgrade import Upgrade
from samespace.gallery._upgrade_order import UpgradeOrder
from samespace.gallery._upgrade_values import UpgradePlan, UpgradeStatus
from samespace.gallery._values import GalleryStats, Hit, HubCorrection, Record, SearchResult

if TYPE_CHECKING:
    from samespace.gallery._backup import backup_gallery, restore_gallery
    from samespace.gallery._gallery import APPROXIMATE_FROM, Gallery

__all__ = [
    "APPROXIMATE_FROM",
    "Gallery",
    "GalleryStats",
    "GivenVectors",
    "Hit",
    "HubCorrection",
    "Pictures",
    "Record",
    "SearchResult",
    "Upgrade",
    "UpgradeOrder",
    "UpgradePlan",
    "UpgradeStatus",
    "backup_gallery",
    "restore_gallery",
]


def __getattr__(name: str) -> Any:
    # faiss is imported by those who open a gallery, not by those who ask a service.
    if name in ("APPROXIMATE_FROM", "Gallery"):
        from samespace.gallery import _gallery

        return getattr(_gallery, name)
    if name in ("backup_gallery", "restore_gallery"):
        from samespace.gallery import _backup

        return getattr(_backup, name)
    raise AttributeError(f"module 'samespace.gallery' has no attribute {name!r}")
