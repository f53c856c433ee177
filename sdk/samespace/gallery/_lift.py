"""A gallery in a new model's space, made of the old one's vectors alone."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samespace._certificate import Certificate
from samespace.gallery._hubs import Progress
from samespace.gallery._inputs import identity_of, loads
from samespace_edge import (
    Adapter,
    Bundle,
    ConfigError,
    Embedder,
    GalleryError,
    ModelIdentity,
    NotCertifiedError,
)
from samespace_edge._temporary import temporary_for

if TYPE_CHECKING:
    from samespace.gallery._embedded import EmbeddedGallery
    from samespace.gallery._gallery import Gallery

_AT_ONCE = 4096


def lift(
    gallery: EmbeddedGallery,
    path: Path,
    adapter: Adapter,
    anchor: Embedder | Bundle | str | Path,
    certificate: Certificate,
    progress: Progress,
) -> int:
    """Write the lifted gallery into `path`, in one step; returns how many items it holds.

    See `Gallery.lift` for the rest.
    """
    identity = identity_of(anchor)
    _check(gallery, adapter, identity, certificate)
    _check_side(gallery, adapter)
    if path.exists():
        raise GalleryError(f"there is already something at {path}; lift into a new folder")
    temporary = temporary_for(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with type(gallery).create(temporary, anchor, name=path.name) as lifted:
            lifted.admit(certificate)
            count = _fill(gallery, lifted, adapter, certificate.query, progress)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def _check(
    gallery: EmbeddedGallery, adapter: Adapter, anchor: ModelIdentity, certificate: Certificate
) -> None:
    with gallery._lock:
        counts = gallery._store.count_by_model()
        makers = [m for n, m in gallery._named().items() if counts.get(n)]
    for maker in makers:
        if maker.fingerprint != adapter.source:
            raise ConfigError(
                f"gallery {gallery.name!r} holds vectors of {maker}; the adapter lifts those of "
                f"model {adapter.source.short}…. Commit or roll back its upgrade first, or fit an "
                "adapter for that model"
            )
    if adapter.space != anchor.fingerprint:
        raise ConfigError(
            f"the adapter lifts into space {adapter.space.short}…, {anchor} anchors another one"
        )
    if certificate.query.fingerprint != adapter.fingerprint:
        raise NotCertifiedError(
            f"the certificate is for {certificate.query}; it has to be for the old model followed "
            f"by this adapter, {adapter.fingerprint.short}…: make its bundle with 'samespace "
            "adapter bundle' and verify that against the new model"
        )


def _check_side(gallery: EmbeddedGallery, adapter: Adapter) -> None:
    with gallery._lock:
        kept = gallery._side.model()
    if adapter.side is not None and kept is not None and kept.fingerprint != adapter.side:
        raise ConfigError(
            f"gallery {gallery.name!r} keeps side information by {kept}; the adapter takes that of "
            f"model {adapter.side.short}…. Fit one with {kept.name!r} as its side model"
        )


def _fill(
    old: EmbeddedGallery, new: Gallery, adapter: Adapter, maker: ModelIdentity, progress: Progress
) -> int:
    done, last = 0, 0
    with old._lock:
        total = sum(old._store.count_by_model().values())
    while True:
        with old._lock:
            rows = list(itertools.islice(old._store.rows(last), _AT_ONCE))
            ids = [row[1] for row in rows]
            side = old._side.get(ids) if adapter.side_dim and rows else None
        if not rows:
            return done
        vectors = np.frombuffer(b"".join(row[3] for row in rows), np.float32)
        lifted = adapter.apply(vectors.reshape(len(rows), -1), side)
        payloads = [loads(row[4]) for row in rows]
        new.add(ids, vectors=lifted, model=maker, payloads=payloads)
        last = rows[-1][0]
        done += len(rows)
        progress("lift", done, max(total, done))
