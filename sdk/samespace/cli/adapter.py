"""`samespace adapter`: fit maps between two models' vectors, and make bundles of them."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from samespace.adapters import (
    KINDS,
    MOST_PAIRS,
    AdapterFit,
    Quality,
    VectorFile,
    check_names,
    embed_train_pictures,
    fit_adapter,
    read_vectors,
)
from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace_edge import Adapter, Bundle, ConfigError

GROUP = "samespace.adapters"


@click.group()
def adapter() -> None:
    """Fit maps between two models' vectors, for models that were not trained to be compatible."""


@adapter.command()
@click.option("--source", help="Vectors of the source model (.npy, or .npz with `vectors`).")
@click.option("--target", help="Vectors of the target model, of the same pictures row by row.")
@click.option("--side", help="Side information, stored beside every source vector (.npy).")
@click.option("--source-model", help="Who made --source: a bundle, or a fingerprint.")
@click.option("--target-model", help="Who made --target: a bundle, or a fingerprint.")
@click.option("--side-model", help="Who made --side: a bundle, or a fingerprint.")
@click.option("--source-bundle", help="Instead of vectors: embed pictures with this bundle,")
@click.option("--target-bundle", help="with this one,")
@click.option("--side-bundle", help="for side information with this one,")
@click.option("--data", help="namely the train pictures of this dataset.")
@click.option("--pairs", default=MOST_PAIRS, show_default=True, help="Pictures taken at most.")
@click.option("--kind", type=click.Choice(list(KINDS)), default="affine", show_default=True)
@click.option("--rank", type=int, help="Low rank of the matrix (affine, mlp).")
@click.option("--hidden", type=int, help="Hidden units of the net (mlp).")
@click.option("--held-out", default=0.1, show_default=True, help="Share that only measures.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write.")
@json_option
def fit(
    source: str | None,
    target: str | None,
    side: str | None,
    source_model: str | None,
    target_model: str | None,
    side_model: str | None,
    source_bundle: str | None,
    target_bundle: str | None,
    side_bundle: str | None,
    data: str | None,
    pairs: int,
    kind: str,
    rank: int | None,
    hidden: int | None,
    held_out: float,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Fit an adapter from what two models made of the same pictures, and say how good it is.

    To lift old gallery vectors into a new model's space, the old model is the source. To search
    an old gallery with a new model, the new one is.

    \b
    Example:
      samespace adapter fit --source-bundle old.bundle --target-bundle new.bundle \\
        --data shop/manifest.csv --kind affine --out old-to-new.adapter
      samespace adapter fit --source old.npz --target new.npz --source-model old.bundle \\
        --target-model new.bundle --out old-to-new.adapter
    """
    options: dict[str, Any] = {
        "kind": kind,
        "rank": rank,
        "hidden": hidden,
        "held_out": held_out,
        "seed": seed,
    }
    if source and target and not (source_bundle or target_bundle or side_bundle or data):
        ours, theirs = read_vectors(source), read_vectors(target)
        check_names(ours, theirs)
        beside = read_vectors(side) if side else None
        if beside:
            check_names(ours, beside)
        found = fit_adapter(
            ours.vectors,
            theirs.vectors,
            source=_made_by(ours, source_model, "source"),
            target=_made_by(theirs, target_model, "target"),
            side=beside.vectors if beside else None,
            side_model=side_model or (beside.model if beside else None),
            data=f"{Path(source).name}, {Path(target).name}",
            **options,
        )
    elif source_bundle and target_bundle and data and not (source or target or side):
        if source_model or target_model or side_model:
            raise click.UsageError("--source-model, --target-model, --side-model: for vector files")
        named = {"source": source_bundle, "target": target_bundle, "side": side_bundle}
        bundles = {role: Bundle.open(path) for role, path in named.items() if path}
        with progress_bar() as progress:
            vectors = embed_train_pictures(bundles, data, most=pairs, progress=progress)
        found = fit_adapter(
            vectors["source"],
            vectors["target"],
            source=bundles["source"],
            target=bundles["target"],
            side=vectors.get("side"),
            side_model=bundles.get("side"),
            data=Path(data).name,
            **options,
        )
    else:
        raise click.UsageError(
            "name either --source and --target, or --source-bundle, --target-bundle and --data"
        )
    found.adapter.write(out)
    _print_fit(found, out, as_json)


def _made_by(file: VectorFile, named: str | None, role: str) -> Any:
    if named is None and file.model is None:
        raise click.UsageError(
            f"{file.path} does not say which model made it; name its bundle with --{role}-model, "
            "or, for a model without one, any sha256 that stands for it"
        )
    return named or file.model


def _print_fit(found: AdapterFit, out: Path, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "file": str(out),
                "adapter": found.adapter.header(),
                "held_out": found.held_out.to_json(),
                "unadapted": found.unadapted.to_json() if found.unadapted else None,
                "notes": list(found.notes),
            }
        )
        return
    title = f"{found.held_out.pairs} pairs held out"
    rows = [_figures(found.adapter.kind, found.held_out)]
    if found.unadapted:
        rows.append(_figures("vectors as they are", found.unadapted))
    print_table([title, "mean cosine with the target", "R@1 of the own target"], rows)
    for note in found.notes:
        click.echo(f"note: {note}")
    click.echo(f"{found.adapter!r} written to {out}")


def _figures(name: str, quality: Quality) -> tuple[str, str, str]:
    return (name, f"{quality.cosine:.4f}", f"{quality.recall_at_1:.3f}")


@adapter.command()
@click.argument("path")
@json_option
def show(path: str, as_json: bool) -> None:
    """Print what the adapter in the file PATH says of itself.

    \b
    Example:
      samespace adapter show old-to-new.adapter
    """
    found = Adapter.read(path)
    if as_json:
        print_json({**found.header(), "fingerprint": found.fingerprint.hex})
        return
    own = found.target == found.space
    by = f" by {found.side.hex}" if found.side else ""
    side = f", {found.side_dim} of side information{by}" if found.side_dim else ""
    cost = f"{found.layers.macs / 1e6:.3f} MMACs, {found.layers.parameters:,} parameters"
    print_table(
        ["", "value"],
        [
            ("kind", found.kind),
            ("takes", f"vectors of {found.source_dim}{side}, by {found.source.hex}"),
            ("imitates", f"vectors of {found.dim}, by {found.target.hex}"),
            ("space", "the target's own" if own else found.space.hex),
            ("makes vectors of", found.fingerprint.hex),
            ("cost", cost),
            *[(key, _told(value)) for key, value in found.fitted.items() if value],
        ],
    )


def _told(value: Any) -> str:
    """A value of `Adapter.fitted` on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_told(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(_told, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@adapter.command("bundle")
@click.argument("bundle_path", metavar="BUNDLE")
@click.argument("adapter_path", metavar="ADAPTER")
@click.argument("out")
@click.option("--side", help="The bundle that makes the side information, where ADAPTER takes it.")
@click.option("--name", help="A label; by default the bundle's and the adapter's kind.")
@click.option("--role", type=click.Choice(["edge", "cloud"]), default="edge", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the bundle OUT.")
@json_option
def bundle_command(
    bundle_path: str,
    adapter_path: str,
    out: str,
    side: str | None,
    name: str | None,
    role: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make the bundle OUT of the model in BUNDLE followed by ADAPTER; verify it like any other.

    The baseline to name is what one would have without it: the old model on both sides.

    \b
    Example:
      samespace adapter bundle old.bundle old-to-new.adapter lifted.bundle
      samespace verify --query lifted.bundle --gallery new.bundle --baseline old.bundle \\
        --data shop/manifest.csv --gate
    """
    adapt = _adapt_bundle()
    made = adapt(
        bundle_path, adapter_path, out, side=side, name=name, role=role, overwrite=overwrite
    )
    manifest = made.bundle.manifest
    if as_json:
        print_json(
            {
                "bundle": manifest.to_json(),
                "parity": [vars(p) for p in made.parity],
                "left_out": list(made.left_out),
            }
        )
        return
    print_table(
        ["file", "differs from the adapter by"],
        [(p.variant, f"{p.max_abs:.1e}") for p in made.parity],
    )
    for line in made.left_out:
        click.echo(f"left out: {line}")
    click.echo(f"{made.bundle!r} of space {manifest.space.short}… written to {out}")


def _adapt_bundle() -> Any:
    """The exporter's function: the SDK does not know the exporter, which needs more installed."""
    brought = entry_points(group=GROUP)
    try:
        return brought["bundle"].load()
    except (KeyError, ImportError):
        raise ConfigError(
            'making a bundle of an adapter needs the exporter: pip install "samespace[export]"'
        ) from None
