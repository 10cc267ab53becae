"""Commands of plugins, which refuse to act where the configuration denies their plugin.

The configuration is read when such a command runs, not before: ``--help`` must stay cheap.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from voicecall.errors import ConfigError, PluginError
from voicecall.registry import Registry

from .commandline import CommandLine
from .plugins import GROUP

__all__ = ["add_plugin_commands"]


def add_plugin_commands(registry: Registry, app: typer.Typer, plugin_id: str) -> None:
    """Let a plugin add its commands to ``app``. Raises what loading the plugin raises."""
    commands, groups = len(app.registered_commands), len(app.registered_groups)
    registry.hooks.commands(registry.module(GROUP, plugin_id), app)
    _guard(app, plugin_id, commands, groups)


def _guard(app: typer.Typer, plugin_id: str, commands: int = 0, groups: int = 0) -> None:
    """Guard the commands and groups of ``app`` from these positions on."""
    for command in app.registered_commands[commands:]:
        command.cls = _guarded(command.cls or TyperCommand, plugin_id)
    for group in app.registered_groups[groups:]:
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
        # Whether the command needs that configuration is its own matter.
        return
    if loaded.denied(plugin_id):
        raise PluginError(
            f"this command belongs to the plugin {plugin_id!r}, which plugins.deny or"
            f" plugins.allow in {loaded.source} denies"
        )
