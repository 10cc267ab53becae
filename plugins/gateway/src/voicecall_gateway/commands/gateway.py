"""``voicecall gateway run``, ``status`` and ``reload``."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from voicecall_gateway.commandline import CommandLine, ConfigOption, JsonOption, command_line
from voicecall_gateway.output import OutputLost, print_json, print_text

if TYPE_CHECKING:
    from voicecall_gateway.config import LoadedConfig
    from voicecall_gateway.runtime import Gateway

__all__ = ["add"]

RELOAD_SECONDS = 60.0


def add(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Run the gateway, or ask for its state.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command("run")(run)
    group.command("status")(status)
    group.command("reload")(reload)
    app.add_typer(group, name="gateway")


def run(context: typer.Context, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Run the gateway in the foreground until SIGTERM or Ctrl-C."""
    if not os.isatty(0):
        # Without a terminal SIGHUP means "reload". Until the handler is installed it is ignored:
        # the configuration is about to be read anyway.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    line = command_line(context)
    if not _serve(line, config, line.load_config(config), json):
        raise typer.Exit(1)


def _serve(line: CommandLine, config: Path | None, loaded: LoadedConfig, json: bool) -> bool:
    import anyio

    from voicecall_gateway.auth import existing_token
    from voicecall_gateway.config import config_file
    from voicecall_gateway.eventloop import new_event_loop
    from voicecall_gateway.leaving import LEAVE_SECONDS, leave
    from voicecall_gateway.logs import Mask, configure_logging, credentials_in
    from voicecall_gateway.runtime import Gateway, serve

    token = existing_token(loaded.gateway, line.environ, loaded.state_dir)
    mask = Mask([*credentials_in(loaded.tree), *([token] if token else [])])
    configure_logging(loaded.state_dir, mask)

    def opened(gateway: Gateway) -> None:
        # On the first start the token has only just been generated.
        mask.add([gateway.token] if gateway.token else [])
        # A closed stdout is no reason to stop.
        with contextlib.suppress(OutputLost):
            _announce(gateway, json)

    async def body() -> bool:
        gateway = Gateway(
            loaded,
            line.registry,
            environ=line.environ,
            on_secrets=mask.add,
            reload=lambda: line.load_config(config),
            watch=config_file(config, line.environ),
        )
        orderly = await serve(gateway, announce=opened, limit=partial(leave, 1))
        leave(int(not orderly), LEAVE_SECONDS)
        return orderly

    return anyio.run(body, backend_options={"loop_factory": new_event_loop})


def _announce(gateway: Gateway, json: bool) -> None:
    if json:
        print_json(
            {
                "url": gateway.url,
                "pid": os.getpid(),
                "config": gateway.loaded.source,
                "stateDir": str(gateway.loaded.state_dir),
            }
        )
    else:
        print_text(f"the voicecall gateway listens on {gateway.url}")


def status(context: typer.Context, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show whether the gateway is ready and, if not, why. Exit 1 if it is not."""
    with command_line(context).connect(config) as client:
        answer = client.call("gateway.status")
    if json:
        print_json(answer)
    else:
        state = "ready" if answer["ready"] else "not ready"
        print_text(f"voicecall gateway {answer['version']} on {answer['url']}: {state}")
        for reason in answer["reasons"]:
            print_text(f"  {reason}")
        for text in answer["waiting"]:
            print_text(f"  waiting: {text}")
    if not answer["ready"]:
        raise typer.Exit(1)


def reload(context: typer.Context, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Let the running gateway read its configuration again. Exit 1 if it is refused, or if the
    gateway is not ready with it."""
    with command_line(context).connect(config, timeout=RELOAD_SECONDS) as client:
        answer = client.call("gateway.reload")
        reasons = client.call("gateway.status")["reasons"]
    if json:
        print_json(answer | ({"reasons": reasons} if reasons else {}))
    else:
        if answer["applied"]:
            print_text(f"in force: {', '.join(answer['applied'])}")
        elif not (answer["waiting"] or answer.get("refused")):
            print_text("in force: no changes for any plugin since the file was last applied")
        for text in answer["waiting"]:
            print_text(f"waiting: {text}")
        for text in reasons:
            print_text(f"not ready: {text}")
    if answer.get("refused") or reasons:
        raise typer.Exit(1)
