"""The service's JSON as the values that a `Gallery` answers with."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samespace.gallery import (
    GalleryStats,
    HubCorrection,
    Record,
    SearchResult,
    UpgradeStatus,
)
from samespace_edge import DecodeError, Fingerprint, ImageSource, ModelIdentity
from samespace_edge._image import turn_of


def result_of(value: Mapping[str, Any], payloads: bool) -> SearchResult:
    """From `Found`."""
    found = value["results"]
    corrected = [[h["corrected_score"] for h in hits] for hits in found]
    is_corrected = any(score is not None for scores in corrected for score in scores)
    return SearchResult(
        [[h["id"] for h in hits] for hits in found],
        np.array([[h["score"] for h in hits] for hits in found], np.float32),
        [[h["payload"] for h in hits] for hits in found] if payloads else None,
        np.array(corrected, np.float32) if is_corrected else None,
    )


def record_of(value: Mapping[str, Any]) -> Record:
    """From `Stored` with its vector."""
    model = ModelIdentity.from_json(value["model"])
    return Record(value["id"], np.array(value["vector"], np.float32), value["payload"], model)


def stats_of(value: Mapping[str, Any]) -> GalleryStats:
    """From `Stats`."""
    by_model = {ModelIdentity.from_json(m["model"]): m["items"] for m in value["by_model"]}
    return GalleryStats(
        name=value["name"],
        space=Fingerprint(value["space"]),
        dim=value["dim"],
        items=value["items"],
        by_model=by_model,
        admitted=tuple(by_model),
        approximate=value["approximate"],
        bytes_on_disk=value["bytes_on_disk"],
        corrections=tuple(
            HubCorrection(ModelIdentity.from_json(c["model"]), c["bank"], c["k"], c["weight"])
            for c in value["corrections"]
        ),
    )


def status_of(value: Mapping[str, Any]) -> UpgradeStatus:
    """From `UpgradeState`."""
    names = ("state", "order", "started", "items", "done", "waiting", "unreadable", "kept")
    target = ModelIdentity.from_json(value["target"])
    return UpgradeStatus(target=target, **{name: value[name] for name in names})


def encoded(source: ImageSource) -> bytes:
    """A picture as a file's bytes; pixels become PNG. Raises `DecodeError`."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        try:
            return Path(source).read_bytes()
        except OSError as error:
            raise DecodeError(f"cannot read {source}: {error.strerror}") from None
    file = io.BytesIO()
    try:
        image = source if isinstance(source, Image.Image) else Image.fromarray(source)
        with turn_of(image):
            image.save(file, "PNG")
    except (OSError, TypeError, ValueError) as error:
        raise DecodeError(f"a picture cannot be sent: {error}") from None
    return file.getvalue()
