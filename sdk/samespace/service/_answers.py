"""What the gallery answers, as JSON. Made on the threads, since thousands of hits take a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Response

from samespace._certificate import Certificate
from samespace.gallery import GalleryStats, Record, SearchResult, UpgradeStatus
from samespace_edge import Fingerprint, ModelIdentity, canonical_json

_SHOWN = 100


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(canonical_json(value), status, media_type="application/json")


def found(result: SearchResult, model: ModelIdentity) -> dict[str, Any]:
    """As `Found`."""
    return {"model": model.to_json(), "results": [[vars(h) for h in hits] for hits in result]}


def stored(record: Record, with_vector: bool) -> dict[str, Any]:
    """As `Stored`."""
    return {
        "id": record.id,
        "payload": record.payload,
        "model": record.model.to_json(),
        "vector": record.vector.tolist() if with_vector else None,
    }


def figures(stats: GalleryStats) -> dict[str, Any]:
    """As `Stats`."""
    return {
        "name": stats.name,
        "space": stats.space.hex,
        "dim": stats.dim,
        "items": stats.items,
        "by_model": [{"model": m.to_json(), "items": n} for m, n in stats.by_model.items()],
        "approximate": stats.approximate,
        "bytes_on_disk": stats.bytes_on_disk,
        "corrections": [{**vars(c), "model": c.model.to_json()} for c in stats.corrections],
    }


def admitted(
    certificates: Mapping[ModelIdentity, Certificate | None],
    running: set[ModelIdentity],
    offered: set[Fingerprint],
) -> list[dict[str, Any]]:
    """As `Admitted`, for every model."""
    return [
        {
            "model": model.to_json(),
            "certificate": proof and proof.to_json(),
            "runs_here": model in running,
            "is_offered": model.fingerprint in offered,
        }
        for model, proof in certificates.items()
    ]


def upgrade(status: UpgradeStatus | None) -> dict[str, Any] | None:
    """As `UpgradeState`."""
    if status is None:
        return None
    return {
        **vars(status),
        "target": status.target.to_json(),
        "share": status.share,
        "unreadable_count": len(status.unreadable),
        "unreadable": dict(list(status.unreadable.items())[:_SHOWN]),
    }
