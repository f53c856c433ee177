"""`samespace train`: cloud models, and edge models in their space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from samespace.cli._output import json_option, print_json, progress_bar

if TYPE_CHECKING:
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.config import TrainConfig


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
        click.option("--views", type=int, help="Views made of every picture."),
        click.option("--ema", type=float, help="Decay of the averaged weights; 0 for none."),
        click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Of training."),
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


@train.command()
@_shared
@click.option("--pretrained", is_flag=True, help="Start from ImageNet weights (extra: pretrained).")
@click.option("--loss", help="cosface (the default) or arcface.")
@click.option("--margin", type=float, help="Of the loss.")
@click.option("--lda-head", is_flag=True, help="Fit discriminant directions as the final head.")
@click.option("--deploy-size", type=int, help="Another input side for the finished model.")
@click.option("--role", type=click.Choice(["cloud", "edge"]), default="cloud", show_default=True)
def cloud(
    dataset: str,
    out: Path,
    pretrained: bool,
    loss: str | None,
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

    given = {
        "losses": ((loss, 1.0),) if loss else None,
        "init": "imagenet" if pretrained else None,
        "margin": margin,
        "deploy_size": deploy_size,
    }
    defaults = {"model": _model("lite0-trunk", 96), "losses": (("cosface", 1.0),)}
    config = _config(defaults, given, settings)
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
    help="NAME or NAME=WEIGHT; may be repeated; by default cosine-regression.",
)
@click.option(
    "--init",
    type=click.Choice(["random", "imagenet", "cloud"]),
    help="Where the backbone starts; by default from the cloud model.",
)
@click.option("--gallery-aware", is_flag=True, help="Also learn from the gallery, unlabelled.")
def edge(
    dataset: str,
    out: Path,
    cloud_path: str,
    losses: tuple[str, ...],
    init: str | None,
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
    defaults = {
        "model": _model("lite0-edge", 48, teacher.model.config.dim),
        "losses": (("cosine-regression", 1.0),),
        "init": "cloud",
        "canvas": teacher.model.config.input_size,
    }
    config = _config(defaults, given, settings)
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
@click.argument("dataset")
@click.option("--edge", "edge_path", required=True, help="Checkpoint of the edge model.")
@click.option("--cloud", "cloud_path", required=True, help="Checkpoint of its cloud model.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder.")
@click.option("--epochs", type=int, help="Passes over the pictures.  [default: 8]")
@click.option("--lr", type=float, help="Peak learning rate.  [default: 0.0003]")
@click.option("--agree", type=float, help="Weight of agreeing with the start.  [default: 30]")
@click.option("--gallery-aware", is_flag=True, help="Also learn from the gallery, unlabelled.")
@click.option("--seed", default=0, show_default=True, help="Of order and views.")
@json_option
def int8(
    dataset: str,
    edge_path: str,
    cloud_path: str,
    out: Path,
    epochs: int | None,
    lr: float | None,
    agree: float | None,
    gallery_aware: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Fine-tune an edge model so that its int8 files find what it finds.

    The result is an edge model of its own, in the same space, with weights on the int8 grid: export
    it in every precision, and use it instead of the one that it comes from.

    \b
    Example:
      samespace train int8 shop.csv --edge runs/edge --cloud runs/cloud --out runs/int8
      samespace export runs/int8 edge.bundle --to onnx,tflite --precision fp32,int8 \\
        --calibrate shop.csv
    """
    from dataclasses import replace

    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.demo import canvas_for
    from samespace_cloud.recipes import demo_recipe, int8_recipe
    from samespace_cloud.training import train_edge

    teacher, start = Checkpoint.load(cloud_path), Checkpoint.load(edge_path)
    data = _opened(dataset)
    canvas = canvas_for(data, teacher.model.config.input_size)
    base = int8_recipe(demo_recipe(seed, canvas=canvas).edge)
    config = replace(
        base, model=start.model.config, **_said({"epochs": epochs, "lr": lr, "int8": agree})
    )
    with progress_bar() as progress:
        checkpoint = train_edge(
            data,
            config,
            teacher,
            out,
            start=start,
            gallery_aware=gallery_aware,
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

    given = {"align": align, "init": "imagenet" if pretrained else None}
    defaults = {"model": _model("lite0-trunk", 80), "losses": (("cosface", 1.0),)}
    config = _config(defaults, given, settings)
    small = replace(
        config, model=ModelConfig(edge_backbone, edge_size, config.model.dim), init="cloud"
    )
    with progress_bar() as progress:
        both = train_together(_opened(dataset), config, small, out, progress=progress)
    found = dict(zip(("cloud", "edge"), both, strict=True))
    if as_json:
        print_json({name: _described(c, out / name) for name, c in found.items()})
        return
    for name, checkpoint in found.items():
        _print(checkpoint, out / name, as_json)


def _opened(path: str) -> Any:
    from samespace import Dataset

    dataset = Dataset.open(path)
    with progress_bar() as progress:
        dataset.validate(progress=lambda done, total: progress("check the data", done, total))
    return dataset


def _model(backbone: str, size: int, dim: int = 128) -> dict[str, Any]:
    return {"backbone": backbone, "input_size": size, "dim": dim}


def _weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1.0)
    except ValueError:
        raise click.UsageError(f"--loss {text!r}: the weight is not a number") from None


def _config(
    defaults: dict[str, Any], given: dict[str, Any], settings: dict[str, Any]
) -> TrainConfig:
    """Training settings: what the command line says, over the file, over the defaults."""
    from samespace_cloud.config import TrainConfig
    from samespace_edge import ConfigError

    file: Path | None = settings.pop("config")
    model = {
        name: settings.pop(option)
        for name, option in (("backbone", "backbone"), ("input_size", "size"), ("dim", "dim"))
    }
    value: Any = {}
    if file is not None:
        try:
            value = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the settings in {file}: {error}") from None
        if not isinstance(value, dict) or not isinstance(value.get("model", {}), dict):
            raise ConfigError(f"the settings in {file} have to be a JSON object")
    merged = {**defaults, **value, **_said(given), **_said(settings)}
    merged["model"] = {**defaults["model"], **value.get("model", {}), **_said(model)}
    # Decoded smaller than the model's input, pictures would be blown up again.
    merged.setdefault(
        "canvas", max(merged["model"]["input_size"], int(merged.get("deploy_size") or 0))
    )
    merged.pop("deploy_size", None)
    return TrainConfig.from_json(merged)


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v not in (None, ())}


def _described(checkpoint: Checkpoint, out: Path) -> dict[str, Any]:
    return {
        "checkpoint": str(out),
        "fingerprint": checkpoint.fingerprint.hex,
        "space": (checkpoint.space or checkpoint.fingerprint).hex,
        "validation": dict(checkpoint.metrics),
    }


def _print(checkpoint: Checkpoint, out: Path, as_json: bool) -> None:
    if as_json:
        print_json(_described(checkpoint, out))
        return
    measured = ", ".join(f"{k} {v:.3f}" for k, v in checkpoint.metrics.items()) or "none"
    click.echo(f"{out}: {checkpoint.model.config.architecture}, validation: {measured}")
