"""Commands of plugins, which refuse to run if the configuration denies their plugin.

The configuration is read only when such a command runs, to keep ``--help`` cheap.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command_name, get_group, solve_typer_info_defaults

from voicecall.errors import ConfigError, PluginError
from voicecall.registry import Registry

from .commandline import CommandLine
from .plugins import described_plugin

__all__ = ["add_plugin_commands"]


def add_plugin_commands(
    registry: Registry, app: typer.Typer, plugin_id: str, *, trial: bool = False
) -> None:
    """Let a plugin add its commands to ``app``: all of them, or none if it fails.

    Raises what loading the plugin and its hook raise, and :exc:`PluginError` for a taken name.
    With ``trial`` it also builds the commands, which otherwise happens later, and raises what that
    raises.
    """
    module, _ = described_plugin(registry, plugin_id)
    own = typer.Typer()
    registry.hooks.commands(module, own)
    if taken := sorted(_names(own) & _names(app)):
        raise PluginError(
            f"the commands of the plugin {plugin_id!r} cannot be added: there is already"
            f" `voicecall {taken[0]}`"
        )
    if trial:
        get_group(own)
    _guard(own, plugin_id)
    app.registered_commands += own.registered_commands
    app.registered_groups += own.registered_groups


def _names(app: typer.Typer) -> set[str]:
    """The names of the commands and groups of ``app``, without building them."""
    commands = {
        one.name or get_command_name(getattr(one.callback, "__name__", ""))
        for one in app.registered_commands
    }
    return commands | {solve_typer_info_defaults(one).name or "" for one in app.registered_groups}


def _guard(app: typer.Typer, plugin_id: str) -> None:
    for command in app.registered_commands:
        command.cls = _guarded(command.cls or TyperCommand, plugin_id)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _guard(group.typer_instance, plugin_id)


def _guarded(base: type[TyperCommand], plugin_id: str) -> type[TyperCommand]:
    class Guarded(base):  # type: ignore[misc, valid-type]
        def invoke(self, ctx: Any) -> Any:
            _refuse_denied(ctx, plugin_id)
            return super().invoke(ctx)

    return Guarded


def _refuse_denied(context: Any, plugin_id: str) -> None:
    line = context.find_root().obj
    if not isinstance(line, CommandLine):
        return
    try:
        loaded = line.load_config(context.params.get("config"))
    except ConfigError:
        # The command itself decides whether it needs that configuration.
        return
    if loaded.denied(plugin_id):
        raise PluginError(
            f"this command belongs to the plugin {plugin_id!r}, which plugins.deny or"
            f" plugins.allow in {loaded.source} denies"
        )
