"""`samespace train cloud --compatible-with`: its options, its settings, and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from samespace.cli._output import print_json
from samespace_cloud.cli._settings import (
    config_from,
    described,
    model_settings,
    print_checkpoint,
    teacher_from,
)

if TYPE_CHECKING:
    from samespace import Dataset
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.config import TrainConfig
    from samespace_cloud.teacher import Teacher

_ONLY_WITH = ("influence", "alignment", "regression", "rows", "from_old", "gallery_aware")
_ONLY_WITHOUT = ("lda_head", "lda_prior", "deploy_size")
# What they give: docs/upgrades.md.
_ALIGNMENT, _CONTRASTIVE_SHARE = 8.0, 0.25


def upgrade_options(command: Any) -> Any:
    """Options of a cloud model that replaces another one."""
    options = [
        click.option(
            "--compatible-with",
            metavar="OLD",
            help="Search the gallery of this cloud model too: a checkpoint, a bundle, or an .npz "
            "of its vectors and their labels.",
        ),
        click.option(
            "--influence", type=float, help="Weight of OLD's classifier, frozen.  [default: 1]"
        ),
        click.option(
            "--alignment",
            type=float,
            help="Weight of OLD's vector of the same view.  [default: 8; of vectors in a file: 0]",
        ),
        click.option(
            "--gallery-aware",
            is_flag=True,
            help="Learn where OLD sees the gallery's pictures, too, without their labels.",
        ),
        click.option(
            "--regression",
            type=float,
            help="Weight of the loss against negative flips.  [default: 0]",
        ),
        click.option(
            "--rows",
            type=click.Choice(["old", "means"]),
            help="OLD's classifier where it has one, or class means throughout.  [default: old]",
        ),
        click.option(
            "--from-old", is_flag=True, help="Start from OLD's weights, as far as they fit."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def check_options(old: str | None, role: str, values: dict[str, Any]) -> None:
    """Refuse options that would be ignored, or that leave the old model's space."""
    if old is None:
        if lost := _flags(_ONLY_WITH, values):
            raise click.UsageError(f"{lost} needs --compatible-with")
        return
    if lost := _flags(_ONLY_WITHOUT, values):
        raise click.UsageError(
            f"{lost} fits a new head to the finished model, which leaves the space of {old}; "
            "leave it out, or leave out --compatible-with"
        )
    if role != "cloud":
        raise click.UsageError(
            f"--role {role}: a model that replaces a cloud model is one; for an edge model in its "
            "space: samespace train edge"
        )


def old_from(path: str, dataset: Dataset) -> Teacher:
    """The model to be compatible with: a checkpoint's folder, a bundle, or a file of vectors."""
    from samespace_cloud.teacher import LabelledVectors

    if path.endswith(".npz"):
        return LabelledVectors(path)
    return teacher_from(path, None, dataset)


def upgrade_config(
    old: Teacher, values: dict[str, Any], given: dict[str, Any], settings: dict[str, Any]
) -> TrainConfig:
    """Training settings; the losses of the command line, if it names any, over the file's."""
    from samespace_edge import ConfigError

    influence = 1.0 if values["influence"] is None else values["influence"]
    alignment = values["alignment"]
    if alignment is None:
        alignment = _ALIGNMENT if old.embeds or values["gallery_aware"] else 0.0
    terms = (
        *(given["losses"] or (("cosface", 1.0),)),
        ("frozen-classifier", influence),
        ("cosine-regression", alignment),
        ("contrastive", _CONTRASTIVE_SHARE * alignment),
        ("regression-alleviating", values["regression"] or 0.0),
    )
    if any(weight < 0 for _, weight in terms):
        raise ConfigError("--influence, --alignment and --regression are weights, 0 or more")
    losses = tuple((name, weight) for name, weight in terms if weight)
    weights = ("influence", "alignment", "regression")
    named = given["losses"] or any(values[w] is not None for w in weights)
    given = given | {"losses": losses if named else None}
    if values["from_old"]:
        if given["init"]:
            raise click.UsageError("--pretrained and --from-old name two starts; name one")
        given["init"] = "cloud"
    defaults: dict[str, Any] = {
        "model": model_settings("lite0-trunk", 96, old.dim),
        "losses": losses,
    }
    if alignment and old.per_view and settings["views"] is None and settings["config"] is None:
        defaults |= {"views": 7, "mixed_views": 1}
    return config_from(defaults, given, settings)


def print_upgrade(checkpoint: Checkpoint, old: Teacher, out: Path, as_json: bool) -> None:
    """What was trained, in which space it lies, and what it can be searched with."""
    whole = (checkpoint.space or checkpoint.fingerprint).short
    if as_json:
        found = {"model": old.fingerprint.hex, "space": old.space.hex, "width": old.dim}
        print_json(described(checkpoint, out) | {"compatible_with": found})
        return
    print_checkpoint(checkpoint, out, as_json)
    if checkpoint.space:
        click.echo(f"space {whole}…: its vectors search the gallery of {old.fingerprint.short}…")
        return
    click.echo(
        f"space {whole}…, its own, with all {checkpoint.model.config.dim} numbers; the first "
        f"{old.dim} search the gallery of {old.fingerprint.short}…, space {old.space.short}…:\n"
        f"  samespace export {out} {out.name}-{old.dim}.bundle --width {old.dim}"
    )


def _flags(names: tuple[str, ...], values: dict[str, Any]) -> str:
    return ", ".join(f"--{n.replace('_', '-')}" for n in names if values[n])
