"""The gallery: SQLite is the record of truth, faiss the index."""

from samespace.gallery._backup import backup_gallery, restore_gallery
from samespace.gallery._gallery import APPROXIMATE_FROM, Gallery
from samespace.gallery._originals import GivenVectors, Pictures
from samespace.gallery._upgrade import Upgrade
from samespace.gallery._upgrade_order import UpgradeOrder
from samespace.gallery._upgrade_values import UpgradePlan, UpgradeStatus
from samespace.gallery._values import GalleryStats, Hit, HubCorrection, Record, SearchResult

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
