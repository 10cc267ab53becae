"""Commands on calls: call, start, continue, speak, dtmf, end, status."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from voicecall.errors import CallNotFound, InvalidRequest, VoicecallError
from voicecall.tones import tones_ms
from voicecall_calls.commands.requests import DIAL_TIMEOUT_S, request
from voicecall_gateway.commandline import ConfigOption, JsonOption
from voicecall_gateway.output import print_json, print_table, print_text

__all__ = ["add", "keys_timeout_s", "speak_timeout_s"]

_SPEAK_TIMEOUT_S = 180.0
_SLOWEST = 8
"""Characters per second."""
_KEYS_TIMEOUT_S = 60.0
_POLL_S = 1.0
_DIAL_OPTIONS = {
    "to": "--to",
    "message": "--message",
    "mode": "--mode",
    "dtmfSequence": "--dtmf",
    "agentId": "--agent",
}
_REFUSED = {"calls": "calls", "webhooks": "webhooks", "mediaSockets": "media sockets"}


def add(app: typer.Typer) -> None:
    for name, command in (
        ("call", call),
        ("start", start),
        ("continue", continue_),
        ("speak", speak),
        ("dtmf", dtmf),
        ("end", end),
        ("status", status),
    ):
        app.command(name)(command)


CallIdOption = Annotated[str, typer.Option("--call-id", help="Id of the call.")]
MessageOption = Annotated[str, typer.Option("--message", "-m", help="What to say.")]
ToOption = Annotated[str | None, typer.Option("--to", "-t", help="Number to call (E.164).")]
DigitsFirstOption = Annotated[
    str | None, typer.Option("--dtmf", help="Digits to play before connecting, as for dtmf.")
]
AgentOption = Annotated[
    str | None, typer.Option("--agent", help="Agent that holds the call (default: agentId).")
]
ModeOption = Annotated[str, typer.Option("--mode", help="notify or conversation.")]


def speak_timeout_s(message: str) -> float:
    """How long the gateway may take to speak ``message`` after what is being spoken now."""
    return _SPEAK_TIMEOUT_S + len(message) / _SLOWEST


def keys_timeout_s(digits: str) -> float:
    """How long the gateway may take to press ``digits``. A carrier that closes the media socket to
    play them must open another one afterwards."""
    return _KEYS_TIMEOUT_S + tones_ms(digits) / 1000


def _given(**params: Any) -> dict[str, Any]:
    return {key: value for key, value in params.items() if value is not None}


def call(
    context: typer.Context,
    message: MessageOption,
    to: ToOption = None,
    mode: ModeOption = "conversation",
    dtmf_sequence: DigitsFirstOption = None,
    agent: AgentOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Call a number and say something."""
    params = _given(to=to, message=message, mode=mode, dtmfSequence=dtmf_sequence, agentId=agent)
    _dial(context, config, "voicecall.initiate", params, json)


def start(
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", "-t", help="Number to call (E.164).")],
    message: Annotated[str | None, typer.Option("--message", "-m", help="What to say.")] = None,
    mode: ModeOption = "conversation",
    dtmf_sequence: DigitsFirstOption = None,
    agent: AgentOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Call a number; the message is optional."""
    params = _given(to=to, message=message, mode=mode, dtmfSequence=dtmf_sequence, agentId=agent)
    _dial(context, config, "voicecall.start", params, json)


def _dial(
    context: typer.Context, config: Path | None, method: str, params: Mapping[str, Any], json: bool
) -> None:
    for name, option in _DIAL_OPTIONS.items():
        # The phone takes a blank parameter as absent: without `to` it would call toNumber.
        if name in params and not params[name].strip():
            raise InvalidRequest(f"{option} is empty; give it a value")
    result = request(context, config, method, params, timeout=DIAL_TIMEOUT_S)
    call_id = result["callId"]
    _report({"callId": call_id}, json, f"calling, call id {call_id}")


def continue_(
    context: typer.Context,
    call_id: CallIdOption,
    message: MessageOption,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say something on a call and wait for the answer."""
    params = {"callId": call_id, "message": message}
    state = request(context, config, "voicecall.continue.start", params)
    deadline = time.monotonic() + state.get("pollTimeoutMs", 220_000) / 1000
    while state.get("status") == "pending":
        if time.monotonic() > deadline:
            raise VoicecallError("no answer came in time")
        time.sleep(_POLL_S)
        asked = {"operationId": state["operationId"]}
        state = request(context, config, "voicecall.continue.result", asked)
    if state.get("status") == "failed":
        raise VoicecallError(str(state.get("error")))
    result = state.get("result", state)
    _report(result, json, f"heard: {result['transcript']}")


def speak(
    context: typer.Context,
    call_id: CallIdOption,
    message: MessageOption,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say something on a call."""
    params = {"callId": call_id, "message": message}
    timeout = speak_timeout_s(message)
    result = request(context, config, "voicecall.speak", params, timeout=timeout)
    _report(result, json, "spoken")


def dtmf(
    context: typer.Context,
    call_id: CallIdOption,
    digits: Annotated[
        str, typer.Option("--digits", help="Digits, such as ww123456# (w waits half a second).")
    ],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Press keys on a call."""
    params = {"callId": call_id, "digits": digits}
    result = request(context, config, "voicecall.dtmf", params, timeout=keys_timeout_s(digits))
    _report(result, json, "keys pressed")


def end(
    context: typer.Context,
    call_id: CallIdOption,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Hang up."""
    params = {"callId": call_id}
    _report(request(context, config, "voicecall.end", params, timeout=40.0), json, "call ended")


def _report(result: Mapping[str, Any], json: bool, text: str) -> None:
    if json:
        print_json(result)
    else:
        print_text(text)


def status(
    context: typer.Context,
    call_id: Annotated[
        str | None, typer.Option("--call-id", help="Id of the call (default: all live calls).")
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show one call, or all live calls with what was refused and what failed. Exit 1 if there is
    no call with the id."""
    if call_id is not None and not call_id.strip():
        raise VoicecallError("--call-id is empty; leave it out for all live calls")
    params = _given(callId=call_id)
    result = request(context, config, "voicecall.status", params)
    if json:
        print_json(result)
        if not result["found"]:
            raise typer.Exit(1)
    elif call_id is not None:
        if not result["found"]:
            raise CallNotFound(call_id)
        for key, value in result["call"].items():
            print_text(f"{key}: {_time(value) if key.endswith('At') else value}")
    elif result["calls"]:
        columns = ("callId", "direction", "state", "provider")
        print_table(columns, [[str(c.get(key, "")) for key in columns] for c in result["calls"]])
    else:
        print_text("no live calls")
    if call_id is None and not json:
        for kind, counts in result.get("refused", {}).items():
            counted = ", ".join(f"{reason} {count}" for reason, count in counts.items())
            print_text(f"refused {_REFUSED[kind]}: {counted}")
        for failure in result.get("failures", ()):
            at = _time(failure["at"])
            in_a_row = failure["inARow"]
            since = f"{in_a_row} in a row" if in_a_row else "it has worked since"
            what = f"{failure['kind']} {failure['provider']}"
            print_text(f"failed at {at}: {what}: {failure['reason']}, {since}")


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")
