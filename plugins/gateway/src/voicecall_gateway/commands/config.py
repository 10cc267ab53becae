"""``voicecall config check`` and ``voicecall config schema``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from voicecall.errors import ConfigError, VoicecallError
from voicecall_gateway.commandline import CommandLine, ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_error, print_json, print_text

if TYPE_CHECKING:
    from voicecall.hosting import PluginInfo, SetupContext
    from voicecall_gateway.config import LoadedConfig

__all__ = ["add", "config_report", "print_remarks", "remarks", "setup_context"]


def add(app: typer.Typer) -> None:
    group = typer.Typer(help="The configuration file.", no_args_is_help=True, rich_markup_mode=None)
    group.command("check")(check)
    group.command("schema")(schema)
    app.add_typer(group, name="config")


def check(context: typer.Context, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check the configuration. Exit 1 if it cannot be used."""
    report = config_report(command_line(context), config)
    if json:
        print_json(report)
    else:
        print_text(f"{report['file']}: {_verdict(report)}")
        for text in report["problems"]:
            print_text(f"problem: {text}")
        print_remarks(report)
    if not report["ok"]:
        raise typer.Exit(1)


def _verdict(report: Mapping[str, Any]) -> str:
    if not report["ok"]:
        return "needs attention"
    # Whoever wrote a file elsewhere must not read that it is in use.
    return "OK" if report["exists"] else "there is no such file; the defaults apply"


def schema(context: typer.Context, json: JsonOption = False) -> None:
    """Print the JSON schema of the configuration for the installed packages."""
    from voicecall_gateway.schema import configuration_schema

    document, problems = configuration_schema(command_line(context).registry)
    print_json(document)
    for text in problems:
        print_error(f"warning: {text}")


def config_report(line: CommandLine, config: Path | None) -> dict[str, Any]:
    """``{ok, file, exists, problems, warnings, notes}``; the last three are lists of sentences."""
    from voicecall_gateway.config import config_file
    from voicecall_gateway.jsonfile import file_exists
    from voicecall_gateway.pluginconfig import plugin_config
    from voicecall_gateway.plugins import load_plugins
    from voicecall_gateway.providerblocks import block_warnings

    file = config_file(config, line.environ)
    report: dict[str, Any] = {"ok": False, "file": str(file), "exists": False}
    try:
        report["exists"] = file_exists(file)
        loaded = line.load_config(config)
    except ConfigError as error:
        return {**report, "problems": [str(error)], "warnings": [], "notes": []}
    problems: list[str] = []
    without: list[str] = []
    for plugin in load_plugins(line.registry, loaded):
        if plugin.error is not None:
            problems.append(plugin.error)
        elif plugin.info is not None:
            try:
                own = plugin_config(line.registry, loaded, plugin.id)
            except VoicecallError as error:
                problems.append(str(error))
            else:
                found, lacking = _checked_sections(line, loaded, plugin.info, own)
                problems += found
                without += lacking
    told = remarks(line, loaded)
    blocks = block_warnings(line.registry, loaded, line.environ)
    # The block of a provider that is in use may be among the plugins' problems already.
    told["warnings"] += [*without, *(text for text in blocks if text not in problems)]
    return {**report, "ok": not problems, "problems": problems, **told}


def _checked_sections(
    line: CommandLine, loaded: LoadedConfig, info: PluginInfo, own: Any
) -> tuple[list[str], list[str]]:
    """Problems and warnings of a plugin with the file beyond its own configuration: what it cannot
    use, and what it does without."""
    if info.check_sections is None or not loaded.enabled(info.id):
        return [], []
    try:
        told = info.check_sections(own, setup_context(line, loaded)) or ()
        if not isinstance(told, list | tuple):
            raise TypeError(f"it returns {type(told).__name__}, not a sequence of strings")
    except VoicecallError as error:
        return [_of_file(loaded, str(error))], []
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's check)
        why = f"{type(error).__name__}: {error}"
        return [f"the plugin {info.id!r} cannot check the file: {why}"], []
    return [], [_of_file(loaded, str(text)) for text in told]


def _of_file(loaded: LoadedConfig, text: str) -> str:
    return f"{loaded.source}: {loaded.secrets.explain(text)}"


def setup_context(line: CommandLine, loaded: LoadedConfig) -> SetupContext:
    """What the checks of plugins can access."""
    from voicecall.hosting import SetupContext
    from voicecall_gateway.pluginconfig import plugin_config

    return SetupContext(
        registry=line.registry,
        plugin_config=lambda plugin_id: plugin_config(line.registry, loaded, plugin_id),
        section=loaded.section,
        enabled=loaded.enabled,
        environ=line.environ,
        state_dir=loaded.state_dir,
    )


def remarks(line: CommandLine, loaded: LoadedConfig) -> dict[str, list[str]]:
    """``{warnings, notes}``; a gateway logs the same when it starts."""
    from voicecall_gateway.pluginconfig import value_warnings
    from voicecall_gateway.plugins import load_plugins, missing_backends, missing_plugins
    from voicecall_gateway.providerblocks import misspelt_blocks

    plugins = load_plugins(line.registry, loaded)
    return {
        "warnings": [
            *loaded.warnings,
            *missing_plugins(line.registry, loaded),
            *misspelt_blocks(line.registry, loaded),
            *value_warnings(line.registry, loaded, plugins),
        ],
        "notes": [*loaded.notes, *missing_backends(line.registry, loaded)],
    }


def print_remarks(report: Mapping[str, Any]) -> None:
    """Print the warnings and notes of a report, one per line."""
    for word in ("warnings", "notes"):
        for text in report[word]:
            print_text(f"{word[:-1]}: {text}")
