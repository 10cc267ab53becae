"""Commands to try things out: smoke and demo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from voicecall_calls.commands.calls import MessageOption, ModeOption, ToOption
from voicecall_calls.commands.requests import DIAL_TIMEOUT_S, request
from voicecall_gateway.commandline import ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_json, print_text

__all__ = ["add"]

_SMOKE_MESSAGE = "This is a voicecall smoke test. If you can hear this, calls work. Goodbye."


def add(app: typer.Typer) -> None:
    app.command("smoke")(smoke)
    app.command("demo")(demo)


def smoke(
    context: typer.Context,
    to: ToOption = None,
    message: MessageOption = _SMOKE_MESSAGE,
    mode: ModeOption = "notify",
    yes: Annotated[bool, typer.Option("--yes", help="Really place the call.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Check the setup, then (with --to and --yes) place one short call."""
    from voicecall_gateway.commands.setup import setup_report

    report = setup_report(command_line(context), config)
    result: dict[str, Any] = {"ok": report["ok"], "setup": report}
    if report["ok"]:
        result["liveCall"] = bool(to and yes)
        if to and not yes:
            result["wouldCall"] = to
        elif to:
            params = {"to": to, "message": message, "mode": mode}
            started = request(context, config, "voicecall.start", params, timeout=DIAL_TIMEOUT_S)
            result["callId"] = started["callId"]
    if json:
        print_json(result)
    else:
        _smoke_text(result, to)
    if not report["ok"]:
        raise typer.Exit(1)


def _smoke_text(result: Mapping[str, Any], to: str | None) -> None:
    for check in result["setup"]["checks"]:
        print_text(f"{'OK' if check['ok'] else 'FAIL'} {check['id']}: {check['message']}")
    if "callId" in result:
        print_text(f"calling {to}, call id {result['callId']}")
    elif "wouldCall" in result:
        print_text(f"dry run: add --yes to call {to}")


def demo(
    context: typer.Context,
    say: Annotated[
        list[str] | None, typer.Option("--say", help="What the caller says (repeatable).")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", help="Where the stereo recording goes.")
    ] = "demo-call.wav",
    json: JsonOption = False,
) -> None:
    """Hold a phone conversation on this machine: no account, no key, no network."""
    from voicecall_calls.demo.run import run_demo

    status_code = run_demo(
        command_line(context).registry, sentences=say, output=output, as_json=json
    )
    if status_code:
        raise typer.Exit(status_code)
