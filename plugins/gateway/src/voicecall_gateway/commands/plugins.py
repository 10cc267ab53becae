"""``voicecall plugins list``."""

from __future__ import annotations

from typing import Any

import typer

from voicecall.errors import ConfigError
from voicecall_gateway.commandline import CommandLine, ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_json, print_table

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    group = typer.Typer(help="Gateway plugins.", no_args_is_help=True, rich_markup_mode=None)

    # A group with a single command would otherwise be that command.
    @group.callback()
    def plugins() -> None: ...

    group.command("list")(list_plugins)
    app.add_typer(group, name="plugins")


def list_plugins(
    context: typer.Context, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """List the installed gateway plugins with their state."""
    rows = _rows(command_line(context), config)
    if json:
        print_json({"plugins": rows})
        return
    print_table(
        ["ID", "PACKAGE", "VERSION", "STATE"],
        [[row["id"], row["package"], row["version"], _word(row)] for row in rows],
    )


def _rows(line: CommandLine, config: Any) -> list[dict[str, Any]]:
    from voicecall_gateway.pluginconfig import plugin_config
    from voicecall_gateway.plugins import GROUP, load_plugins

    loaded = line.load_config(config)
    packages = {found.id: found for found in line.registry.found(GROUP)}
    rows = []
    for plugin in load_plugins(line.registry, loaded):
        error = plugin.error
        if plugin.enabled and error is None:
            try:
                plugin_config(line.registry, loaded, plugin.id)
            except ConfigError as problem:
                error = str(problem)
        row: dict[str, Any] = {
            "id": plugin.id,
            "package": packages[plugin.id].source,
            "version": packages[plugin.id].version,
            "enabled": plugin.enabled,
            "ok": error is None,
        }
        if plugin.info is not None:
            row["label"] = plugin.info.label
        if error is not None:
            row["error"] = error
        rows.append(row)
    return rows


def _word(row: dict[str, Any]) -> str:
    if not row["enabled"]:
        return "disabled"
    return "ok" if row["ok"] else f"error: {row['error']}"
