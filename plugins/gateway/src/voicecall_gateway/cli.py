"""The ``voicecall`` command. Importing this module, and ``--help``, must stay cheap: commands
import what they need when they run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from voicecall.errors import VoicecallError
from voicecall.registry import Registry

from .commandline import CommandLine
from .commands import config, doctor, emulate, gateway, logs, plugins, providers, setup
from .leaving import LEAVE_SECONDS, leave
from .output import OutputLost, print_error, print_text, watched_output
from .plugincommands import add_plugin_commands
from .plugins import plugin_ids

__all__ = ["build_app", "main", "run"]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print_text(f"voicecall {version('voicecall-gateway')}")
        raise typer.Exit


def _voicecall(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Give an AI agent a telephone."""


def build_app(registry: Registry, *, trial: bool = False) -> typer.Typer:
    """The commands of the gateway and of every plugin that can be loaded; with ``trial``, plugins
    whose commands cannot be built are left out."""
    app = typer.Typer(
        name="voicecall",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_voicecall)
    for module in (gateway, providers, plugins, config, setup, doctor, logs, emulate):
        module.add(app)
    for plugin_id in plugin_ids(registry):
        try:
            add_plugin_commands(registry, app, plugin_id, trial=trial)
        except VoicecallError as error:
            print_error(f"warning: {error}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's hook)
            print_error(
                f"warning: the commands of the plugin {plugin_id!r} cannot be added:"
                f" {type(error).__name__}: {error}"
            )
    return app


def _command(registry: Registry) -> Any:
    try:
        return typer.main.get_command(build_app(registry))
    except Exception:  # noqa: BLE001 (a plugin's command, which is told of now)
        # Building all commands takes a tenth of the time of --help, so they are built twice only
        # here.
        return typer.main.get_command(build_app(registry, trial=True))


def run(arguments: Sequence[str], registry: Registry, environ: Mapping[str, str]) -> int:
    """Run one command and return its exit status. Errors are one sentence on stderr."""
    try:
        # Inside the try block because Ctrl-C may come while plugins are imported.
        with watched_output():
            _command(registry).main(
                args=list(arguments), prog_name="voicecall", obj=CommandLine(registry, environ)
            )
    except OutputLost as lost:
        if str(lost):
            print_error(str(lost))
        return 1
    except VoicecallError as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def main() -> None:
    """Entry point of the ``voicecall`` script."""
    status = run(sys.argv[1:], Registry(), os.environ)
    if threading.active_count() > 1:
        leave(status, LEAVE_SECONDS)
    sys.exit(status)
