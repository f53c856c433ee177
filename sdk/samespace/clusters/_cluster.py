"""Cluster a gallery: read, group, number, store."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.clusters._group import group
from samespace.clusters._match import changes_between, number_groups
from samespace.clusters._store import store, stored
from samespace.clusters._values import Clustering
from samespace.gallery import Gallery
from samespace.gallery._export import read_export
from samespace_edge import ConfigError

DISTANCE = 0.3
"""Mean of 1 - cosine up to which groups are merged, unless told otherwise."""


def cluster_gallery(
    gallery: Gallery | str | Path,
    *,
    distance: float | None = None,
    count: int | None = None,
    name: str = "default",
    seed: int | None = None,
    dry_run: bool = False,
) -> Clustering:
    """Cluster a gallery's items by their vectors, and keep the numbers of last time's clusters.

    Up to 5,000 items all pairs are compared (average linkage on 1 - cosine). Of more, with
    `distance`, 4,000 k-means centres are linked in place of the items, so clusters of a few items
    that lie near one another may become one; with `count`, it is mini-batch k-means. All vectors
    are held: 4 × width bytes for an item, and twice that while they are read.

    Args:
        gallery: an open one, or the folder of one.
        distance: groups are merged while the mean of 1 - cosine over all their pairs is below
            it; above 0, at most 2. By default what it was last time, at first 0.3.
        count: or: how many clusters.
        name: of the clustering; a gallery may have several.
        seed: of k-means; by default that of last time, at first 0.
        dry_run: write nothing; the value that is returned tells what would change.

    Stored is `clusters/NAME.json` in the gallery's folder. Raises `ConfigError`, `GalleryError`,
    `GalleryDamagedError` where the last clustering's file is damaged, `GalleryBusyError`,
    `GalleryStorageError`.
    """
    if not isinstance(gallery, Gallery):
        with Gallery.open(gallery) as opened:
            return cluster_gallery(
                opened, distance=distance, count=count, name=name, seed=seed, dry_run=dry_run
            )
    former = stored(gallery, name)
    settings = _settings(distance, count, seed, former)
    ids, vectors = _read(gallery)
    groups, method = group(
        vectors,
        distance=settings.get("distance"),
        count=settings.get("count"),
        seed=settings["seed"],
    )
    before = former.assignments if former else {}
    assignments, next_number = number_groups(
        ids, groups, before, former.next_number if former else 1
    )
    clustering = Clustering(
        name=name,
        space=gallery.space.hex,
        settings=settings,
        method=method,
        assignments=assignments,
        next_number=next_number,
        revision=former.revision + 1 if former else 1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("samespace"),
    )
    if not dry_run:
        store(gallery, clustering)
    return replace(clustering, changes=changes_between(before, assignments) if former else None)


def _settings(
    distance: float | None, count: int | None, seed: int | None, former: Clustering | None
) -> dict[str, Any]:
    if distance is not None and count is not None:
        raise ConfigError("clusters go by a distance or by a count, not by both")
    if distance is not None and not 0 < distance <= 2:
        raise ConfigError(f"the distance of clusters is above 0 and at most 2, not {distance}")
    if count is not None and count < 1:
        raise ConfigError(f"there has to be 1 cluster or more, not {count}")
    last = dict(former.settings) if former else {"distance": DISTANCE, "seed": 0}
    chosen = {"distance": distance, "count": count}
    if distance is None and count is None:
        chosen = {key: last.get(key) for key in chosen}
    found = {key: value for key, value in chosen.items() if value is not None}
    return {**found, "seed": last["seed"] if seed is None else seed}


def _read(gallery: Gallery) -> tuple[list[str], NDArray[np.float32]]:
    """Ids, ascending, and unit vectors (N, D) of all items, as of one moment."""
    if not len(gallery):
        return [], np.empty((0, gallery.dim), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.npz"
        gallery.export(path)
        ids, vectors = read_export(path)
    # The outcome must not depend on the order in which items came.
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[i] for i in order], vectors[order]
