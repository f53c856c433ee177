"""Backfill: in which order old items get vectors of a new model, and what that is worth.

Imports numpy alone; faiss only where an order has to do without labels.
"""

from samespace.backfill._curve import SHARES, BackfillCurve, backfill_curve
from samespace.backfill._orders import ORDERS, Order

__all__ = ["ORDERS", "SHARES", "BackfillCurve", "Order", "backfill_curve"]
