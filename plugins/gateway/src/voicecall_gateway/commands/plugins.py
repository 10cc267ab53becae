"""``voicecall plugins list``, ``enable`` and ``disable``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voicecall.errors import InvalidRequest, VoicecallError
from voicecall_gateway.commandline import CommandLine, ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_json, print_table, print_text

if TYPE_CHECKING:
    from voicecall_gateway.config import LoadedConfig

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    group = typer.Typer(help="Gateway plugins.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_plugins)
    group.command("enable")(enable)
    group.command("disable")(disable)
    app.add_typer(group, name="plugins")


PluginId = Annotated[str, typer.Argument(metavar="ID", help="The plugin's id.")]


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
            except VoicecallError as problem:
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


def enable(
    context: typer.Context,
    plugin_id: PluginId,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Enable a plugin in the configuration file."""
    _switch(command_line(context), config, plugin_id, True, json)


def disable(
    context: typer.Context,
    plugin_id: PluginId,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Disable a plugin in the configuration file."""
    _switch(command_line(context), config, plugin_id, False, json)


def _switch(
    line: CommandLine, config: Path | None, plugin_id: str, enabled: bool, json: bool
) -> None:
    from voicecall_gateway.config import config_file
    from voicecall_gateway.configfile import editable_text, instead, write_text
    from voicecall_gateway.json5edit import CannotEdit, set_key
    from voicecall_gateway.plugins import plugin_ids

    loaded = line.load_config(config)
    installed = plugin_ids(line.registry)
    if plugin_id not in installed and (enabled or plugin_id not in loaded.plugins.entries):
        raise InvalidRequest(_unknown(plugin_id, installed))
    file = config_file(config, line.environ)
    edits = _edits(loaded, plugin_id, enabled) if loaded.enabled(plugin_id) is not enabled else []
    try:
        text = editable_text(file) if edits else ""
        for path, value in edits:
            text = set_key(text, path, value)
    except CannotEdit as error:
        raise instead(error, edits, file) from None
    backup = write_text(file, text) if edits else None
    word = "enabled" if enabled else "disabled"
    if json:
        report = {"id": plugin_id, "enabled": enabled, "changed": bool(edits), "file": str(file)}
        print_json(report | ({"backup": str(backup)} if backup is not None else {}))
    elif not edits:
        print_text(f"{plugin_id} is {word} already")
    else:
        print_text(f"{plugin_id} is {word} in {file}")


def _edits(
    loaded: LoadedConfig, plugin_id: str, enabled: bool
) -> list[tuple[tuple[str, ...], Any]]:
    """Paths and values to write. The lists are changed only if they would prevent the switch."""
    edits: list[tuple[tuple[str, ...], Any]] = []
    plugins = loaded.plugins
    if enabled and plugin_id in plugins.deny:
        edits.append((("plugins", "deny"), [other for other in plugins.deny if other != plugin_id]))
    if enabled and plugins.allow is not None and plugin_id not in plugins.allow:
        edits.append((("plugins", "allow"), [*plugins.allow, plugin_id]))
    entry = plugins.entries.get(plugin_id)
    if not enabled or (entry is not None and not entry.enabled):
        edits.append((("plugins", "entries", plugin_id, "enabled"), enabled))
    return edits


def _unknown(plugin_id: str, installed: list[str]) -> str:
    from voicecall.wording import did_you_mean

    names = ", ".join(installed) or "none"
    hint = did_you_mean(plugin_id, installed)
    return f"no gateway plugin {plugin_id!r} is installed (installed: {names}){hint}"
