"""What Prometheus is told; of all workers together."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where workers share their figures; set before prometheus_client is imported."""

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST


class Metrics:
    """The figures of a service; see docs/service.md for what each of them tells."""

    def __init__(self) -> None:
        # A line more for every series, of no use here.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self._registry, "namespace": "samespace"}
        latest: dict[str, Any] = {**made, "multiprocess_mode": "mostrecent"}
        self.requests = Counter(
            "requests", "Requests answered", ["method", "route", "status"], **made
        )
        self.seconds = Histogram(
            "request_seconds",
            "From the request's head to its answer, s",
            ["route"],
            buckets=_SECONDS,
            **made,
        )
        self.refusals = Counter("refusals", "Requests refused", ["reason"], **made)
        self.held = Gauge(
            "requests_held", "Requests being answered", multiprocess_mode="livesum", **made
        )
        self.items = Gauge("items", "Items in the gallery", **latest)
        self.by_model = Gauge("items_by_model", "Items by who made them", ["model"], **latest)
        self.backfilled = Gauge(
            "backfilled_share", "Share of the items that an upgrade's target made", **latest
        )
        self.recall = Gauge(
            "recall_canary", "Recall@10 of approximate searches against exact ones", **latest
        )
        self.measured = Gauge(
            "canary_time_seconds", "When the gallery was last measured, Unix time", **latest
        )
        _forget_dead_workers()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        if FOLDER not in os.environ:
            return prometheus.generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(together)


def _forget_dead_workers() -> None:
    """What a worker that was killed was holding is not held any more."""
    if FOLDER not in os.environ:
        return
    for path in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
        pid = int(path.stem.rsplit("_", 1)[1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with contextlib.suppress(OSError):
                multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
        except OSError:
            continue
