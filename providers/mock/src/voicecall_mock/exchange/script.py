"""What a phone does: scripts, as dataclasses and as JSON.

In JSON a step is an object with ``do`` and the step's members in camel case::

    [{"do": "wait-for-silence", "afterMs": 600}, {"do": "say", "text": "Hello."}, {"do": "loop"}]

A behaviour is such a list (the phone answers and follows it) or an object::

    {"answer": "busy", "afterMs": 300, "patienceS": 20, "script": [...]}
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

__all__ = [
    "AnswerMode",
    "Behaviour",
    "DropSocket",
    "HangUp",
    "HangUpMidWord",
    "Interrupt",
    "Loop",
    "Press",
    "Say",
    "Script",
    "ScriptError",
    "Silent",
    "Spoken",
    "Step",
    "Wait",
    "WaitForSilence",
    "behaviour_from_json",
    "caller_from_json",
    "default_script",
    "script_from_json",
    "script_to_json",
]


class ScriptError(ValueError):
    """A script or behaviour that cannot be read; the text names the place."""


@dataclass(frozen=True, slots=True)
class Say:
    """Speak ``text``. ``audio`` (mu-law 8 kHz, base64 in JSON) is played on a media stream instead
    of synthesised speech. ``partial`` is recognised first in a native call."""

    text: str
    audio: bytes = b""
    partial: str = ""


@dataclass(frozen=True, slots=True)
class WaitForSilence:
    """Wait until the far side has spoken (since this phone last did) and has then been silent for
    ``after_ms``; a native call: until a speak action has ended. At most ``timeout_ms``."""

    after_ms: int = 600
    timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Wait for the far side to speak and talk over it ``after_ms`` later."""

    after_ms: int
    text: str
    audio: bytes = b""


@dataclass(frozen=True, slots=True)
class Press:
    """Press keys."""

    digits: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass; what is heard meanwhile counts for the next :class:`WaitForSilence`."""

    ms: int


@dataclass(frozen=True, slots=True)
class Silent:
    """Say nothing for ``ms`` (None: until the call ends) and take no notice of what is heard."""

    ms: int | None = None


@dataclass(frozen=True, slots=True)
class HangUp:
    """Hang up."""


@dataclass(frozen=True, slots=True)
class DropSocket:
    """The media socket breaks without a close frame; the call goes on."""


@dataclass(frozen=True, slots=True)
class HangUpMidWord:
    """Begin to speak and hang up ``after_ms`` later."""

    text: str
    after_ms: int
    audio: bytes = b""


@dataclass(frozen=True, slots=True)
class Loop:
    """Go back to step ``start`` (from 0)."""

    start: int = 0


Step = (
    Say
    | WaitForSilence
    | Interrupt
    | Press
    | Wait
    | Silent
    | HangUp
    | DropSocket
    | HangUpMidWord
    | Loop
)
Spoken = Say | Interrupt | HangUpMidWord
Script = tuple[Step, ...]


class AnswerMode(StrEnum):
    """What a called phone does. ``reject``: rings, then refuses (busy)."""

    ANSWER = "answer"
    REJECT = "reject"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A phone when it is called: ``after_ms`` of ringing (None: as the exchange is set), then
    ``answer``, then ``script``. It hangs up when it has heard nothing for ``patience_s``."""

    script: Script = ()
    answer: AnswerMode = AnswerMode.ANSWER
    after_ms: int | None = None
    patience_s: float | None = None


_SENTENCES = (
    "I heard you. Please go on.",
    "That is good to know.",
    "Could you tell me more about that?",
    "All right, I understand.",
)


def default_script() -> Script:
    """Says one short sentence after each thing it hears and never hangs up."""
    steps: list[Step] = []
    for text in _SENTENCES:
        steps += [WaitForSilence(), Say(text)]
    return (*steps, Loop())


# --- JSON ------------------------------------------------------------------------------------


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


_STEPS: Mapping[str, type[Step]] = {
    _kebab(step.__name__): step
    for step in (
        Say,
        WaitForSilence,
        Interrupt,
        Press,
        Wait,
        Silent,
        HangUp,
        DropSocket,
        HangUpMidWord,
        Loop,
    )
}


def _value(where: str, kind: str, value: Any) -> Any:
    if value is None and "None" in kind:
        return None
    if kind.startswith("int") and isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ScriptError(f"{where} is negative")
        return value
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "bytes" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            raise ScriptError(f"{where} is no base64") from None
    raise ScriptError(f"{where} must be {'base64' if kind == 'bytes' else kind}")


def _step(where: str, data: Any) -> Step:
    if not isinstance(data, Mapping):
        raise ScriptError(f"{where} is no object")
    make = _STEPS.get(str(data.get("do")))
    if make is None:
        raise ScriptError(f"{where}.do is none of {', '.join(_STEPS)}")
    members = {_camel(field.name): field for field in fields(make)}
    values = {}
    for key, value in data.items():
        if key == "do":
            continue
        if key not in members:
            raise ScriptError(f"{where}.{key} is unknown")
        field = members[key]
        values[field.name] = _value(f"{where}.{key}", str(field.type), value)
    try:
        return make(**values)
    except TypeError:
        raise ScriptError(f"{where} lacks one of {', '.join(members)}") from None


def script_from_json(data: Any) -> Script:
    """The script in a JSON list. Raises :exc:`ScriptError`."""
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise ScriptError("script is no list")
    script = tuple(_step(f"script[{index}]", step) for index, step in enumerate(data))
    for index, step in enumerate(script):
        if isinstance(step, Loop) and step.start > index:
            raise ScriptError(f"script[{index}].start is behind the loop")
    return script


def script_to_json(script: Script) -> list[dict[str, Any]]:
    """The JSON list of a script; defaults are left out."""
    steps = []
    for step in script:
        data: dict[str, Any] = {"do": _kebab(type(step).__name__)}
        for field in fields(step):
            value = getattr(step, field.name)
            if value != field.default:
                is_audio = isinstance(value, bytes)
                data[_camel(field.name)] = base64.b64encode(value).decode() if is_audio else value
        steps.append(data)
    return steps


def behaviour_from_json(data: Any) -> Behaviour:
    """The behaviour in a JSON list or object. Raises :exc:`ScriptError`."""
    if not isinstance(data, Mapping):
        return Behaviour(script_from_json(data))
    unknown = set(data) - {"answer", "afterMs", "patienceS", "script"}
    if unknown:
        raise ScriptError(f"{min(unknown)} is unknown")
    try:
        answer = AnswerMode(data.get("answer", "answer"))
    except ValueError:
        raise ScriptError(f"answer is none of {', '.join(AnswerMode)}") from None
    patience = data.get("patienceS")
    if patience is not None and not (
        isinstance(patience, int | float) and 0 <= patience <= sys.float_info.max
    ):
        raise ScriptError("patienceS must be a number of seconds")
    script = data.get("script")
    return Behaviour(
        default_script() if script is None else script_from_json(script),
        answer,
        _value("afterMs", "int | None", data.get("afterMs")),
        None if patience is None else float(patience),
    )


def caller_from_json(data: Mapping[str, Any]) -> Behaviour:
    """That of a phone that calls, which neither rings nor answers. Raises :exc:`ScriptError`."""
    for key in ("answer", "afterMs"):
        if key in data:
            raise ScriptError(f"{key} is for a phone that is called")
    return behaviour_from_json(data)
