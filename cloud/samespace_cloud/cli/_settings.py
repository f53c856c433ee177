"""What the training commands share: options, settings from them, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from samespace.cli._output import json_option, print_json, progress_bar

if TYPE_CHECKING:
    from samespace import Dataset
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.config import TrainConfig
    from samespace_cloud.teacher import Teacher


def shared_options(command: Any) -> Any:
    """Options that every training has."""
    options = [
        click.argument("dataset"),
        click.option(
            "--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder."
        ),
        click.option("--backbone", help="A row of the table, such as edge-m, or a text."),
        click.option("--size", type=int, help="Side of the input, in pixels."),
        click.option("--dim", type=int, help="Width of the embedding."),
        click.option("--epochs", type=int, help="Passes over the pictures."),
        click.option("--lr", type=float, help="Peak learning rate."),
        click.option("--batch-size", type=int, help="Pictures in a step."),
        click.option("--canvas", type=int, help="Side at which pictures are augmented."),
        click.option("--views", type=int, help="Views made of every picture."),
        click.option("--ema", type=float, help="Decay of the averaged weights; 0 for none."),
        click.option(
            "--nested", multiple=True, type=int, help="A shorter width that has to search too."
        ),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16"]),
            help="Of training; bf16 is slow on processors without instructions for it.",
        ),
        click.option("--patience", type=int, help="Validations without gain before stopping."),
        click.option("--val-share", type=float, help="Share of the labels to validate on."),
        click.option("--seed", type=int, help="Of weights, order and views."),
        click.option(
            "--config", type=click.Path(path_type=Path), help="A JSON of training settings."
        ),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def teaching_options(command: Any) -> Any:
    """Options of every training that a cloud model teaches."""
    options = [
        click.option(
            "--gallery-aware", is_flag=True, help="Also learn from the gallery, unlabelled."
        ),
        click.option("--pool", help="Dataset of other pictures to learn from, unlabelled."),
        click.option(
            "--teacher-view",
            type=click.Choice(["same", "clean"]),
            help="What the cloud model sees: the edge's view, or the picture as it is.",
        ),
        click.option("--mixed-views", type=int, help="How many of the views are blends."),
        click.option("--steady", type=float, help="Pull of a label's centre on what is taught."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def teacher_from(cloud: str | None, vectors: str | None, dataset: Dataset) -> Teacher:
    """Who teaches: a checkpoint's folder, a bundle, or a file of vectors."""
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.teacher import BundleTeacher, CheckpointTeacher, VectorTeacher

    if (cloud is None) == (vectors is None):
        raise click.UsageError(
            "name the cloud model with --cloud, or its vectors with --cloud-vectors, and not both"
        )
    if vectors is not None:
        return VectorTeacher(vectors, dataset.train)
    assert cloud is not None
    if (Path(cloud) / "manifest.json").exists() or cloud.endswith(".bundle"):
        return BundleTeacher(cloud)
    return CheckpointTeacher(Checkpoint.load(cloud))


def edge_defaults(teacher: Teacher, dataset: Dataset) -> dict[str, Any]:
    """Settings of an edge model's training that are not given; why these losses:
    docs/compatibility.md."""
    from samespace_cloud.demo import canvas_for

    return {
        "model": model_settings("lite0-edge", 48, teacher.dim),
        "losses": (("cosine-regression", 1.0), ("ranking", 1.0)),
        "init": "cloud" if teacher.model else "imagenet",
        "canvas": canvas_for(dataset, 160),
    }


def opened_pool(path: str | None) -> Dataset | None:
    """Pictures of anything."""
    from samespace import Dataset

    return None if path is None else Dataset.open(path)


def opened(path: str) -> Dataset:
    """A dataset whose pictures have been checked."""
    from samespace import Dataset

    dataset = Dataset.open(path)
    with progress_bar() as progress:
        dataset.validate(
            repeats=False, progress=lambda done, total: progress("check the data", done, total)
        )
    return dataset


def model_settings(backbone: str, size: int, dim: int = 128) -> dict[str, Any]:
    """A model as settings."""
    return {"backbone": backbone, "input_size": size, "dim": dim}


def weighted(text: str) -> tuple[str, float]:
    """NAME or NAME=WEIGHT."""
    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1.0)
    except ValueError:
        raise click.UsageError(f"--loss {text!r}: the weight is not a number") from None


def config_from(
    defaults: dict[str, Any], given: dict[str, Any], settings: dict[str, Any]
) -> TrainConfig:
    """Training settings: what the command line says, over the file, over the defaults."""
    from samespace_cloud.config import TrainConfig

    file: Path | None = settings.pop("config")
    model = {
        name: settings.pop(option)
        for name, option in (("backbone", "backbone"), ("input_size", "size"), ("dim", "dim"))
    }
    value = settings_in(file, "model")
    merged = {**defaults, **value, **said(given), **said(settings)}
    merged["model"] = {**defaults["model"], **value.get("model", {}), **said(model)}
    # Decoded smaller than the model's input, pictures would be blown up again.
    merged.setdefault(
        "canvas", max(merged["model"]["input_size"], int(merged.get("deploy_size") or 0))
    )
    merged.pop("deploy_size", None)
    return TrainConfig.from_json(merged)


def settings_in(file: Path | None, *parts: str) -> dict[str, Any]:
    """The settings in a JSON file, whose `parts` are objects too; none without a file.

    Raises `ConfigError` for a file that holds no such thing.
    """
    from samespace_edge import ConfigError

    if file is None:
        return {}
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the settings in {file}: {error}") from None
    if not isinstance(value, dict) or any(not isinstance(value.get(p, {}), dict) for p in parts):
        raise ConfigError(f"the settings in {file} have to be a JSON object")
    return value


def said(values: dict[str, Any]) -> dict[str, Any]:
    """Without the options that were not given."""
    return {k: v for k, v in values.items() if v not in (None, ())}


def described(checkpoint: Checkpoint, out: Path) -> dict[str, Any]:
    """A checkpoint for `--json`."""
    return {
        "checkpoint": str(out),
        "fingerprint": checkpoint.fingerprint.hex,
        "space": (checkpoint.space or checkpoint.fingerprint).hex,
        "validation": dict(checkpoint.metrics),
    }


def print_checkpoint(checkpoint: Checkpoint, out: Path, as_json: bool) -> None:
    """What was trained, and how good it is on validation labels."""
    if as_json:
        print_json(described(checkpoint, out))
        return
    measured = ", ".join(f"{k} {v:.3f}" for k, v in checkpoint.metrics.items()) or "none"
    click.echo(f"{out}: {checkpoint.model.config.architecture}, validation: {measured}")
