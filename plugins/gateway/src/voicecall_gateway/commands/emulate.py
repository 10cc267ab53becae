"""``voicecall emulate <carrier>``: run a carrier's emulator in the foreground.

Emulators are entry points of the group ``voicecall.emulator``. Each one is a callable
``run(port=, host=, auth_token=, tts=)`` that returns when the emulator is stopped.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import sys
from typing import Annotated

import typer

from voicecall import ProviderKind
from voicecall.errors import InvalidRequest, PluginError, VoicecallError
from voicecall_gateway.commandline import JsonOption, command_line
from voicecall_gateway.output import print_json

__all__ = ["GROUP", "add"]

GROUP = "voicecall.emulator"


def add(app: typer.Typer) -> None:
    app.command("emulate")(emulate)


def emulate(
    context: typer.Context,
    carrier: Annotated[str, typer.Argument(help="The carrier's id.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port (0: any free one).")] = 0,
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
    for option, value in (("--host", host), ("--tts", tts), ("--auth-token", auth_token)):
        # An empty host would mean all addresses of this machine.
        if value is not None and not value.strip():
            raise InvalidRequest(f"{option} is empty; give it a value, or leave it out")
    registry = command_line(context).registry
    emulators = [found.id for found in registry.found(GROUP)]
    if carrier not in emulators and carrier in registry.ids(ProviderKind.TELEPHONY):
        raise PluginError(
            f"no emulator of {carrier!r} is installed, only the carrier itself (emulators: "
            f"{', '.join(emulators) or 'none'}); one may come in a separate package"
        )
    start = registry.module(GROUP, carrier)
    options = {"host": host, "auth_token": auth_token, "tts": tts}
    if not _takes(start, "port", *options):
        what = "run(port=, host=, auth_token=, tts=)"
        raise PluginError(f"{GROUP} {carrier!r} does not load a callable {what}")
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "this is not a host name"
        raise VoicecallError(f"the emulator cannot listen on {host}: {why}") from None
    try:
        if json:
            port = _free_port(host, port)
            print_json({"carrier": carrier, "host": host, "port": port})
        # Nothing that the emulator prints may follow the document.
        with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
            start(port=port, **options)
    except OSError as error:
        # Not error.strerror, to which Python may have added the address.
        reason = os.strerror(error.errno) if error.errno else error
        raise VoicecallError(
            f"the emulator cannot listen on {host} port {port}: {reason}"
        ) from None


def _takes(start: object, *names: str) -> bool:
    """Whether ``start`` is a plain (not async) callable that accepts these argument names."""
    if not callable(start) or inspect.iscoroutinefunction(start):
        return False
    try:
        inspect.signature(start).bind(**dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _free_port(host: str, port: int) -> int:
    """``port`` or, for 0, any other that is free now: an emulator does not report the port that it
    chooses. Raises ``OSError`` if it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        free: int = listener.getsockname()[1]
    return free
