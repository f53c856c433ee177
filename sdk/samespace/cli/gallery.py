"""`samespace gallery`: make, fill and search a gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from samespace._csv import to_number
from samespace._dataset import Dataset, Item, problems_error
from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace.gallery import Gallery, HubCorrection, backup_gallery, restore_gallery
from samespace.metrics import HUB_NEIGHBOURS, HUB_WEIGHT
from samespace_edge import (
    ConfigError,
    DataError,
    DuplicateIdError,
    Embedder,
    FilterError,
    ImageError,
    InvalidVectorError,
)

_BATCH = 64
# Errors that speak of one picture or id. The others of its call may still be added.
_OF_ONE_PICTURE = (ImageError, DataError, ConfigError, InvalidVectorError, DuplicateIdError)


@click.group()
def gallery() -> None:
    """Make, fill and search galleries."""


@gallery.command()
@click.argument("path")
@click.option("--anchor", required=True, help="Bundle of the cloud model that defines the space.")
@click.option("--name", help="A label; by default the folder's name.")
@json_option
def create(path: str, anchor: str, name: str | None, as_json: bool) -> None:
    """Make an empty gallery in the folder PATH.

    \b
    Example:
      samespace gallery create shop --anchor cloud.bundle
    """
    with Gallery.create(path, anchor, name=name) as made:
        if as_json:
            print_json({"path": str(path), "space": made.space.hex, "dim": made.dim})
        else:
            click.echo(f"{path}: an empty gallery of space {made.space.short}…, width {made.dim}")


@gallery.command()
@click.argument("path")
@click.argument("certificate")
@json_option
def admit(path: str, certificate: str, as_json: bool) -> None:
    """Accept the model that CERTIFICATE speaks of in the gallery PATH.

    \b
    Example:
      samespace gallery admit shop report/edge.certificate.json
    """
    with Gallery.open(path) as opened:
        identity = opened.admit(certificate)
    if as_json:
        print_json(identity.to_json())
    else:
        click.echo(f"{path} now accepts {identity}")


@gallery.command()
@click.argument("path")
@click.argument("images", nargs=-1)
@click.option("--bundle", required=True, help="Bundle that embeds the pictures.")
@click.option("--data", help="A dataset whose gallery pictures are added, instead of IMAGES.")
@click.option(
    "--number", "numbers", multiple=True, help="A column of --data that holds numbers: repeat it."
)
@json_option
def add(
    path: str,
    images: tuple[str, ...],
    bundle: str,
    data: str | None,
    numbers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add IMAGES to the gallery PATH; their ids are their paths, and those there stay.

    From a dataset, label and free columns become the payload: as texts, or as numbers where
    --number names the column. A picture that cannot be read does not stop the others. The command
    then ends with a list of them and exit code 3; once they are mended, the same command adds them.

    \b
    Example:
      samespace gallery add shop cup.jpg mug.jpg --bundle cloud.bundle
      samespace gallery add shop --data manifest.csv --bundle cloud.bundle --number price
    """
    if bool(images) == bool(data):
        raise click.UsageError("name either pictures or --data")
    if numbers and not data:
        raise click.UsageError("--number names columns of --data")
    ids: list[str] = list(images)
    sources: list[Any] = list(images)
    payloads: list[Any] = [None] * len(images)
    if data:
        dataset = Dataset.open(data)
        ids = [i.path for i in dataset.gallery]
        payloads = [_payload(i, numbers, data) for i in dataset.gallery]
        sources = list(dataset.gallery)
    embedder = Embedder(bundle)
    added = 0
    left_out: list[str] = []
    with Gallery.open(path) as opened, progress_bar() as progress:

        def add_some(rows: Sequence[int]) -> int:
            pictures = [dataset.read(sources[n]) if data else sources[n] for n in rows]
            chosen = [payloads[n] for n in rows]
            opened.add([ids[n] for n in rows], images=pictures, model=embedder, payloads=chosen)
            return len(rows)

        for start in range(0, len(ids), _BATCH):
            batch = range(start, min(start + _BATCH, len(ids)))
            new = [n for n in batch if ids[n] not in opened]  # the rest is there from last time
            try:
                added += add_some(new) if new else 0
            except _OF_ONE_PICTURE:
                for n in new:
                    try:
                        added += add_some([n])
                    except _OF_ONE_PICTURE as error:
                        left_out.append(f"{ids[n]!r}: {error}")
            progress("add", batch.stop, len(ids))
        total = len(opened)
    there = len(ids) - added - len(left_out)
    if as_json:
        print_json({"added": added, "there": there, "items": total, "left_out": left_out})
    else:
        click.echo(f"{added} added, {there} were there; {path} now holds {total}")
    if left_out:
        raise problems_error(f"{len(ids)} pictures, of which {added} were added,", left_out)


