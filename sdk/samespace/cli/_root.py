"""The root command: its own sub-commands, and those that other packages bring."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import click

from samespace.cli import EXIT_ERROR, EXIT_INTERRUPTED
from samespace.cli._output import console, is_helper
from samespace_edge import SamespaceError

GROUP = "samespace.commands"

_OWN = {
    "adapter": "samespace.cli.adapter:adapter",
    "bundle": "samespace.cli.bundle:bundle",
    "cluster": "samespace.cli.cluster:cluster",
    "data": "samespace.cli.data:data",
    "embed": "samespace.cli.embed:embed",
    "gallery": "samespace.cli.gallery:gallery",
    "index": "samespace.cli.index:index",
    "parity": "samespace.cli.parity:parity_command",
    "plan": "samespace.cli.plan:plan",
    "regressions": "samespace.cli.regressions:regressions",
    "serve": "samespace.cli.serve:serve",
    "upgrade": "samespace.cli.upgrade:upgrade",
    "verify": "samespace.cli.verify:verify_command",
}


class _Root(click.Group):
    """Loads a sub-command when it is called, so that `embed` never waits for torch."""

    def _commands(self) -> dict[str, str | EntryPoint]:
        found: dict[str, str | EntryPoint] = dict(_OWN)
        found.update({e.name: e for e in entry_points(group=GROUP)})
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = self._commands().get(cmd_name)
        if where is None:
            return None
        if isinstance(where, EntryPoint):
            command: Any = where.load()
        else:
            module, name = where.split(":")
            command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Root)
@click.version_option(version("samespace"))
def root() -> None:
    """Visual search across cloud, edge and every later model, in one embedding space.

    \b
    Example:
      samespace demo                      the whole job on the data that is shipped with it
      samespace demo --data my.csv        the same on pictures of your own

    \b
    Exit codes: 0 done; 1 the answer is no (gate, check or dataset did not pass); 2 wrong usage;
    3 could not be done, see the message; 130 interrupted, run again to resume.
    """


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if is_helper():
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            return _run(arguments)
    return _run(arguments)


def _run(arguments: list[str] | None) -> int:
    try:
        result = root.main(arguments, prog_name="samespace", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as error:
        error.show()
        return int(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        console(stderr=True).print("interrupted")
        return EXIT_INTERRUPTED
    except SamespaceError as error:
        console(stderr=True).print(f"samespace: {error}", markup=False)
        return EXIT_ERROR
    except OSError as error:
        if error.filename is None:
            raise
        console(stderr=True).print(f"samespace: {error.filename}: {error.strerror}", markup=False)
        return EXIT_ERROR
    return int(result) if isinstance(result, int) else 0
