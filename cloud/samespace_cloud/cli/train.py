"""`samespace train`: cloud models, and edge models in their space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from samespace.cli._output import json_option, print_json, progress_bar

if TYPE_CHECKING:
    from samespace_cloud.checkpoint import Checkpoint


@click.group()
def train() -> None:
    """Train models."""


def _shared(command: Any) -> Any:
    """Options that every training has."""
    options = [
        click.argument("dataset"),
        click.option(
            "--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder."
        ),
        click.option("--backbone", help="A row of the table of backbones, such as edge-m."),
        click.option("--size", type=int, help="Side of the input, in pixels."),
        click.option("--dim", type=int, help="Width of the embedding."),
        click.option("--epochs", type=int, help="Passes over the pictures."),
        click.option("--lr", type=float, help="Peak learning rate."),
        click.option("--batch-size", type=int, help="Pictures in a step."),
        click.option("--canvas", type=int, help="Side at which pictures are augmented."),
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


@train.command()
@_shared
@click.option("--pretrained", is_flag=True, help="Start from ImageNet weights (extra: pretrained).")
@click.option("--loss", default="cosface", show_default=True, help="cosface or arcface.")
@click.option("--margin", type=float, help="Of the loss.")
@click.option("--lda-head", is_flag=True, help="Fit discriminant directions as the final head.")
@click.option("--deploy-size", type=int, help="Another input side for the finished model.")
@click.option("--role", type=click.Choice(["cloud", "edge"]), default="cloud", show_default=True)
def cloud(
    dataset: str,
    out: Path,
    pretrained: bool,
    loss: str,
    margin: float | None,
    lda_head: bool,
    deploy_size: int | None,
    role: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a model on DATASET that anchors an embedding space of its own.

    Ctrl-C stops it cleanly; the same command goes on.

    \b
    Example:
      samespace train cloud shop.csv --out runs/cloud --backbone lite0 --size 112 --pretrained
    """
    from samespace_cloud.training import train_cloud

    settings["margin"] = margin
    given: dict[str, Any] = {"losses": ((loss, 1.0),)}
    if pretrained:
        given["init"] = "imagenet"
    config = _config("lite0-trunk", 96, given, settings)
    with progress_bar() as progress:
        checkpoint = train_cloud(
            _opened(dataset),
            config,
            out,
            deploy_size=deploy_size,
            lda_head=lda_head,
            role=role,
            progress=progress,
        )
    _print(checkpoint, out, as_json)


@train.command()
@_shared
@click.option("--cloud", "cloud_path", required=True, help="Checkpoint of the cloud model.")
@click.option(
    "--loss",
    "losses",
    multiple=True,
    default=("cosine-regression",),
    show_default=True,
    help="NAME or NAME=WEIGHT; may be repeated.",
)
@click.option(
    "--init",
    type=click.Choice(["random", "imagenet", "cloud"]),
    default="cloud",
    show_default=True,
    help="Where the backbone starts.",
)
@click.option("--gallery-aware", is_flag=True, help="Also learn from the gallery, unlabelled.")
def edge(
    dataset: str,
    out: Path,
    cloud_path: str,
    losses: tuple[str, ...],
    init: str,
    gallery_aware: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a model on DATASET into the space of a cloud model.

    Ctrl-C stops it cleanly; the same command goes on.

    \b
    Example:
      samespace train edge shop.csv --cloud runs/cloud --out runs/edge --backbone edge-m --size 64
      samespace train edge shop.csv --cloud runs/cloud --out runs/edge \\
        --loss frozen-classifier --loss cosface
    """
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.training import train_edge

    teacher = Checkpoint.load(cloud_path)
    given = {"losses": tuple(_weighted(x) for x in losses), "init": init}
    config = _config("lite0-edge", 48, given, settings, dim=teacher.model.config.dim)
    with progress_bar() as progress:
        checkpoint = train_edge(
            _opened(dataset),
            config,
            teacher,
            out,
            gallery_aware=gallery_aware,
            ridge_head=any(name == "cosine-regression" for name, _ in config.losses),
            progress=progress,
        )
    _print(checkpoint, out, as_json)


@train.command()
@_shared
@click.option("--pretrained", is_flag=True, help="Start from ImageNet weights (extra: pretrained).")
@click.option("--edge-backbone", default="lite0-edge", show_default=True)
@click.option("--edge-size", default=48, show_default=True, help="Side of the edge's input.")
@click.option("--align", type=float, help="Weight of the alignment between the two.")
def together(
    dataset: str,
    out: Path,
    pretrained: bool,
    edge_backbone: str,
    edge_size: int,
    align: float | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a cloud and an edge model on DATASET together, into one space.

    \b
    Example:
      samespace train together shop.csv --out runs/both --pretrained
    """
    from dataclasses import replace

    from samespace_cloud.model import ModelConfig
    from samespace_cloud.training import train_together

    settings["align"] = align
    given: dict[str, Any] = {"losses": (("cosface", 1.0),)}
    if pretrained:
        given["init"] = "imagenet"
    config = _config("lite0-trunk", 80, given, settings)
    small = replace(
        config, model=ModelConfig(edge_backbone, edge_size, config.model.dim), init="cloud"
    )
    with progress_bar() as progress:
        both = train_together(_opened(dataset), config, small, out, progress=progress)
    for checkpoint, name in zip(both, ("cloud", "edge"), strict=True):
        _print(checkpoint, out / name, as_json)


def _opened(path: str) -> Any:
    from samespace import Dataset

    dataset = Dataset.open(path)
    with progress_bar() as progress:
        dataset.validate(progress=lambda done, total: progress("check the data", done, total))
    return dataset


def _weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1.0)
    except ValueError:
        raise click.UsageError(f"--loss {text!r}: the weight is not a number") from None


def _config(
    backbone: str, size: int, given: dict[str, Any], settings: dict[str, Any], dim: int = 128
) -> Any:
    """Settings from the file, if one is named, with what the command line says on top."""
    from dataclasses import replace

    from samespace_cloud.config import TrainConfig
    from samespace_cloud.model import ModelConfig
    from samespace_edge import ConfigError

    file: Path | None = settings.pop("config")
    model: dict[str, Any] = {
        "backbone": settings.pop("backbone") or backbone,
        "input_size": settings.pop("size") or size,
        "dim": settings.pop("dim") or dim,
    }
    chosen = {k: v for k, v in settings.items() if v is not None}
    if file is None:
        return TrainConfig(model=ModelConfig(**model), **given, **chosen)
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the settings in {file}: {error}") from None
    base = {"model": model, "losses": given["losses"], **value}
    return replace(TrainConfig.from_json(base), **chosen)


def _print(checkpoint: Checkpoint, out: Path, as_json: bool) -> None:
    found = {
        "checkpoint": str(out),
        "fingerprint": checkpoint.fingerprint.hex,
        "space": (checkpoint.space or checkpoint.fingerprint).hex,
        "validation": dict(checkpoint.metrics),
    }
    if as_json:
        print_json(found)
        return
    measured = ", ".join(f"{k} {v:.3f}" for k, v in checkpoint.metrics.items()) or "none"
    click.echo(f"{out}: {checkpoint.model.config.architecture}, validation: {measured}")
