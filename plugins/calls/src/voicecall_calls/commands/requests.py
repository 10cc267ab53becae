"""Requests to the running gateway; if none is running, this process becomes one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from voicecall.errors import VoicecallError
from voicecall_gateway.commandline import CommandLine, command_line
from voicecall_gateway.output import print_error

__all__ = ["DIAL_TIMEOUT_S", "request"]

DIAL_TIMEOUT_S = 40.0
_STANDALONE = "voicecall_calls.commands.standalone"
_REMOTE = "VOICECALL_GATEWAY_URL"
_STORED = frozenset(
    {
        "voicecall.status",
        "voicecall.latency",
        "voicecall.pairing.list",
        "voicecall.pairing.approve",
        "voicecall.pairing.revoke",
    }
)
"""Methods that need no phone."""
_RESULT = "voicecall.continue.result"
"""The method that only the gateway that was asked the question can answer."""
_NOTICE = "no gateway is running; this command serves the call itself until it is over"


def request(
    context: typer.Context,
    config: Path | None,
    method: str,
    params: Mapping[str, Any],
    *,
    timeout: float = 30.0,
) -> dict[str, Any]:
    """The payload of an RPC call.

    If nothing listens at the local gateway's address, the store answers requests that need only
    the store. For other requests this process becomes the gateway: it makes the call and, after
    the command has printed its result, serves until no call is live (or Ctrl-C), unless the call
    is refused. Any other failure (an error, a timeout, a refused token, an unreachable remote
    gateway) is an error.
    """
    from voicecall_gateway.client import GatewayUnreachable

    line = command_line(context)
    standalone = context.find_root().meta.get(_STANDALONE)
    if standalone is None:
        try:
            with line.connect(config) as gateway:
                return dict(gateway.call(method, params, timeout=timeout))
        except GatewayUnreachable as error:
            if error.lost or error.remote or os.environ.get(_REMOTE):
                raise
            if method == _RESULT:
                raise VoicecallError(
                    "the gateway has stopped, and the question is lost; ask again once one runs"
                    " (`voicecall gateway run`)"
                ) from None
        if method in _STORED:
            from voicecall_calls.commands.offline import answer

            return answer(line.load_config(config), line.registry, line.environ, method, params)
        refused = False
        try:
            standalone = _become_gateway(context, line, config)
            try:
                result: dict[str, Any] = standalone.call(method, params)
            except VoicecallError:
                refused = True
                raise
        finally:
            # A user who only mistyped something, or whose phone is off, need not read about
            # gateways.
            if not refused:
                print_error(_NOTICE)
    else:
        result = standalone.call(method, params)
    standalone.lasting = True
    return result


def _become_gateway(context: typer.Context, line: CommandLine, config: Path | None) -> Any:
    from voicecall_calls.commands.standalone import Standalone

    standalone = Standalone(line.load_config(config), line.registry, line.environ)
    root = context.find_root()
    root.meta[_STANDALONE] = standalone
    root.call_on_close(standalone.close)
    return standalone
