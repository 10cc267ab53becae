"""Commands to try things out: smoke and demo."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from voicecall.errors import InvalidRequest
from voicecall_calls.commands.calls import MessageOption, ModeOption, ToOption
from voicecall_calls.commands.requests import DIAL_TIMEOUT_S, request
from voicecall_gateway.commandline import ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_error, print_json, print_text

__all__ = ["add"]

_POLL_S = 0.5
_ANSWER_PATIENCE_S = 90.0
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
    """Check the setup, then (with --to and --yes) place one short call. Waits for its end; with
    --mode conversation, until it is answered."""
    from voicecall_gateway.commands.setup import setup_report

    _check_request(to, message, mode, yes)
    report = setup_report(command_line(context), config)
    result: dict[str, Any] = {"ok": report["ok"], "setup": report}
    if report["ok"]:
        result["liveCall"] = bool(to and yes)
        if to and not yes:
            _check_allowed(context, config, to)
            result["wouldCall"] = to
        elif to:
            params = {"to": to, "message": message, "mode": mode}
            started = request(context, config, "voicecall.start", params, timeout=DIAL_TIMEOUT_S)
            result["callId"] = started["callId"]
            if not json:
                _smoke_text(result, to)
            wanted = "endedAt" if mode == "notify" else "answeredAt"
            result["call"] = call = _outcome(context, config, started["callId"], wanted)
            result["ok"] = "answeredAt" in call
    if json:
        print_json(result)
    elif "call" in result:
        _call_text(result["call"])
    else:
        _smoke_text(result, to)
    if not result["ok"]:
        raise typer.Exit(1)


def _check_request(to: str | None, message: str, mode: str, yes: bool) -> None:
    """Check the parameters, for dry runs too."""
    from voicecall.model import CallMode
    from voicecall_calls.config import normalize_number

    if yes and not to:
        raise InvalidRequest("no call was placed: name the number with --to")
    if to and normalize_number(to) is None:
        raise InvalidRequest("to must be a phone number in E.164 form, such as +15550001234")
    if not message.strip():
        raise InvalidRequest("--message is empty; leave it out for the built-in one")
    if mode not in [known.value for known in CallMode]:
        raise InvalidRequest("mode must be notify or conversation")


def _check_allowed(context: typer.Context, config: Path | None, to: str) -> None:
    from voicecall_calls.config import PLUGIN_ID, normalize_number
    from voicecall_gateway.pluginconfig import plugin_config

    line = command_line(context)
    phone = plugin_config(line.registry, line.load_config(config), PLUGIN_ID)
    if not phone.outbound.allows(normalize_number(to)):
        raise InvalidRequest("to is not allowed by outbound.allowTo")


def _outcome(
    context: typer.Context, config: Path | None, call_id: str, wanted: str
) -> Mapping[str, Any]:
    """The call, once its field ``wanted`` is set or it is over, or when the patience runs out."""
    deadline = time.monotonic() + _ANSWER_PATIENCE_S
    while True:
        found = request(context, config, "voicecall.status", {"callId": call_id})
        call: Mapping[str, Any] = found.get("call", {})
        if wanted in call or "endedAt" in call or time.monotonic() > deadline:
            return call
        time.sleep(_POLL_S)


def _call_text(call: Mapping[str, Any]) -> None:
    why = ", ".join(call[key] for key in ("endReason", "endDetail") if key in call)
    if "answeredAt" in call:
        print_text(f"answered, and over: {why}" if "endedAt" in call else "answered")
    elif "endedAt" in call:
        print_error(f"not answered: {why}; `voicecall logs` says more")
    else:
        print_error("not answered yet; `voicecall status` shows how it continues")


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
        str, typer.Option("--output", help="File for the stereo recording.")
    ] = "demo-call.wav",
    json: JsonOption = False,
) -> None:
    """Hold a phone conversation on this machine: no account, no key, no network."""
    from voicecall_calls.demo.run import run_demo
    from voicecall_calls.parameters import text_in

    for text in say or ():
        if text_in({"--say": text}, "--say") is None:
            raise InvalidRequest("--say is empty; leave it out for the built-in story")
    status_code = run_demo(
        command_line(context).registry, sentences=say, output=output, as_json=json
    )
    if status_code:
        raise typer.Exit(status_code)
