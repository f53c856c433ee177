"""A shop of real pictures, with small real models: what the page's tests look at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from samespace import Dataset, Embedder, Gallery
from samespace.verification import verify, write_certificates
from samespace_cloud.demo import quickstart

LABELS = 60
NAME = "furniture"
GOLDEN = "golden/golden.json"


@dataclass(frozen=True)
class Scene:
    """A gallery of furniture, and what is around it.

    Attributes:
        dataset: gallery and query pictures of 60 products.
        bundles: by name: `cloud` made the gallery, `edge` is certified.
        folder: of the gallery.
        pictures: of the items, under their ids.
        queries: the query pictures, in the same way.
        certificate: of `edge`.
    """

    dataset: Dataset
    bundles: Mapping[str, Path]
    folder: Path
    pictures: Path
    queries: Path
    certificate: Path

    def found(self, name: str, k: int = 12) -> dict[str, list[str]]:
        """By query picture: the items that a model's query finds, best first."""
        queries = self.dataset.queries
        with Gallery.open(self.folder) as gallery:
            result = gallery.search(
                images=[self.dataset.read(item) for item in queries],
                model=Embedder(self.bundles[name]),
                k=k,
            )
        ids = [[hit.id for hit in hits] for hits in result]
        return {item.path: of for item, of in zip(queries, ids, strict=True)}


def replace_golden(bundle: Path, text: str | None) -> None:
    """Give a bundle another `golden.json`, or none, as an exporter elsewhere could have."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    if text is None:
        del manifest["files"][GOLDEN]
        (bundle / GOLDEN).unlink()
    else:
        (bundle / GOLDEN).write_text(text)
        manifest["files"][GOLDEN] = hashlib.sha256(text.encode()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def furnish(folder: Path, bundles: Mapping[str, Path], measured: Dataset) -> Scene:
    """Make the gallery from the quick-start pictures.

    The certificate is measured on pictures that such small models can tell apart.
    """
    whole = quickstart()
    labels = sorted({item.label for item in whole.gallery})[:LABELS]
    items = [i for i in whole.items if i.split == "test" and i.label in labels]
    dataset = whole.subset(items)
    for role in ("gallery", "query"):
        for item in items:
            if item.role == role:
                (folder / role / item.path).parent.mkdir(parents=True, exist_ok=True)
                (folder / role / item.path).write_bytes(dataset.read(item))
    report = verify([bundles["edge"]], [bundles["cloud"]], measured, baseline=bundles["poor"])
    (certificate,) = write_certificates(report, folder).values()
    cloud = Embedder(bundles["cloud"])
    with Gallery.create(folder / NAME, cloud) as gallery:
        gallery.admit(certificate)
        gallery.add(
            [item.path for item in dataset.gallery],
            images=[dataset.read(item) for item in dataset.gallery],
            model=cloud,
            payloads=[{"label": item.label} for item in dataset.gallery],
        )
    pictures = folder / "gallery", folder / "query"
    return Scene(dataset, bundles, folder / NAME, *pictures, certificate)
