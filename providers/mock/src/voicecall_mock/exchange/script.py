"""What a phone does: scripts, as objects and as JSON.

A JSON step is an object with ``do`` and the step's members in camel case::

    [{"do": "wait-for-silence", "afterMs": 600}, {"do": "say", "text": "Hello."}, {"do": "loop"}]

A behaviour is such a list (the phone answers and follows it) or an object::

    {"answer": "busy", "afterMs": 300, "patienceS": 20, "script": [...]}
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec

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
    """A script or behaviour that cannot be read; the message names the place."""


_Whole = Annotated[int, msgspec.Meta(ge=0)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


class _Step(
    msgspec.Struct,
    frozen=True,
    tag_field="do",
    tag=_kebab,
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    pass


class Say(_Step, frozen=True):
    """Speak ``text``. On a media stream, ``audio`` (mu-law 8 kHz, base64 in JSON) replaces
    synthesised speech. In a native call, ``partial`` is recognised first."""

    text: str
    audio: bytes = b""
    partial: str = ""


class WaitForSilence(_Step, frozen=True):
    """Wait until the far side has spoken (since this phone last did) and has then been silent for
    ``after_ms``; in a native call, until a speak action has ended. At most ``timeout_ms``."""

    after_ms: _Whole = 600
    timeout_ms: _Whole | None = None


class Interrupt(_Step, frozen=True):
    """Wait for the far side to speak and talk over it ``after_ms`` later."""

    after_ms: _Whole
    text: str
    audio: bytes = b""


class Press(_Step, frozen=True):
    """Press keys."""

    digits: str


class Wait(_Step, frozen=True):
    """Let time pass. What is heard meanwhile counts for the next :class:`WaitForSilence`."""

    ms: _Whole


class Silent(_Step, frozen=True):
    """Say nothing for ``ms`` (None: until the call ends) and ignore what is heard."""

    ms: _Whole | None = None


class HangUp(_Step, frozen=True):
    """Hang up."""


class DropSocket(_Step, frozen=True):
    """Break the media socket without a close frame; the call goes on."""


class HangUpMidWord(_Step, frozen=True):
    """Begin to speak and hang up ``after_ms`` later."""

    text: str
    after_ms: _Whole
    audio: bytes = b""


class Loop(_Step, frozen=True):
    """Go back to step ``start`` (from 0)."""

    start: _Whole = 0


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
    """What a called phone does. ``reject``: ring, then refuse (busy)."""

    ANSWER = "answer"
    REJECT = "reject"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    UNREACHABLE = "unreachable"


class Behaviour(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A phone when it is called: ``after_ms`` of ringing (None: the option of the exchange), then
    ``answer``, then ``script``. It hangs up when it has heard nothing for ``patience_s``."""

    script: Script = ()
    answer: AnswerMode = AnswerMode.ANSWER
    after_ms: _Whole | None = None
    patience_s: _Seconds | None = None


_SENTENCES = (
    "I heard you. Please go on.",
    "That is good to know.",
    "Could you tell me more about that?",
    "All right, I understand.",
)


def default_script() -> Script:
    """A phone that says one short sentence after each utterance it hears and never hangs up."""
    steps: list[Step] = []
    for text in _SENTENCES:
        steps += [WaitForSilence(), Say(text)]
    return (*steps, Loop())


# --- JSON ------------------------------------------------------------------------------------


def script_from_json(data: Any) -> Script:
    """The script in a JSON list. Raises :exc:`ScriptError`."""
    return _read({"script": data}).script


def script_to_json(script: Script) -> list[dict[str, Any]]:
    """The JSON list of a script; defaults are left out."""
    return [msgspec.to_builtins(step) for step in script]


def behaviour_from_json(data: Any) -> Behaviour:
    """The behaviour in a JSON list or object. Raises :exc:`ScriptError`."""
    if not isinstance(data, Mapping):
        return _read({"script": data})
    if data.get("script") is None:
        data = {**data, "script": script_to_json(default_script())}
    return _read(data)


def caller_from_json(data: Mapping[str, Any]) -> Behaviour:
    """The behaviour of a calling phone, which neither rings nor answers. Raises
    :exc:`ScriptError`."""
    for key in ("answer", "afterMs"):
        if key in data:
            raise ScriptError(f"{key} is for a phone that is called")
    return behaviour_from_json(data)


def _read(data: Mapping[str, Any]) -> Behaviour:
    try:
        behaviour = msgspec.convert(data, Behaviour)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise ScriptError(str(error)) from None
    for index, step in enumerate(behaviour.script):
        if isinstance(step, Loop) and step.start > index:
            raise ScriptError(f"script[{index}].start is after the loop")
    return behaviour
