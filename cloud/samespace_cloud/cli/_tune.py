"""What the commands of `samespace tune` share: options, settings from them, and what is printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from samespace.cli._output import json_option, print_json
from samespace_cloud.cli._settings import said, settings_in

if TYPE_CHECKING:
    from samespace_cloud.linear import LinearConfig
    from samespace_cloud.tuning import TuneConfig, TunedCheckpoint

_SOLVING = (
    click.option(
        "--solver",
        type=click.Choice(["cg", "exact", "kfac", "sgd", "adam"]),
        help="How the tangent is found; exact for small problems.  [default: cg]",
    ),
    click.option(
        "--loss", type=click.Choice(["square", "cross-entropy"]), help="[default: square]"
    ),
    click.option(
        "--weight-decay", type=float, help="Penalty of |w - w0|^2, a picture.  [default: 0.01]"
    ),
    click.option("--penalty", type=float, help="The same for all pictures together."),
    click.option(
        "--tolerance", type=float, help="cg: residual at which it stops.  [default: 0.001]"
    ),
    click.option(
        "--iterations", type=int, help="cg: after which it stops in any case.  [default: 50]"
    ),
    click.option(
        "--preconditioned/--not-preconditioned",
        default=None,
        help="cg: by K-FAC.  [default: not]",
    ),
    click.option(
        "--damping", type=float, help="K-FAC: share of a layer's curvature.  [default: 0.01]"
    ),
    click.option(
        "--kfac-pictures", type=int, help="K-FAC: estimated from so many; 0: all.  [default: 512]"
    ),
    click.option(
        "--kfac-draws", type=int, help="K-FAC: random directions; 0: all outputs.  [default: 4]"
    ),
    click.option("--epochs", type=int, help="kfac, sgd, adam: passes.  [default: 20]"),
    click.option("--batch-size", type=int, help="Pictures in a step or product.  [default: 64]"),
    click.option(
        "--lr",
        type=float,
        help="adam: learning rate; kfac, sgd: share of the largest stable one.  [default: 0.5]",
    ),
    click.option("--momentum", type=float, help="kfac, sgd.  [default: 0.9]"),
    click.option("--seed", type=int, help="Of a random start, of order and of K-FAC's directions."),
    click.option(
        "--only", multiple=True, help="Tune only parameters whose names begin so, such as head."
    ),
)

_TARGETS = (
    click.option("--kappa", type=float, help="Target of a picture's class.  [default: 15]"),
    click.option(
        "--emphasis", type=float, help="Weight of a picture's class in the loss.  [default: 1]"
    ),
)

_START = (
    click.option("--backbone", help="A row of the table, or a text.  [default: lite0-edge]"),
    click.option("--size", type=int, help="Side of the input, in pixels.  [default: 64]"),
    click.option(
        "--policy",
        type=click.Choice(["crop", "squash", "pad"]),
        help="How a picture becomes a square.  [default: crop]",
    ),
    click.option(
        "--init",
        type=click.Choice(["imagenet", "random"]),
        help="Where the network starts.  [default: imagenet]",
    ),
    click.option("--start", help="Start from the weights of this checkpoint, or tagger."),
    click.option(
        "--slope",
        type=float,
        help="Of leaky activations, such as 0.1.  [default: 0, the network as it is]",
    ),
    click.option(
        "--recalibrate/--keep-statistics",
        default=None,
        help="Whether a leaky network's batch norms are measured anew.  [default: anew]",
    ),
    click.option(
        "--head",
        type=click.Choice(["ridge", "random"]),
        help="Where the head starts.  [default: ridge]",
    ),
    click.option("--head-penalty", type=float, help="Of that regression.  [default: 1]"),
)

_SPLIT = (
    click.option("--val-share", type=float, help="Share of a class to validate on.  [default: 0]"),
    click.option("--split-seed", type=int, help="Of which pictures validate.  [default: 0]"),
    click.option(
        "--config", type=click.Path(path_type=Path), help="A JSON of a tuning's settings."
    ),
)

_RESOLVING = (
    click.option(
        "--solver",
        type=click.Choice(["auto", "cg", "exact"]),
        default="auto",
        show_default=True,
        help="auto: exact where that is quick.",
    ),
    click.option(
        "--tolerance", type=float, default=1e-6, show_default=True, help="cg: the residual."
    ),
    click.option("--iterations", type=int, default=1000, show_default=True, help="cg: at most."),
)

out_option = click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder."
)


def _all_of(*options: Any) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


start_options = _all_of(click.argument("dataset"), out_option, *_START, *_TARGETS, *_SPLIT)
run_options = _all_of(click.argument("dataset"), out_option, *_START, *_TARGETS, *_SOLVING, *_SPLIT)
solving_options = _all_of(*_SOLVING, json_option)
resolving_options = _all_of(*_RESOLVING)

_OF_W0 = ("backbone", "size", "policy", "init", "start", "slope", "recalibrate", "head")
_OWN = ("init", "only", "val_share", "split_seed", "partial")


def tune_config(settings: dict[str, Any], base: TunedCheckpoint | None = None) -> TuneConfig:
    """Settings: what the command line says, over the file, over the base's network, over the
    defaults."""
    from samespace_cloud.tuning import TuneConfig

    options = dict(settings)
    value = settings_in(options.pop("config"), "sees", "linear")
    if base is not None and (given := said({name: options[name] for name in _OF_W0})):
        option = next(iter(given)).replace("_", "-")
        raise click.UsageError(
            f"--{option} is decided by --base; leave it out, or tune without a base"
        )
    if options.pop("start"):
        if options["init"]:
            raise click.UsageError("--init and --start name two starts; name one")
        options["init"] = "checkpoint"
    names = (("backbone", "backbone"), ("input_size", "size"), ("policy", "policy"))
    seen = said({name: options.pop(option) for name, option in names})
    default = {"backbone": "lite0-edge", "input_size": 64} if base is None else vars(base.sees)
    own = said({name: options.pop(name, None) for name in _OWN})
    linear = {**value.get("linear", {}), **said(options)}
    sees = {**default, **value.get("sees", {}), **seen}
    return TuneConfig.from_json({**value, **own, "sees": sees, "linear": linear})


def linear_config(settings: dict[str, Any]) -> LinearConfig:
    """How the tangent is found, where nothing else can be said."""
    from samespace_cloud.linear import LinearConfig

    return LinearConfig.from_json(said(settings))


def print_tuned(
    checkpoint: TunedCheckpoint,
    out: Path,
    as_json: bool,
    predictions: Path | None = None,
    more: dict[str, Any] | None = None,
) -> None:
    """What was tuned, and how far it is from the optimum."""
    if as_json:
        print_json(
            {
                "tuning": str(out),
                "fingerprint": checkpoint.fingerprint.hex,
                "start": checkpoint.model.fingerprint.hex,
                "classes": list(checkpoint.classes),
                "pictures": len(checkpoint.pictures),
                "members": sorted(checkpoint.members),
                "metrics": dict(checkpoint.metrics),
                "predictions": predictions and str(predictions),
                **(more or {}),
            }
        )
        return
    what = f"{len(checkpoint.classes)} classes" if checkpoint.classes else "an embedding"
    of = f"{len(checkpoint.pictures)} pictures"
    if checkpoint.members:
        of = f"{checkpoint.how} of {', '.join(sorted(checkpoint.members))}"
    elif not checkpoint.pictures:
        of = "a base"
    figures = ", ".join(f"{k} {v:.4g}" for k, v in checkpoint.metrics.items())
    click.echo(f"{out}: {checkpoint.architecture}, {what}, {of}{figures and f', {figures}'}")
    if predictions:
        click.echo(f"predictions: {predictions}")
