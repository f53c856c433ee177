"""Looks after the gallery's health now and then: the recall canary, items, share backfilled."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from samespace.gallery._index import DEFAULT_PROBES
from samespace.service._config import is_in_a_server
from samespace.service._log import say
from samespace.service._service import Service

_NEIGHBOURS = 10
_WIDE = 64 * DEFAULT_PROBES


async def watch(service: Service) -> None:
    """Measure for ever, in one of the workers."""
    lock = _Turn(service.config.run_folder)
    try:
        while True:
            if lock.is_mine():
                try:
                    await asyncio.to_thread(measure, service)
                except Exception:
                    logging.getLogger("samespace.service").warning("canary", exc_info=True)
            await asyncio.sleep(service.config.canary_every if lock.is_mine() else 5.0)
    finally:
        lock.close()


def measure(service: Service) -> None:
    """One round, into the metrics; raises the gallery's errors."""
    gallery, metrics = service.gallery, service.metrics
    stats = gallery.stats()
    metrics.items.set(stats.items)
    for model, items in stats.by_model.items():
        metrics.by_model.labels(model.fingerprint.short).set(items)
    status = gallery.upgrade.status()
    metrics.backfilled.set(1.0 if status is None else status.share)
    recall = recall_canary(service, service.config.canary_queries)
    if recall is not None:
        metrics.recall.set(recall)
    metrics.measured.set_to_current_time()
    say("canary", items=stats.items, recall=recall)


def recall_canary(service: Service, queries: int) -> float | None:
    """Recall@10 of approximate searches for stored vectors against exact ones.

    One vector at a time, so that nobody waits for long. A gallery in a server would have to be
    fetched for an exact search, so there the other side looks at 64 times as many candidates.
    None for an empty gallery.
    """
    gallery = service.gallery
    is_near = is_in_a_server(service.config.gallery)
    ways: tuple[dict[str, Any], ...] = ({}, {"probes": _WIDE} if is_near else {"exact": True})
    shares = []
    for record in gallery.sample(queries):
        near, true = (
            gallery.search(
                model=record.model,
                vectors=record.vector[None],
                k=_NEIGHBOURS,
                payloads=False,
                corrected=False,
                **way,
            ).ids[0]
            for way in ways
        )
        shares.append(len(set(near) & set(true)) / max(1, len(true)))
    return sum(shares) / len(shares) if shares else None


class _Turn:
    """Which worker measures: the first one that holds a lock, which dies with it."""

    def __init__(self, folder: str | None) -> None:
        self._handle: int | None = None
        self._is_mine = folder is None
        if folder is not None:
            self._handle = os.open(Path(folder) / "watch.lock", os.O_CREAT | os.O_RDWR, 0o600)

    def is_mine(self) -> bool:
        if not self._is_mine and self._handle is not None:
            import fcntl

            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._is_mine = True
            except OSError:
                return False
        return self._is_mine

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
