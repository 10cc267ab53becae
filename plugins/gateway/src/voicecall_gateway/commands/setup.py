"""``voicecall setup``: the checks of all plugins, run in this process without a gateway."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voicecall.errors import VoicecallError
from voicecall_gateway.commandline import CommandLine, ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_json, print_text

from .config import print_remarks, remarks, setup_context

if TYPE_CHECKING:
    from voicecall.hosting import SetupCheck, SetupContext
    from voicecall_gateway.config import LoadedConfig

__all__ = ["add", "setup_report"]


ProbeOption = Annotated[
    bool,
    typer.Option(
        "--probe", help="Also query the carrier and fetch the public URL. Places no call."
    ),
]


def add(app: typer.Typer) -> None:
    app.command("setup")(setup)


def setup(
    context: typer.Context,
    config: ConfigOption = None,
    probe: ProbeOption = False,
    json: JsonOption = False,
) -> None:
    """Check that everything is in place for calls. Exit 1 if it is not."""
    report = setup_report(command_line(context), config, probe=probe)
    if json:
        print_json(report)
    else:
        print_text(f"voicecall setup: {'OK' if report['ok'] else 'needs attention'}")
        for check in report["checks"]:
            print_text(f"{'OK' if check['ok'] else 'FAIL'} {check['id']}: {check['message']}")
        print_remarks(report)
    if not report["ok"]:
        raise typer.Exit(1)


def setup_report(line: CommandLine, config: Path | None, *, probe: bool = False) -> dict[str, Any]:
    """``{ok, checks: [{id, ok, message}], warnings, notes}``; the last two are lists of sentences.
    ``probe`` adds the checks that contact other servers. Raises
    :exc:`voicecall.errors.ConfigError` for a file that cannot be used at all."""
    from voicecall.hosting import SetupCheck
    from voicecall_gateway.plugins import load_plugin, plugin_ids

    loaded = line.load_config(config)
    context = setup_context(line, loaded)
    checks: list[SetupCheck] = []
    for plugin_id in plugin_ids(line.registry):
        if loaded.denied(plugin_id):
            continue
        plugin = load_plugin(line.registry, plugin_id)
        broken = SetupCheck(f"plugin:{plugin_id}", False, plugin.error or "")
        found = [broken]
        if plugin.module is not None:
            found = _checks(line, plugin_id, plugin.module, context)
            if probe:
                found += _probed(line, plugin_id, plugin.module, context)
        # That a plugin cannot be checked only matters if it is enabled.
        checks += [c for c in found if c.id != broken.id or loaded.enabled(plugin_id)]
    if not checks:
        checks.append(SetupCheck("plugins", False, _why_none(plugin_ids(line.registry), loaded)))
    told = " ".join(check.message for check in checks)
    checks += [check for check in _place(line, loaded) if check.message not in told]
    return {
        "ok": all(check.ok for check in checks),
        "checks": [
            {"id": c.id, "ok": c.ok, "message": loaded.secrets.explain(c.message)} for c in checks
        ],
        **remarks(line, loaded),
    }


def _place(line: CommandLine, loaded: LoadedConfig) -> Iterator[SetupCheck]:
    """Problems with the state directory or the admin port that would keep the gateway or its agents
    from starting."""
    from voicecall.hosting import SetupCheck
    from voicecall_gateway.auth import existing_token
    from voicecall_gateway.logs import log_file
    from voicecall_gateway.server import port_problem
    from voicecall_gateway.writable import why_unwritable

    state_dir = loaded.state_dir.absolute()
    log, agents = log_file(state_dir), state_dir / "agents"
    needed: dict[Path, Sequence[str]] = {log.parent: (log.name,)}
    if os.path.lexists(agents):
        needed[agents] = ("history.db", "history.db-wal", "history.db-shm")
    try:
        token = existing_token(loaded.gateway, line.environ, state_dir)
        if token is None and loaded.gateway.auth.mode != "none":
            needed[state_dir] = ()
    except VoicecallError as error:
        yield SetupCheck("gateway-token", False, str(error))
    whys = (why_unwritable(directory, files) for directory, files in needed.items())
    for why in dict.fromkeys(whys):
        if why is not None:
            yield SetupCheck("state-directory", False, why)
    if (why := port_problem(loaded.gateway.bind, loaded.gateway.port)) is not None:
        yield SetupCheck("admin-port", False, why)


def _why_none(installed: Sequence[str], loaded: LoadedConfig) -> str:
    """Why there was nothing to check."""
    if not installed:
        return "no gateway plugin is installed"
    if not all(loaded.denied(plugin_id) for plugin_id in installed):
        return "no gateway plugin has anything to check"
    names = ", ".join(installed)
    return f"plugins.allow and plugins.deny allow none of the installed plugins: {names}"


def _checks(
    line: CommandLine, plugin_id: str, module: object, context: SetupContext
) -> list[SetupCheck]:
    from voicecall.hosting import SetupCheck

    try:
        return list(line.registry.hooks.setup_checks(module, context))
    except VoicecallError as error:
        return [SetupCheck(f"plugin:{plugin_id}", False, str(error))]
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's hook)
        text = f"its checks failed: {type(error).__name__}: {error}"
        return [SetupCheck(f"plugin:{plugin_id}", False, text)]


def _probed(
    line: CommandLine, plugin_id: str, module: object, context: SetupContext
) -> list[SetupCheck]:
    import anyio

    from voicecall.hosting import SetupCheck

    async def run() -> list[SetupCheck]:
        found: list[SetupCheck] = []
        for each in line.registry.hooks.setup_probes(module, context):
            found += await each.run()
        if not all(isinstance(check, SetupCheck) for check in found):
            raise TypeError("a probe must return a sequence of SetupCheck")
        return found

    try:
        return anyio.run(run)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's hook)
        text = f"its probes failed: {type(error).__name__}: {error}"
        return [SetupCheck(f"plugin:{plugin_id}", False, text)]