def _payload(item: Item, numbers: Sequence[str], data: str) -> dict[str, Any]:
    columns: dict[str, Any] = dict(item.columns)
    for name in numbers:
        if name not in columns:
            known = ", ".join(columns) or "none"
            raise ConfigError(
                f"{data} has no free column {name!r} to hold numbers; it has: {known}"
            )
        try:
            number = to_number(columns.pop(name))
        except ValueError as error:
            raise DataError(f"{data}: the column {name!r} of {item.path}: {error}") from None
        if number is not None:
            columns[name] = number
    return {"label": item.label, **columns}


@gallery.command()
@click.argument("path")
@click.argument("images", nargs=-1, required=True)
@click.option("--bundle", required=True, help="Bundle that embeds the queries.")
@click.option("-k", default=5, show_default=True, help="How many items to find.")
@click.option("--where", help="A filter on payloads, as JSON.")
@click.option("--exact", is_flag=True, help="Scan everything, whatever the size.")
@click.option("--no-correction", is_flag=True, help="Search without this model's hub correction.")
@click.option("--width", type=int, help="Search by the first so many numbers of every vector.")
@json_option
def search(
    path: str,
    images: tuple[str, ...],
    bundle: str,
    k: int,
    where: str | None,
    exact: bool,
    no_correction: bool,
    width: int | None,
    as_json: bool,
) -> None:
    """Find the items of the gallery PATH that look like IMAGES.

    \b
    Example:
      samespace gallery search shop photo.jpg --bundle edge.bundle -k 3
      samespace gallery search shop photo.jpg --bundle edge.bundle --where '{"price": {"lt": 50}}'
    """
    try:
        condition = json.loads(where) if where else None
    except ValueError as error:
        raise FilterError(f"--where is not JSON: {error}") from None
    with Gallery.open(path) as opened:
        result = opened.search(
            images=list(images),
            model=Embedder(bundle),
            k=k,
            where=condition,
            exact=exact,
            corrected=False if no_correction else None,
            width=width,
        )
        if condition and not any(result.ids) and (why := opened.explain_filter(condition)):
            click.echo(f"nothing was found: {why}", err=True)
    if as_json:
        print_json(
            [
                {"query": image, "hits": [vars(hit) for hit in hits]}
                for image, hits in zip(images, result, strict=True)
            ]
        )
        return
    columns = ["id", "score", "payload"]
    if result.corrected_scores is not None:
        columns.insert(2, "corrected")
    for image, hits in zip(images, result, strict=True):
        rows = []
        for h in hits:
            corrected = [] if h.corrected_score is None else [f"{h.corrected_score:.3f}"]
            payload = json.dumps(h.payload, ensure_ascii=False)
            rows.append((h.id, f"{h.score:.3f}", *corrected, payload))
        print_table(columns, rows, title=image)


