"""`samespace train`: cloud models, and edge models in their space."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from samespace.cli._output import json_option, print_json, progress_bar
from samespace_cloud.cli._settings import (
    config_from,
    described,
    edge_defaults,
    model_settings,
    opened,
    opened_pool,
    print_checkpoint,
    said,
    shared_options,
    teacher_from,
    teaching_options,
    weighted,
)
from samespace_cloud.cli._upgrade import (
    check_options,
    old_from,
    print_upgrade,
    upgrade_config,
    upgrade_options,
)
from samespace_cloud.cli.family import family
from samespace_cloud.cli.tagger import tagger


@click.group()
def train() -> None:
    """Train models."""


train.add_command(family)
train.add_command(tagger)


@train.command()
@shared_options
@click.option("--pretrained", is_flag=True, help="Start from ImageNet weights (extra: pretrained).")
@click.option("--loss", help="cosface (the default) or arcface.")
@click.option("--margin", type=float, help="Of the loss.")
@click.option("--lda-head", is_flag=True, help="Fit discriminant directions as the final head.")
@click.option(
    "--lda-prior", type=float, default=0.0, help="Of classes to come; with few, .1 to .3."
)
@click.option("--deploy-size", type=int, help="Another input side for the finished model.")
@click.option("--role", type=click.Choice(["cloud", "edge"]), default="cloud", show_default=True)
@upgrade_options
def cloud(
    dataset: str,
    out: Path,
    pretrained: bool,
    loss: str | None,
    margin: float | None,
    lda_head: bool,
    lda_prior: float,
    deploy_size: int | None,
    role: str,
    compatible_with: str | None,
    influence: float | None,
    alignment: float | None,
    gallery_aware: bool,
    regression: float | None,
    rows: Literal["old", "means"] | None,
    from_old: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a model on DATASET that anchors an embedding space of its own, or that replaces one.

    Ctrl-C stops it cleanly; the same command goes on.

    \b
    Example:
      samespace train cloud shop.csv --out runs/cloud --backbone lite0 --size 112 --pretrained
    A later model, whose vectors search the gallery of the first one, with fewer negative flips:
      samespace train cloud more.csv --out runs/new --backbone lite2 --pretrained \\
        --compatible-with runs/cloud --regression 0.5
    """
    from samespace_cloud.training import train_cloud
    from samespace_cloud.upgrade import train_upgrade

    own = {"lda_head": lda_head, "lda_prior": lda_prior, "deploy_size": deploy_size}
    kept = {
        "influence": influence,
        "alignment": alignment,
        "gallery_aware": gallery_aware,
        "regression": regression,
        "rows": rows,
        "from_old": from_old,
    }
    check_options(compatible_with, role, {**own, **kept})
    given = {
        "losses": ((loss, 1.0),) if loss else None,
        "init": "imagenet" if pretrained else None,
        "margin": margin,
        "deploy_size": deploy_size,
    }
    if compatible_with is not None:
        data = opened(dataset)
        old = old_from(compatible_with, data)
        config = upgrade_config(old, kept, given, settings)
        with progress_bar() as progress:
            upgraded = train_upgrade(
                data,
                config,
                old,
                out,
                rows=rows or "old",
                gallery_aware=gallery_aware,
                progress=progress,
            )
        print_upgrade(upgraded, old, out, as_json)
        return
    defaults = {"model": model_settings("lite0-trunk", 96), "losses": (("cosface", 1.0),)}
    config = config_from(defaults, given, settings)
    with progress_bar() as progress:
        checkpoint = train_cloud(
            opened(dataset),
            config,
            out,
            deploy_size=deploy_size,
            lda_head=lda_head,
            lda_prior=lda_prior,
            role=role,
            progress=progress,
        )
    print_checkpoint(checkpoint, out, as_json)


@train.command()
@shared_options
@click.option("--cloud", "cloud_path", help="The cloud model: a checkpoint, or a bundle.")
@click.option("--cloud-vectors", help="Its vectors of the pictures instead: .npz or .npy.")
@click.option(
    "--loss",
    "losses",
    multiple=True,
    help="NAME or NAME=WEIGHT; may be repeated; by default cosine-regression and ranking.",
)
@click.option(
    "--init",
    type=click.Choice(["random", "imagenet", "cloud"]),
    help="Where the backbone starts; by default from the cloud model.",
)
@click.option("--start", help="Checkpoint of an edge model of this space to go on from.")
@teaching_options
def edge(
    dataset: str,
    out: Path,
    start: str | None,
    cloud_path: str | None,
    cloud_vectors: str | None,
    losses: tuple[str, ...],
    init: str | None,
    gallery_aware: bool,
    pool: str | None,
    teacher_view: str | None,
    mixed_views: int | None,
    steady: float | None,
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
    With any model that runs as a bundle, or that gave vectors once; no labels are needed:
      samespace train edge shop.csv --cloud x.bundle --out runs/edge --init imagenet
      samespace train edge shop.csv --cloud-vectors v.npz --out runs/edge --init imagenet
    """
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.training import train_edge

    data = opened(dataset)
    teacher = teacher_from(cloud_path, cloud_vectors, data)
    earlier = Checkpoint.load(start) if start else None
    if earlier:
        model = earlier.model.config
        settings |= {"backbone": model.backbone, "size": model.input_size, "dim": model.dim}
    given = {
        "losses": tuple(weighted(x) for x in losses),
        "init": init,
        "teacher_view": teacher_view,
        "mixed_views": mixed_views,
        "steady": steady,
    }
    config = config_from(edge_defaults(teacher, data), given, settings)
    with progress_bar() as progress:
        checkpoint = train_edge(
            data,
            config,
            teacher,
            out,
            start=earlier,
            gallery_aware=gallery_aware,
            pool=opened_pool(pool),
            ridge_head=any(name == "cosine-regression" for name, _ in config.losses),
            progress=progress,
        )
    print_checkpoint(checkpoint, out, as_json)


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
    data = opened(dataset)
    canvas = canvas_for(data, teacher.model.config.input_size)
    base = int8_recipe(demo_recipe(seed, canvas=canvas).edge)
    config = replace(
        base, model=start.model.config, **said({"epochs": epochs, "lr": lr, "int8": agree})
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
    print_checkpoint(checkpoint, out, as_json)


@train.command()
@shared_options
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
    defaults = {"model": model_settings("lite0-trunk", 80), "losses": (("cosface", 1.0),)}
    config = config_from(defaults, given, settings)
    small = replace(
        config, model=ModelConfig(edge_backbone, edge_size, config.model.dim), init="cloud"
    )
    with progress_bar() as progress:
        both = train_together(opened(dataset), config, small, out, progress=progress)
    found = dict(zip(("cloud", "edge"), both, strict=True))
    if as_json:
        print_json({name: described(c, out / name) for name, c in found.items()})
        return
    for name, checkpoint in found.items():
        print_checkpoint(checkpoint, out / name, as_json)
