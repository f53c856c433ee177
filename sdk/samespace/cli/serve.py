"""`samespace serve`: a gallery over HTTP, and the keys of those who may ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from samespace.cli._output import json_option, print_json, print_table
from samespace_edge import ConfigError


class _Serve(click.Group):
    """`serve GALLERY` runs the service; only `serve keys` is a sub-command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return None if name == "run" else name, command, rest


@click.group(cls=_Serve)
def serve() -> None:
    """Serve a gallery over HTTP."""


@serve.command(hidden=True)
@click.argument("gallery")
@click.option("--bundle", "bundles", multiple=True, help="A bundle that embeds pictures here.")
@click.option("--offer", "offers", multiple=True, help="A bundle that readers may download.")
@click.option("--page", help="Serve a web page that embeds with this bundle, in the browser.")
@click.option("--images", help="Folder of the items' pictures, for the page.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="0 for any free one.")
@click.option("--workers", default=1, show_default=True, help="Processes over the gallery.")
@click.option("--keys", help="File of the keys; by default in the gallery's folder.")
@click.option("--no-keys", is_flag=True, help="Let everybody read and write.")
@click.option("--rate", type=float, help="Requests a second for every key; 0: any.  [100]")
@click.option("--burst", type=int, help="Requests at once after a pause.  [200]")
@click.option("--concurrency", type=int, help="Requests that a worker holds.  [64]")
@click.option("--threads", type=int, help="Requests that a worker works on.  [4]")
@click.option("--connections", type=int, help="Connections that a worker serves.  [500]")
@click.option("--max-body", type=int, help="Largest body, in bytes.  [16 MiB]")
@click.option("--max-pixels", type=int, help="Largest picture, in pixels.  [25,000,000]")
@click.option("--max-batch", type=int, help="Most vectors, pictures or ids at once.  [256]")
@click.option("--max-hits", type=int, help="Most hits at once: queries times k.  [20,000]")
@click.option("--body-timeout", type=float, help="Seconds for a body to arrive.  [10]")
@click.option("--request-timeout", type=float, help="Seconds for the work.  [30]")
@click.option("--head-timeout", type=float, help="Seconds for a head to arrive.  [10]")
@click.option("--busy-timeout", type=float, help="Seconds to wait for another writer.  [10]")
@click.option("--canary-every", type=float, help="Seconds between recall canaries.  [300]")
def run(
    gallery: str,
    bundles: tuple[str, ...],
    offers: tuple[str, ...],
    host: str,
    port: int,
    workers: int,
    **settings: Any,
) -> None:
    """Serve GALLERY (a folder, or milvus://host/NAME) over HTTP until SIGTERM.

    `serve keys` manages who may ask.

    Logs are JSON lines on stderr. On any address but this machine's own, keys are needed.

    \b
    Example:
      samespace serve shop --bundle cloud.bundle --offer edge.bundle
      samespace serve shop --bundle cloud.bundle --page edge.bundle --images photos
      samespace serve keys add shop --name phone --scope read
      samespace serve shop --bundle cloud.bundle --host 0.0.0.0 --workers 2
    """
    try:
        from samespace.service import ServiceConfig
        from samespace.service import serve as run_service
    except ImportError as error:
        raise ConfigError(
            f'the service needs {error.name}: pip install "samespace[serve]"'
        ) from None
    chosen = {name: value for name, value in settings.items() if value is not None}
    config = ServiceConfig(gallery, bundles, offers, **chosen)
    run_service(config, host, port, workers)


@serve.group()
def keys() -> None:
    """Who may ask a gallery's service."""


_file = click.option("--keys", "file", help="File of the keys; by default in the gallery's folder.")


@keys.command()
@click.argument("gallery")
@click.option("--name", required=True, help="A label, which the logs show.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["read", "write"]),
    default=("read",),
    show_default=True,
    help="read: search and look; write: add and delete.",
)
@_file
@json_option
def add(gallery: str, name: str, scopes: tuple[str, ...], file: str | None, as_json: bool) -> None:
    """Make a key for GALLERY and print it: this once, for only its hash is kept.

    \b
    Example:
      samespace serve keys add shop --name phone
      samespace serve keys add shop --name import --scope read --scope write
    """
    from samespace.service._keys import add_key

    key = add_key(_path(gallery, file), name, scopes)
    if as_json:
        print_json({"name": name, "scopes": sorted(set(scopes)), "key": key})
    else:
        click.echo(key)


@keys.command("list")
@click.argument("gallery")
@_file
@json_option
def list_keys(gallery: str, file: str | None, as_json: bool) -> None:
    """List the keys of GALLERY, without their secrets.

    \b
    Example:
      samespace serve keys list shop
    """
    from samespace.service._keys import read_keys

    found = read_keys(_path(gallery, file))
    if as_json:
        print_json(
            [{"name": k.name, "id": k.id, "scopes": k.scopes, "made": k.made} for k in found]
        )
        return
    print_table(
        ["name", "id", "scopes", "made"],
        [(k.name, k.id, ", ".join(k.scopes), k.made) for k in found],
    )


@keys.command()
@click.argument("gallery")
@click.argument("name")
@_file
@json_option
def revoke(gallery: str, name: str, file: str | None, as_json: bool) -> None:
    """Revoke the key NAME (or its id) of GALLERY; running services follow within a second.

    \b
    Example:
      samespace serve keys revoke shop phone
    """
    from samespace.service._keys import revoke_key

    revoke_key(_path(gallery, file), name)
    if as_json:
        print_json({"revoked": name})
    else:
        click.echo(f"{name} is revoked")


def _path(gallery: str, file: str | None) -> Path:
    from samespace.gallery._store import DATABASE
    from samespace.service._config import KEYS_FILE, is_in_a_server

    if file is None and is_in_a_server(gallery):
        raise ConfigError(f"{gallery} has no folder for keys; name their file with --keys")
    if file is None and not (Path(gallery) / DATABASE).exists():
        raise ConfigError(f"there is no gallery at {gallery}; name it, or a file with --keys")
    return Path(file) if file else Path(gallery) / KEYS_FILE