@gallery.command("correct-hubs")
@click.argument("path")
@click.option("--model", "bundle", required=True, help="Bundle that embeds the queries.")
@click.option(
    "--bank", help="Folder of pictures, or dataset whose train pictures are taken: at most 2,000."
)
@click.option("-k", "--k", default=HUB_NEIGHBOURS, show_default=True, help="Cosines averaged.")
@click.option("--weight", default=HUB_WEIGHT, show_default=True, help="Weight of their mean.")
@click.option("--off", is_flag=True, help="Undo it instead.")
@json_option
def correct_hubs(
    path: str,
    bundle: str,
    bank: str | None,
    k: int,
    weight: float,
    off: bool,
    as_json: bool,
) -> None:
    """Make items that are near to every query sink in searches of the gallery PATH.

    \b
    Example:
      samespace gallery correct-hubs shop --model edge.bundle --bank train-pictures
      samespace gallery correct-hubs shop --model edge.bundle --off
    """
    if off == bool(bank):
        raise click.UsageError("name either --bank or --off")
    # Only this command needs what verification imports.
    from samespace.verification._bank import embed_bank, open_bank

    embedder = Embedder(bundle)
    with Gallery.open(path) as opened, progress_bar() as progress:
        if bank:
            vectors = embed_bank(embedder, open_bank(bank), embedder.identity.name, progress)
            opened.correct_hubs(vectors, model=embedder, k=k, weight=weight, progress=progress)
        else:
            opened.uncorrect_hubs(embedder)
        found = opened.corrections()
    if as_json:
        print_json([_correction_json(c) for c in found])
    elif bank:
        click.echo(f"{path} now corrects searches by {embedder.identity}, bank of {len(vectors)}")
    else:
        click.echo(f"{path} no longer corrects searches by {embedder.identity}")


def _correction_json(correction: HubCorrection) -> dict[str, Any]:
    return {**vars(correction), "model": correction.model.to_json()}


@gallery.command()
@click.argument("path")
@json_option
def stats(path: str, as_json: bool) -> None:
    """Print the gallery PATH in figures.

    \b
    Example:
      samespace gallery stats shop
    """
    with Gallery.open(path) as opened:
        found = opened.stats()
    by_model = {str(m): n for m, n in found.by_model.items()}
    if as_json:
        print_json(
            {
                "name": found.name,
                "space": found.space.hex,
                "dim": found.dim,
                "items": found.items,
                "by_model": by_model,
                "approximate": found.approximate,
                "bytes_on_disk": found.bytes_on_disk,
                "corrections": [_correction_json(c) for c in found.corrections],
            }
        )
        return
    print_table(
        ["", "value"],
        [
            ("name", found.name),
            ("space", found.space.hex),
            ("dim", found.dim),
            ("items", f"{found.items:,}"),
            *[(f"made by {model}", f"{n:,}") for model, n in by_model.items()],
            ("index", "approximate" if found.approximate else "exact"),
            *[
                (f"corrected for {c.model}", f"bank of {c.bank:,}, k {c.k}, weight {c.weight:g}")
                for c in found.corrections
            ],
            ("on disk", f"{found.bytes_on_disk / 2**20:.1f} MiB"),
        ],
    )


@gallery.command()
@click.argument("path")
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def export(path: str, out: Path, as_json: bool) -> None:
    """Write everything in the gallery PATH to the file OUT (.npz, read without pickle).

    \b
    Example:
      samespace gallery export shop shop.npz
    """
    with Gallery.open(path) as opened:
        count = opened.export(out)
    if as_json:
        print_json({"items": count, "file": str(out)})
    else:
        click.echo(f"{count} items written to {out}")


@gallery.command()
@click.argument("path")
@click.argument("out")
@json_option
def backup(path: str, out: str, as_json: bool) -> None:
    """Copy the gallery PATH into the new folder OUT while it is used, and check the copy.

    \b
    Example:
      samespace gallery backup shop /backups/shop-2026-11-24
    """
    _copied(backup_gallery(path, out), out, as_json)


@gallery.command()
@click.argument("saved")
@click.argument("path")
@json_option
def restore(saved: str, path: str, as_json: bool) -> None:
    """Make the new gallery PATH from the backup SAVED, which stays as it is.

    \b
    Example:
      samespace gallery restore /backups/shop-2026-11-24 shop
    """
    _copied(restore_gallery(saved, path), path, as_json)


def _copied(items: int, out: str, as_json: bool) -> None:
    if as_json:
        print_json({"path": out, "items": items})
    else:
        click.echo(f"{out}: {items} items, every one checked")
