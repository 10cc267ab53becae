"""Commands of the phone. They talk to the running gateway; nothing heavy is imported for help."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from voicecall.errors import VoicecallError
from voicecall_gateway.commandline import ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_json, print_table, print_text

__all__ = ["add_commands"]

_SMOKE_MESSAGE = "This is a voicecall smoke test. If you can hear this, calls work. Goodbye."
_DIAL_TIMEOUT_S = 40.0
_SPEAK_TIMEOUT_S = 180.0
_POLL_S = 1.0

CallIdOption = Annotated[str, typer.Option("--call-id", help="Id of the call.")]
MessageOption = Annotated[str, typer.Option("--message", "-m", help="What to say.")]
ToOption = Annotated[str | None, typer.Option("--to", "-t", help="Number to call (E.164).")]
ModeOption = Annotated[str, typer.Option("--mode", help="notify or conversation.")]


def add_commands(app: typer.Typer) -> None:
    for name, command in (
        ("call", call),
        ("continue", continue_),
        ("speak", speak),
        ("dtmf", dtmf),
        ("end", end),
        ("status", status),
        ("smoke", smoke),
        ("demo", demo),
    ):
        app.command(name)(command)


def _request(
    context: typer.Context,
    config: Any,
    method: str,
    params: Mapping[str, Any],
    *,
    timeout: float = 30.0,
) -> dict[str, Any]:
    with command_line(context).connect(config) as gateway:
        return dict(gateway.call(method, params, timeout=timeout))


def _given(**params: Any) -> dict[str, Any]:
    return {key: value for key, value in params.items() if value is not None}


def call(
    context: typer.Context,
    message: MessageOption,
    to: ToOption = None,
    mode: ModeOption = "conversation",
    dtmf_sequence: Annotated[
        str | None, typer.Option("--dtmf", help="Digits to play before connecting.")
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Call a number and say something."""
    params = _given(to=to, message=message, mode=mode, dtmfSequence=dtmf_sequence)
    method = "voicecall.start" if dtmf_sequence else "voicecall.initiate"
    result = _request(context, config, method, params, timeout=_DIAL_TIMEOUT_S)
    if json:
        print_json({"callId": result["callId"]})
    else:
        print_text(f"calling, call id {result['callId']}")


def continue_(
    context: typer.Context,
    call_id: CallIdOption,
    message: MessageOption,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say something on a call and wait for the answer."""
    with command_line(context).connect(config) as gateway:
        params = {"callId": call_id, "message": message}
        state = gateway.call("voicecall.continue.start", params)
        deadline = time.monotonic() + state.get("pollTimeoutMs", 220_000) / 1000
        while state.get("status") == "pending":
            if time.monotonic() > deadline:
                raise VoicecallError("no answer came in time")
            time.sleep(_POLL_S)
            asked = {"operationId": state["operationId"]}
            state = gateway.call("voicecall.continue.result", asked)
    if state.get("status") == "failed":
        raise VoicecallError(str(state.get("error")))
    result = state.get("result", state)
    if json:
        print_json(result)
    else:
        print_text(f"heard: {result['transcript']}")


def speak(
    context: typer.Context,
    call_id: CallIdOption,
    message: MessageOption,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say something on a call."""
    params = {"callId": call_id, "message": message}
    result = _request(context, config, "voicecall.speak", params, timeout=_SPEAK_TIMEOUT_S)
    _report(result, json, "spoken")


def dtmf(
    context: typer.Context,
    call_id: CallIdOption,
    digits: Annotated[str, typer.Option("--digits", help="Digits, such as ww123456#.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Press keys on a call."""
    params = {"callId": call_id, "digits": digits}
    _report(_request(context, config, "voicecall.dtmf", params), json, "keys pressed")


def end(
    context: typer.Context,
    call_id: CallIdOption,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Hang up."""
    params = {"callId": call_id}
    _report(_request(context, config, "voicecall.end", params, timeout=40.0), json, "call ended")


def _report(result: Mapping[str, Any], json: bool, text: str) -> None:
    if json:
        print_json(result)
    else:
        print_text(text)


def status(
    context: typer.Context,
    call_id: Annotated[
        str | None, typer.Option("--call-id", help="One call; else all live ones.")
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show a call, or all live calls."""
    params = _given(callId=call_id)
    result = _request(context, config, "voicecall.status", params)
    if json:
        print_json(result)
    elif not result["found"]:
        print_text("no such call")
    elif call_id is not None:
        for key, value in result["call"].items():
            print_text(f"{key}: {value}")
    elif result["calls"]:
        columns = ("callId", "direction", "state", "provider")
        print_table(columns, [[str(c.get(key, "")) for key in columns] for c in result["calls"]])
    else:
        print_text("no live calls")


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
            started = _request(context, config, "voicecall.start", params, timeout=_DIAL_TIMEOUT_S)
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
