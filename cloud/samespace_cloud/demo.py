"""The main job from end to end: train, export, verify, fill a gallery, search.

Every step leaves its result in the output folder and is skipped when that is there, so a run that
was stopped goes on where it was; a training goes on within itself.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from samespace import Certificate, Dataset, Gallery, Report, verify
from samespace.gallery import Hit
from samespace.verification import write_report
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.recipes import DemoRecipe
from samespace_cloud.training import train_cloud, train_edge
from samespace_edge import ConfigError, Embedder, canonical_json, decode
from samespace_export import export_bundle

Progress = Callable[[str, int, int], None]

_BATCH = 64
_GOLDEN = 3
_NAMES = ("cloud", "edge", "edge-alone")


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves behind.

    Attributes:
        folder: where everything is.
        report: what `verify` found.
        admitted: whether the gallery accepts the edge model.
        query: path, inside the dataset, of the picture that was searched with.
        query_label: what it shows.
        hits: what was found, best first.
        seconds: how long this run took.
    """

    folder: Path
    report: Report
    admitted: bool
    query: str
    query_label: str
    hits: Sequence[Hit]
    seconds: float


def quickstart() -> Dataset:
    """The data that is shipped with samespace: 708 rendered pieces of furniture."""
    with as_file(files("samespace_cloud") / "quickstart" / "furniture_shop.zip") as path:
        return Dataset.open(path)


def canvas_for(dataset: Dataset, largest: int) -> int:
    """The side at which to decode: the median shorter side of some pictures, 64 to `largest`."""
    step = max(1, len(dataset.train) // 32)
    sides = [min(decode(dataset.read(item)).shape[:2]) for item in dataset.train[::step]]
    return int(np.clip(np.median(sides), 64, largest)) if sides else largest


def run_demo(
    dataset: Dataset,
    recipe: DemoRecipe,
    folder: str | Path,
    progress: Progress = lambda stage, done, total: None,
) -> DemoResult:
    """Run the main job on a dataset, or go on with a run that was stopped.

    Raises `ConfigError` where the folder holds a run with other settings or data.
    """
    started = time.monotonic()
    folder = Path(folder)
    dataset = _reduced(dataset, recipe)
    _claim(folder, dataset, recipe)
    dataset.validate(
        repeats=False, progress=lambda done, total: progress("check the data", done, total)
    )
    runs = folder / "runs"
    cloud = _once(
        runs / "cloud",
        lambda out: train_cloud(
            dataset,
            recipe.cloud,
            out,
            deploy_size=recipe.cloud_size,
            lda_head=True,
            progress=progress,
        ),
    )
    alone = _once(
        runs / "edge-alone",
        lambda out: train_cloud(
            dataset, recipe.alone, out, lda_head=True, role="edge", progress=progress
        ),
    )
    edge = _once(
        runs / "edge",
        lambda out: train_edge(
            dataset,
            recipe.edge,
            cloud,
            out,
            gallery_aware=recipe.gallery_aware,
            ridge_head=True,
            progress=progress,
        ),
    )
    bundles = _export(
        dict(zip(_NAMES, (cloud, edge, alone), strict=True)), dataset, folder, progress
    )
    report = _verify(bundles, dataset, recipe, folder, progress)
    admitted = _fill(bundles, dataset, folder, progress)
    query, hits = _search(bundles, dataset, folder, admitted)
    return DemoResult(
        folder=folder,
        report=report,
        admitted=admitted,
        query=query.path,
        query_label=query.label,
        hits=hits,
        seconds=time.monotonic() - started,
    )


def _reduced(dataset: Dataset, recipe: DemoRecipe) -> Dataset:
    if recipe.labels is None:
        return dataset
    kept: set[str] = set()
    for group in (dataset.train, dataset.gallery):
        kept |= set(sorted({i.label for i in group})[: recipe.labels])
    return dataset.subset([i for i in dataset.items if i.label in kept])


def _claim(folder: Path, dataset: Dataset, recipe: DemoRecipe) -> None:
    """Note what this folder is for, or see that it is for the same."""
    settings = {
        "data": [dataset.sha256(dataset.items), sorted((i.path, i.split) for i in dataset.items)],
        "cloud": recipe.cloud.to_json(),
        "edge": recipe.edge.to_json(),
        "alone": recipe.alone.to_json(),
        "more": [recipe.cloud_size, recipe.gallery_aware, recipe.labels],
    }
    digest = hashlib.sha256(canonical_json(settings).encode()).hexdigest()
    note = folder / "demo.json"
    if note.exists():
        if json.loads(note.read_text()).get("digest") != digest:
            raise ConfigError(
                f"{folder} holds a run with other settings or data; name another folder with "
                "--out, or remove it"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"digest": digest, **settings, "data": dataset.source}, indent=1))


