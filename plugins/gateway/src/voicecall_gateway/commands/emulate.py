"""``voicecall emulate <carrier>``: a carrier's emulator in the foreground.

Emulators are entry points of the group ``voicecall.emulator``; each loads a callable
``run(port=, host=, auth_token=, tts=)`` that returns when it is stopped.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from voicecall.errors import PluginError
from voicecall_gateway.commandline import JsonOption, command_line
from voicecall_gateway.output import print_json

__all__ = ["GROUP", "add"]

GROUP = "voicecall.emulator"


def add(app: typer.Typer) -> None:
    app.command("emulate")(emulate)


def emulate(
    context: typer.Context,
    carrier: Annotated[str, typer.Argument(help="The carrier's id.")],
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port (default: the emulator's).")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    tts: Annotated[
        str | None, typer.Option(help="Speech provider for the voices of emulated phones.")
    ] = None,
    auth_token: Annotated[
        str | None, typer.Option("--auth-token", help="The account's token.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the emulator of a carrier until Ctrl-C."""
    start = command_line(context).registry.module(GROUP, carrier)
    if not callable(start):
        raise PluginError(f"{GROUP} {carrier!r} does not load a callable run(port, host, ...)")
    given: dict[str, Any] = {"port": port, "auth_token": auth_token, "tts": tts}
    options = {name: value for name, value in given.items() if value is not None}
    if json:
        print_json({"carrier": carrier, "host": host, "port": port})
    start(host=host, **options)
