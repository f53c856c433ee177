"""What an upgrade would do, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samespace_edge import ModelIdentity


@dataclass(frozen=True)
class UpgradePlan:
    """What an upgrade would do; nothing was changed to find out.

    Attributes:
        target: the new model.
        certified: whether the gallery accepts it; without that, an upgrade cannot be run.
        criterion: of its certificate: what was measured of it in the anchor's gallery.
        figures: R@1 and the like, of its certificate.
        items: in the gallery.
        by_model: items by the model that made them.
        to_embed: items that would be embedded again.
        sample: of these, how many were tried.
        unreadable: of the sample, those that cannot be embedded again, and why.
        seconds_per_item: measured on the sample, with one process.
        workers: processes that the estimate is for.
        kept_bytes: what the old vectors take on the disk until they are discarded.
        order: name of the order.
    """

    target: ModelIdentity
    certified: bool
    criterion: Mapping[str, Any] | None
    figures: Mapping[str, float] | None
    items: int
    by_model: Mapping[ModelIdentity, int]
    to_embed: int
    sample: int
    unreadable: Mapping[str, str]
    seconds_per_item: float
    workers: int
    kept_bytes: int
    order: str

    @property
    def seconds(self) -> float:
        """Estimate of the whole, if the processes do not hinder one another."""
        return self.to_embed * self.seconds_per_item / self.workers


@dataclass(frozen=True)
class UpgradeStatus:
    """How far an upgrade is.

    Attributes:
        target: the new model.
        state: `running` until it is committed.
        order: in which items are embedded again.
        started: date and time, ISO 8601, UTC.
        items: in the gallery.
        done: of them, made by the target.
        waiting: still to be embedded again.
        unreadable: items that stay as they are, and why.
        kept: old vectors that `rollback` would put back.
    """

    target: ModelIdentity
    state: str
    order: str
    started: str
    items: int
    done: int
    waiting: int
    unreadable: Mapping[str, str]
    kept: int

    @property
    def share(self) -> float:
        """Share of the items that the target made."""
        return self.done / self.items if self.items else 1.0
