"""`samespace embed`: pictures in, vectors out."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from samespace.cli._output import json_option, print_json, print_table, progress_bar
from samespace_edge import Embedder

_BATCH = 32


@click.command()
@click.argument("bundle")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write `paths` and `vectors` to a .npz."
)
@click.option("--variant", help="Which graph file, such as onnx-fp32.")
@json_option
def embed(
    bundle: str, images: tuple[str, ...], out: Path | None, variant: str | None, as_json: bool
) -> None:
    """Embed IMAGES with BUNDLE.

    \b
    Example:
      samespace embed edge.bundle cup.jpg mug.jpg --out vectors.npz
    """
    embedder = Embedder(bundle, variant=variant)
    parts = []
    with progress_bar() as progress:
        for start in range(0, len(images), _BATCH):
            parts.append(embedder.embed(images[start : start + _BATCH]))
            progress("embed", min(start + _BATCH, len(images)), len(images))
    vectors = np.concatenate(parts)
    if out:
        identity = embedder.identity.to_json()
        with out.open("wb") as file:
            np.savez(
                file,
                paths=np.array(images, np.str_),
                vectors=vectors,
                fingerprint=np.array(identity["fingerprint"]),
                variant_sha256=np.array(identity["variant_sha256"]),
            )
    if as_json:
        print_json(
            {
                "model": embedder.identity.to_json(),
                "vectors": [
                    {"path": p, "vector": [float(x) for x in v]}
                    for p, v in zip(images, vectors, strict=True)
                ],
            }
        )
    elif not out:
        print_table(
            ["picture", "vector"],
            [
                (p, " ".join(f"{x:+.3f}" for x in v[:6]) + " …")
                for p, v in zip(images, vectors, strict=True)
            ],
        )
    else:
        click.echo(f"{len(vectors)} vectors of width {embedder.dim} written to {out}")
