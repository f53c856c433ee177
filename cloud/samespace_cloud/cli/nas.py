"""`samespace nas`: a small architecture for a budget."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from samespace.cli._output import json_option, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from samespace_cloud.nas.evolution import SearchResult


@click.command()
@click.argument("dataset")
@click.option("--cloud", "cloud_path", required=True, help="Checkpoint of the cloud model.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the search.")
@click.option("--budget", help="How many times less than the cloud model, such as 80x.")
@click.option("--mmacs", type=float, help="Millions of multiply-accumulates for one picture.")
@click.option("--latency-ms", type=float, help="Median time of one picture on this machine.")
@click.option("--parameters", type=float, help="Number of weights, such as 200e3.")
@click.option("--space", default="elastic", show_default=True, help="elastic or shuffle.")
@click.option("--sizes", help="Sides of the input to choose from.  [default: 32,40,48,56,64]")
@click.option("--width", type=float, help="Of the shuffle space.  [default: 0.5]")
@click.option("--reward", default="r3", show_default=True, help="r1, r2 or r3.")
@click.option("--metric", default="map", show_default=True, help="map or recall_at_1.")
@click.option("--rule", help="uniform or sandwich.  [default: sandwich]")
@click.option("--train-within", type=float, help="Multiple of the budget that paths may cost.")
@click.option("--population", type=int, help="Candidates in a generation.  [default: 24]")
@click.option("--generations", type=int, help="The first is at random.  [default: 8]")
@click.option("--epochs", type=int, help="Of the supernet.  [default: 20]")
@click.option("--batch-size", type=int, help="Pictures in a step.  [default: 64]")
@click.option("--views", type=int, help="Views made of every picture.  [default: 4]")
@click.option("--lr", type=float, help="Peak learning rate.  [default: 0.001]")
@click.option("--val-share", type=float, help="Share of the labels to score on.  [default: 0.1]")
@click.option("--seed", default=0, show_default=True, help="Of everything.")
@json_option
def nas(
    dataset: str,
    cloud_path: str,
    out: Path,
    budget: str | None,
    mmacs: float | None,
    latency_ms: float | None,
    parameters: float | None,
    sizes: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Search DATASET for a small architecture that finds well in a cloud model's gallery.

    Ctrl-C stops it cleanly; the same command goes on. Another budget with the same --out starts
    from the same supernet.

    \b
    Example:
      samespace nas shop.csv --cloud runs/cloud --out runs/nas --budget 80x
      samespace nas shop.csv --cloud runs/cloud --out runs/nas --mmacs 3 --parameters 200e3
    """
    from samespace import Dataset
    from samespace_cloud.checkpoint import Checkpoint
    from samespace_cloud.config import TrainConfig
    from samespace_cloud.model import ModelConfig
    from samespace_cloud.nas.config import NasConfig
    from samespace_cloud.nas.evolution import Budget
    from samespace_cloud.nas.search import search_architecture

    if budget is None and mmacs is None and latency_ms is None and parameters is None:
        raise click.UsageError("say what may be spent: --budget, --mmacs, --latency-ms, ...")
    cloud = Checkpoint.load(cloud_path)
    limit = _mmacs(budget, mmacs, cloud)
    chosen = {k: settings.pop(k) for k in ("epochs", "batch_size", "views", "lr", "val_share")}
    said = {k: v for k, v in settings.items() if v is not None}
    if sizes:
        said["sizes"] = _integers(sizes)
    given = cloud.model.config
    train = TrainConfig(
        model=ModelConfig("edge-xs", 48, given.dim, given.policy),
        losses=(("cosine-regression", 1.0),),
        canvas=given.input_size,
        seed=settings["seed"],
        **({"views": 4} | {k: v for k, v in chosen.items() if v is not None}),
    )
    config = NasConfig(train, budget=Budget(limit, parameters, latency_ms), **said)
    with progress_bar() as progress:
        opened = Dataset.open(dataset)
        opened.validate(
            repeats=False, progress=lambda done, total: progress("check the data", done, total)
        )
        result = search_architecture(opened, config, cloud, out, progress=progress)
    _print(result, out, dataset, cloud_path, as_json)


def _mmacs(budget: str | None, mmacs: float | None, cloud: Any) -> float | None:
    if budget is None:
        return mmacs
    if mmacs is not None:
        raise click.UsageError("--budget and --mmacs say the same; give one of them")
    from samespace_cloud.backbones import macs

    try:
        times = float(budget.removesuffix("x"))
    except ValueError:
        times = 0.0
    if times <= 0 or not budget.endswith("x"):
        raise click.UsageError(f"--budget {budget!r} is not a multiple such as 80x")
    return macs(cloud.model, cloud.model.config.input_size) / 1e6 / times


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(x) for x in text.split(","))
    except ValueError:
        raise click.UsageError(f"--sizes {text!r} are not numbers with commas between") from None


def _print(result: SearchResult, out: Path, dataset: str, cloud_path: str, as_json: bool) -> None:
    import json

    found = json.loads((out / "architectures.json").read_text())
    best = found["best"]
    command = shlex.join(
        [
            *("samespace", "train", "edge", dataset, "--cloud", cloud_path, "--out", "runs/edge"),
            *("--backbone", best["backbone"], "--size", str(best["input_size"])),
        ]
    )
    if as_json:
        print_json({**found, "command": command})
        return
    columns = ("input", "MMACs", "parameters", result.reward, "M(q,q)", "M(q,g)")
    rows = [
        (
            f"{row['input_size']} px",
            f"{row['mmacs']:.2f}",
            f"{row['parameters']:,}",
            *(f"{row['scores'][k]:.4f}" for k in (result.reward, "m_qq", "m_qg")),
        )
        for row in found["pareto"]
    ]
    print_table(columns, rows, f"best for their cost, of {found['scored']} scored")
    click.echo(f"best: {best['backbone']} at {best['input_size']} px")
    click.echo(command)