def _once(out: Path, train: Callable[[Path], Checkpoint]) -> Checkpoint:
    return Checkpoint.load(out) if (out / "checkpoint.json").exists() else train(out)


def _export(
    checkpoints: dict[str, Checkpoint], dataset: Dataset, folder: Path, progress: Progress
) -> dict[str, Path]:
    golden = [dataset.read(item) for item in dataset.gallery[:_GOLDEN]]
    bundles = {name: folder / f"{name}.bundle" for name in checkpoints}
    for done, (name, checkpoint) in enumerate(checkpoints.items()):
        progress("export", done, len(checkpoints))
        if not bundles[name].exists():
            export_bundle(
                checkpoint.model, checkpoint.export_spec(name), bundles[name], golden=golden
            )
    progress("export", len(checkpoints), len(checkpoints))
    return bundles


def _verify(
    bundles: dict[str, Path],
    dataset: Dataset,
    recipe: DemoRecipe,
    folder: Path,
    progress: Progress,
) -> Report:
    if (folder / "report.json").exists():
        return Report.read(folder / "report.json")
    notes = [
        "edge-alone is the same network as edge, trained without the cloud model: with the "
        "cloud's gallery it shares nothing.",
        "No test query and no test label was used in training.",
    ]
    if recipe.gallery_aware:
        notes.append(
            "Gallery-aware: edge was also taught with the gallery's own pictures, without labels. "
            "Their owner always has them; figures for products added later will be lower."
        )
    if dataset.name == "furniture_shop":
        notes.append("The pictures are RENDERED from 3D models; none is a photograph.")
    report = verify(
        [bundles["edge"]],
        [bundles["cloud"]],
        dataset,
        baseline=bundles["edge-alone"],
        notes=notes,
        progress=progress,
    )
    for certificate in report.certificates():
        certificate.write(folder / "edge.certificate.json")
    write_report(report, folder, dataset)
    return report


def _fill(bundles: dict[str, Path], dataset: Dataset, folder: Path, progress: Progress) -> bool:
    """Fill the gallery with the cloud model; whether it accepts the edge model's queries."""
    path = folder / "gallery"
    cloud = Embedder(bundles["cloud"])
    there = (path / "gallery.db").exists()
    gallery = Gallery.open(path) if there else Gallery.create(path, cloud)
    with gallery:
        items = dataset.gallery
        for start in range(0, len(items), _BATCH):
            part = [i for i in items[start : start + _BATCH] if i.path not in gallery]
            if part:
                gallery.add(
                    [i.path for i in part],
                    images=[dataset.read(i) for i in part],
                    model=cloud,
                    payloads=[{"label": i.label, **i.columns} for i in part],
                )
            progress("fill the gallery", min(start + _BATCH, len(items)), len(items))
        certificate = folder / "edge.certificate.json"
        if certificate.exists():
            gallery.admit(Certificate.read(certificate))
        return certificate.exists()


def _search(
    bundles: dict[str, Path], dataset: Dataset, folder: Path, admitted: bool
) -> tuple[Any, Sequence[Hit]]:
    """Search with one test query: with the edge model where it is admitted."""
    item = dataset.queries[len(dataset.queries) // 2]
    content = dataset.read(item)
    (folder / f"query{Path(item.path).suffix}").write_bytes(content)
    embedder = Embedder(bundles["edge" if admitted else "cloud"])
    with Gallery.open(folder / "gallery") as gallery:
        return item, gallery.search(images=[content], model=embedder, k=3)[0]
