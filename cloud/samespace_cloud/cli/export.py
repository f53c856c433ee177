"""`samespace export`: checkpoint in, bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from samespace.cli._output import json_option, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from samespace_cloud.tagging import TaggerCheckpoint
    from samespace_cloud.tuning import TunedCheckpoint
    from samespace_edge import Resize
    from samespace_export import Calibration


@click.command("export")
@click.argument("checkpoint")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", "formats", default="onnx", show_default=True, help="onnx,tflite,coreml")
@click.option(
    "--precision", default="fp32", show_default=True, help="fp32,fp16,int8,dynamic (TFLite only)"
)
@click.option("--calibrate", help="Dataset whose train pictures int8 takes its ranges from.")
@click.option("--pictures", default=256, show_default=True, help="How many of them.")
@click.option(
    "--percentile",
    type=click.FloatRange(50, 100, min_open=True),
    help="Share of the values that ranges cover; 100 is min/max. By default measured.",
)
@click.option(
    "--width", type=int, help="Only the first so many numbers, in the space that they live in."
)
@click.option("--name", help="A label; by default the checkpoint's folder.")
@click.option("--golden", multiple=True, help="A picture that travels with the bundle.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
@json_option
def export_command(
    checkpoint: str,
    out: Path,
    formats: str,
    precision: str,
    calibrate: str | None,
    pictures: int,
    percentile: float | None,
    width: int | None,
    name: str | None,
    golden: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export CHECKPOINT to the bundle folder OUT, and run every file that was written.

    A classifier, trained or tuned, becomes a folder of graph files whose output are logits, with
    classifier.json; it comes in any precision but int8.

    \b
    Example:
      samespace export runs/edge edge.bundle --golden cup.jpg --golden mug.jpg
      samespace export runs/edge edge.bundle --to onnx,tflite,coreml \\
        --precision fp32,fp16,int8 --calibrate shop/manifest.csv
    Of a model that is wider than the one whose gallery it searches, what searches it:
      samespace export runs/new new.bundle --width 128
    """
    from torch import nn

    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.tagging import TaggerCheckpoint
    from samespace_cloud.tagging.checkpoint import is_tagger
    from samespace_cloud.tuning import TunedCheckpoint
    from samespace_cloud.tuning.checkpoint import is_tuned
    from samespace_cloud.tuning.embedding import embedding_to_export
    from samespace_export import export_bundle, select_targets

    targets = select_targets(_list(formats), _list(precision))
    label = name or Path(checkpoint).resolve().name
    folder = Path(checkpoint)
    tuned = TunedCheckpoint.load(folder) if is_tuned(folder) else None
    classifier = TaggerCheckpoint.load(folder) if is_tagger(folder) else tuned
    if classifier is not None and classifier.classes:
        if calibrate or width:
            raise click.UsageError("--calibrate and --width are of models that embed")
        _export_classifier(classifier, out, label, targets, _read(golden), overwrite, as_json)
        return
    module: nn.Module
    if tuned is not None:
        if width is not None:
            raise click.UsageError("--width is of models that were trained to be cut")
        module, spec = embedding_to_export(tuned, label)
    else:
        loaded = Checkpoint.load(folder)
        if width is not None and width != loaded.model.config.dim:
            loaded = loaded.prefix(width)
        module, spec = loaded.model, loaded.export_spec(label)
    calibration = _calibration(calibrate, pictures, percentile, spec.resize) if calibrate else None
    encoded = _read(golden)
    with progress_bar() as progress:
        written = export_bundle(
            module,
            spec,
            out,
            targets=targets,
            calibration=calibration,
            golden=encoded,
            overwrite=overwrite,
            progress=lambda target: progress("export", targets.index(target), len(targets)),
        )
    if as_json:
        print_json(
            {
                "bundle": str(out),
                "parity": [vars(p) for p in written.parity],
                "quantization": [q.to_json() for q in written.quantizations],
            }
        )
        return
    click.echo(repr(written.bundle))
    sizes = {v.name: v.bytes for v in written.bundle.manifest.variants}
    print_table(
        ["file", "MiB", "cosine to torch, worst golden picture", "largest difference", "run by"],
        [
            (
                p.variant,
                f"{sizes[p.variant] / 2**20:.2f}",
                f"{p.min_cosine:.5f}",
                f"{p.max_abs:.1e}",
                p.runtime,
            )
            for p in written.parity
        ],
    )
    for q in written.quantizations:
        click.echo(
            f"{q.variant}: ranges from {q.pictures} pictures at percentile {q.percentile:g}; "
            f"mean 1 - cosine {q.error:.2g} on those kept back; "
            f"in float: {', '.join(q.keep_float) or 'no layer'}"
        )


def _export_classifier(
    classifier: TaggerCheckpoint | TunedCheckpoint,
    out: Path,
    label: str,
    targets: tuple[str, ...],
    golden: list[bytes],
    overwrite: bool,
    as_json: bool,
) -> None:
    from samespace_cloud.tuning import export_classifier

    with progress_bar() as progress:
        parity = export_classifier(
            classifier,
            out,
            label,
            targets=targets,
            golden=golden,
            overwrite=overwrite,
            progress=lambda target: progress("export", targets.index(target), len(targets)),
        )
    if as_json:
        print_json({"classifier": str(out), "parity": [vars(p) for p in parity]})
        return
    click.echo(f"{out}: {classifier.fingerprint.short}…, {len(classifier.classes)} classes")
    print_table(
        ["file", "largest difference of a logit to torch's", "run by"],
        [(p.variant, f"{p.max_abs:.1e}", p.runtime) for p in parity],
    )


def _read(golden: tuple[str, ...]) -> list[bytes]:
    from samespace_edge import DecodeError

    try:
        return [Path(path).read_bytes() for path in golden]
    except OSError as error:
        raise DecodeError(f"golden picture: {error}") from None


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _calibration(
    source: str, pictures: int, percentile: float | None, resize: Resize
) -> Calibration:
    import numpy as np

    from samespace import Dataset
    from samespace_edge import DataError
    from samespace_export import Calibration

    dataset = Dataset.open(source)
    if not dataset.train:
        raise DataError(f"{source} has no train pictures to calibrate with")
    # Drawn over the whole split: manifests come sorted by label.
    drawn = np.random.default_rng(0).permutation(len(dataset.train))[:pictures]
    return Calibration.of([dataset.read(dataset.train[i]) for i in drawn], resize, percentile)
